"""What fresh seeds say of a front: columns of the table, lines below it, JSON."""

from __future__ import annotations

from dataclasses import asdict

from search.host.called import command
from search.pareto.kinds import Kind
from search.study import confirmation
from search.study.confirmation import Confirmed
from search.study.snapshot import Snapshot

MARK = "*"  # of seconds that were disturbed
ALIKE = "~"  # of a point that is not known to be more accurate than a cheaper one
LIKENESS = f"{ALIKE} As accurate as the cheaper point before it that has no {ALIKE}, for all that is known."


def columns(kind: Kind) -> tuple[str, str, str]:
    """The names of the columns of a point."""
    return f"confirmed {kind.unit}", "confirmed", "test"


def cells(found: Confirmed | None, kind: Kind, alike: str) -> dict[str, str]:
    """The columns of a point; `alike`: its mark, where it is not known to be more accurate than a cheaper one."""
    if found is None:
        return dict.fromkeys(columns(kind), "")
    half = found.cost.half
    mark = MARK if found.is_disturbed else ""
    cost = mark + kind.shown(found.cost.mean) + (f" ±{kind.shown(half)}" if half is not None else "")
    accuracy = f"{alike}{found.accuracy.mean:.2%} ±{100 * (found.accuracy.half or 0):.2f}"
    return dict(zip(columns(kind), (cost, accuracy, f"{found.test.mean:.2%}" if found.test else ""), strict=True))


def as_json(found: Confirmed | None, kind: Kind) -> dict[str, object]:
    """What a program is told of a point."""
    if found is None:
        return {"confirmed": None, "test_accuracy": None}
    confirmed = {
        "n": found.n,
        "failed": found.n_failed,
        kind.metric: found.cost.mean,
        f"{kind.metric}_interval": found.cost.interval,
        "val_accuracy": found.accuracy.mean,
        "val_accuracy_interval": found.accuracy.interval,
    }
    return {"confirmed": confirmed, "test_accuracy": asdict(found.test) if found.test else None}


def correction_json(now: Snapshot) -> dict[str, object] | None:
    """How much the search had flattered the front, as plain data."""
    found = confirmation.correction(_of_front(now))
    return asdict(found) if found is not None else None


def lines(now: Snapshot) -> list[str]:
    """What belongs below the table."""
    return [*_explained(now), *_failed(now), *_lacking(now)]


def _of_front(now: Snapshot) -> list[Confirmed]:
    return [found for point in now.front_trials if (found := now.confirmed_of(point)) is not None]


def _explained(now: Snapshot) -> list[str]:
    """What the columns say, what was corrected, what the test split says."""
    if (found := confirmation.correction(_of_front(now))) is None:
        return []
    fewest, most = found.n_seeds
    seeds = f"{most} fresh seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} fresh seeds"
    has_spread = any(each.has_spread for each in now.confirmed.values())
    worst = f"largest loss {100 * found.largest:.2f}, trial {found.point}" if found.largest > 0 else "none lost any"
    said = [
        f"Confirmed with {seeds}: accuracy {_points(found.mean)} in the mean than the search said ({worst}). Means of "
        "the fresh seeds alone: the first run was chosen for its luck. ± is half of a 95 % interval"
        + (", from the spread of the seeds of all points." if has_spread else ", from the number of images.")
    ]
    tests = [each.test for each in now.confirmed.values() if each.test is not None]
    if tests:
        half = max(test.half or 0 for test in tests)
        said.append(
            f"Test: mean accuracy on the test split, which nothing was chosen by; 95 % within ±{100 * half:.2f}."
        )
    return said


def _points(lower: float) -> str:
    return f"{abs(100 * lower):.2f} points {'lower' if lower >= 0 else 'higher'}"


def _failed(now: Snapshot) -> list[str]:
    """Fresh seeds with which a pipeline did not train to its end."""
    failed = confirmation.failures(now.trials, now.floor)
    return [
        f"Trial {point} did not train to its end with {len(reasons)} fresh seed{'s' if len(reasons) > 1 else ''} "
        f"({', '.join(sorted(set(reasons))).replace('_', ' ')})."
        for point, reasons in failed.items()
    ]


def _lacking(now: Snapshot) -> list[str]:
    """What is not confirmed yet, or not tested, with the command that does it."""
    n_seeds = now.spec.search.confirm
    lacking = confirmation.lacking(now.trials, now.floor, n_seeds) if now.front else []
    do_it = f"{command('confirm')} --study {now.name}{now.database.option}"
    if lacking:
        took = confirmation.seconds_lacking(now.trials, now.floor, n_seeds)
        numbers = f"trial{'s' if len(lacking) > 1 else ''} {', '.join(str(point.number) for point in lacking)}"
        seeds = f"{n_seeds} fresh seed{'s' if n_seeds > 1 else ''}"
        return [f"Not confirmed with {seeds} yet: {numbers}; about {took:.2g} s of training: {do_it}"]
    return [f"The test split is closed; to confirm with more seeds and open it: {do_it}"] if now.untested else []
