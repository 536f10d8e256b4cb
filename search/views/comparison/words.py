"""Two fronts compared: for people, and as JSON. Which differences intervals support is said in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from search.pareto import kinds
from search.pareto.intervals import Estimate
from search.pareto.resampling import N_RESAMPLED
from search.proposals.effects import Effect
from search.views.columns import columns, printed_width
from search.views.comparison.compared import Comparison, Moved, Side, Within
from search.views.drawing import points
from search.views.drawing.points import Shown
from search.views.drawing.theme import in_units
from search.views.effects import NAMES
from search.views.plot import Kind, Mark, Subject, front_of, plot

WIDEST, HEIGHT = 80, 16  # columns and lines of the plot
MOST_SAID = 4  # costs, of which a sentence tells what is better
RESAMPLED = (
    f"Intervals of 95 %. Of the share of the box: of {N_RESAMPLED} draws of as many trials as were made, with their "
    "fresh seeds drawn again, or the images of a trial that has none; draws leave parts of a front out, so they reach "
    "further down. Of accuracies: from fresh seeds, else from the number of images."
)


def as_json(found: Comparison) -> dict[str, object]:
    """What a program is told."""
    seconds, *volumes = found.equally
    return {
        "a": _side_json(found.a, found.volumes[0]),
        "b": _side_json(found.b, found.volumes[1]),
        "box": asdict(found.box),
        "hypervolume_difference": asdict(found.difference),
        "after_equal_seconds": {"seconds": seconds, "hypervolumes": volumes},
        "resampled": RESAMPLED,
        "within": [_within_json(each, found) for each in found.within],
        "strategies": [_moved_json(each) for each in found.moved],
        "obstacles": list(found.obstacles),
        "remarks": list(found.remarks),
        "sentences": sentences(found),
    }


def lines(found: Comparison, *, ascii_only: bool, width: int | None = None) -> list[str]:
    """What people are told."""
    width = width or printed_width()
    said = [f"{found.a.name} against {found.b.name}", ""]
    if drawn := drawn_fronts(found, width, ascii_only=ascii_only):
        said += [*drawn, ""]
    if found.within:
        said += [*columns(["within", found.a.name, found.b.name, "points"], within_rows(found), width), ""]
    if found.moved:
        header = ["strategy", f"seconds {found.a.name}", found.b.name, f"points {found.a.name}", found.b.name, ""]
        said += [*columns(header, moved_rows(found), width, left=["strategy"]), ""]
    return [*said, *(f"- {sentence}" for sentence in sentences(found)), "", RESAMPLED]


def drawn_fronts(found: Comparison, width: int, *, ascii_only: bool) -> list[str]:
    """Both fronts as a plot of characters: where both have a point, that of A is shown."""
    shown = [
        Mark(each.cost.mean, each.accuracy.mean, kind)
        for side, kind in ((found.a, Kind.FRONT), (found.b, Kind.DOMINATED))
        for each in side.front.values()
    ]
    kind = found.a.now.kind
    titles = front_of(kind).titles
    subject = Subject(titles, kind.brief, (found.b.name, found.a.name, ""), ("○● ", "ox "))
    return plot(shown, min(width, WIDEST), HEIGHT, ascii_only=ascii_only, subject=subject)


def within_rows(found: Comparison) -> list[list[str]]:
    """A row for each cost: how accurate both are, and the difference."""
    return [
        [each.words, _shown(each.a, found.a.now.kind), _shown(each.b, found.b.now.kind), _points(each.difference)]
        for each in found.within
    ]


def moved_rows(found: Comparison) -> list[list[str]]:
    """A row for each strategy: what it did in both, and what is surely another thing."""
    return [
        [
            NAMES.get(each.switch, each.switch),
            *(_factor(side) for side in (each.a, each.b)),
            *(_gain(side) for side in (each.a, each.b)),
            f"{' and '.join(differ)} differ" if (differ := _differ(each)) else "",
        ]
        for each in found.moved
    ]


def sentences(found: Comparison) -> list[str]:
    """Which differences the intervals support, and what should be known of them."""
    said = (
        [f"Not comparable: {'; '.join(found.obstacles)}: what follows may come from that."] if found.obstacles else []
    )
    said += [_of_volumes(found), *_of_seconds(found), *_of_costs(found), *_of_strategies(found)]
    return said + [f"Also other: {'; '.join(found.remarks)}."] * bool(found.remarks)


def _of_volumes(found: Comparison) -> str:
    """Which front dominates more."""
    low, high = _ends(found.difference)
    told = [f"{side.name} {of.mean:.3f} ({_to(of)})" for side, of in zip(found.sides, found.volumes, strict=True)]
    head = f"Share of the box from {_box(found)}: {', '.join(told)}"
    less = f"{found.difference.mean:+.3f}: {_to(found.difference)}"
    if low <= 0 <= high:
        return f"{head}: nothing says that one front dominates more ({less})."
    return f"{head}: that of {found.a.name if low > 0 else found.b.name} dominates more ({less})."


def _of_seconds(found: Comparison) -> list[str]:
    """What the one came to in the seconds that the other took, where one took more."""
    seconds, *volumes = found.equally
    most = max(found.sides, key=lambda side: side.seconds)
    if most.seconds <= 1.1 * seconds or seconds <= 0:
        return []
    times = f"{most.name} trained {most.seconds / seconds:.1f} times as long"
    told = " and ".join(f"{side.name} {volume:.3f}" for side, volume in zip(found.sides, volumes, strict=True))
    return [f"{times}: once each had taken {in_units(seconds)}, as their searches measured, it was {told}."]


def _of_costs(found: Comparison) -> list[str]:
    """At which costs one of them is more accurate."""
    told = []
    for each in found.within:
        if each.difference is None or (ends := _ends(each.difference))[0] <= 0 <= ends[1]:
            continue
        better = found.a.name if each.difference.mean > 0 else found.b.name
        half = 100 * (each.difference.half or 0.0)
        told.append(f"{each.words}: {better} by {100 * abs(each.difference.mean):.2f} points (±{half:.2f})")
    alone = [_only(found, each) for each in found.within if (each.a is None) != (each.b is None)]
    said = [f"Only {alone[-1]}."] if alone else []
    if not told:
        return [*said, "At no cost do the intervals say which is more accurate."] if found.within else said
    more = f", and at {len(told) - MOST_SAID} more" if len(told) > MOST_SAID else ""
    return [*said, f"More accurate within {'; within '.join(told[:MOST_SAID])}{more}."]


def _only(found: Comparison, each: Within) -> str:
    side = found.a if each.b is None else found.b
    return f"{side.name} has anything within {each.words}"


def _of_strategies(found: Comparison) -> list[str]:
    """Which strategies did something else in the one than in the other."""
    if not found.a.now.kind.is_timed:
        return []
    if not found.moved:
        return ["No strategy has runs enough in both to be compared."]
    told = []
    for each in found.moved:
        name = NAMES.get(each.switch, each.switch)
        if each.holds(each.seconds):
            told.append(f"{name}, seconds {_factor(each.a)} against {_factor(each.b)}")
        if each.holds(each.error):
            told.append(f"{name}, points {_gain(each.a)} against {_gain(each.b)}")
    n = f"{len(found.moved)} strategies" if len(found.moved) > 1 else "the strategy"
    both = "that both tried" if len(found.moved) > 1 else "that both have tried"
    head = f"Of {n} {both}, all looked at together,"
    return [
        f"{head} these did something else: {'; '.join(told)}." if told else f"{head} none surely did something else."
    ]


def _differ(each: Moved) -> list[str]:
    """In what a strategy surely did something else."""
    changes = {"seconds": each.seconds, "accuracy": each.error}
    return [name for name, change in changes.items() if each.holds(change)]


def _box(found: Comparison) -> str:
    kind, box = found.a.now.kind, found.box
    edges = [in_units(cost, kind) for cost in (box.slowest, box.fastest)]
    return f"{edges[0]} and {100 * box.useful:.3g}% to {edges[1]} and no error (it holds the boxes of both)"


def _ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.interval is not None
    return estimate.interval


def _to(estimate: Estimate) -> str:
    low, high = _ends(estimate)
    return f"{low:.3f} to {high:.3f}"


def _shown(each: Shown | None, kind: kinds.Kind) -> str:
    if each is None:
        return "-"
    return f"{points.percent(each.accuracy)} {points.number(each.cost.mean, kind)} {kind.unit}, trial {each.number}"


def _points(difference: Estimate | None) -> str:
    if difference is None:
        return ""
    low, high = (100 * end for end in _ends(difference))
    mark = "" if low > 0 or high < 0 else " (undecided)"
    return f"{100 * difference.mean:+.2f} ±{(high - low) / 2:.2f}{mark}"


def _factor(effect: Effect) -> str:
    assert effect.seconds is not None
    middle, low, high = effect.seconds.factors
    return f"x{middle:.2f} ({low:.2f} to {high:.2f})"


def _gain(effect: Effect) -> str:
    assert effect.points is not None
    middle, low, high = effect.points
    return f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"


def _side_json(side: Side, volume: Estimate) -> dict[str, object]:
    return {
        "study": side.now.name,
        "storage": side.now.database.shown,
        "trials": side.now.n_counted,
        "seconds": side.seconds,
        "hypervolume": asdict(volume),
        "front": [_shown_json(each, side) for each in side.front.values()],
    }


def _shown_json(each: Shown | None, side: Side) -> dict[str, object] | None:
    if each is None:
        return None
    known = {"accuracy": asdict(each.accuracy), side.now.kind.metric: asdict(each.cost), "n_seeds": each.n_seeds}
    return {"trial": each.number, **known}


def _within_json(each: Within, found: Comparison) -> dict[str, object]:
    of = {"a": _shown_json(each.a, found.a), "b": _shown_json(each.b, found.b)}
    difference = None if each.difference is None else asdict(each.difference)
    return {found.a.now.kind.metric: each.cost, **of, "difference": difference}


def _moved_json(each: Moved) -> dict[str, object]:
    def told(effect: Effect) -> dict[str, Sequence[float] | None]:
        return {"seconds": None if effect.seconds is None else effect.seconds.factors, "points": effect.points}

    return {"strategy": each.switch, "a": told(each.a), "b": told(each.b), "differ": _differ(each)}
