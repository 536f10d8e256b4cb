"""The result of a study: the front as a table for people, and as one JSON object for programs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from optuna.trial import FrozenTrial

from objectives.words import counted
from search.database import disk
from search.host.called import command
from search.pareto.intervals import Estimate, wilson
from search.study import records
from search.study.snapshot import Snapshot
from search.views import confirmed, effects, timeline
from search.views.columns import columns
from search.views.reduction import against
from search.views.training import shadow, starts

OTHER = {"balanced": "balanced_accuracy", "plain": "accuracy"}  # what is not maximised: its user attribute
FAR = 0.02  # of accuracy: where plain and balanced differ by so much, both are shown


def as_json(now: Snapshot) -> dict[str, object]:
    """The result as plain data."""
    return {
        "study": now.name,
        "trials": asdict(now.counts),
        "front": [_point(trial, now) for trial in now.front_trials],
        **({} if now.kind.trains else {"base": now.base}),
        **({} if now.spec.network.start is None else {"start": now.attributes.get(records.START)}),
        "baseline": _point(now.baseline, now) if now.baseline is not None else None,
        "correction": confirmed.correction_json(now),
        "refit": _refit(now),
        "effects": effects.as_json(now),
        "hypervolume": now.hypervolume(),
        "reference": {now.kind.metric: now.box.slowest, "accuracy": now.box.useful} if now.box else None,
        "box": asdict(now.box) if now.box else None,
        "identity": now.attributes[records.IDENTITY],
        "storage": now.database.shown,
    }


def table(now: Snapshot, width: int | None = None) -> list[str]:
    """The front by rising cost, compared with BASELINE, which stands below it where it is not on it.

    Networks that were made smaller are compared with what they were made of.
    """
    shown = [*now.front_trials]
    if now.baseline is not None and now.baseline.number not in {trial.number for trial in shown}:
        shown.append(now.baseline)
    if not shown:
        ended = any(trial.state.is_finished() for trial in now.trials)
        return [f"{now.name}: {'nothing on the front' if ended else 'no trial has finished yet'}", ""]
    cells = [_cells(trial, now) for trial in shown]
    other = "balanced" if now.spec.metric == "plain" else "plain"
    if not any(abs(trial.user_attrs[OTHER[other]] - trial.values[1]) >= FAR for trial in shown):
        for row in cells:
            del row[other]
    for name in confirmed.columns(now.kind):
        if not any(row[name] for row in cells):
            for row in cells:
                del row[name]
    rows = [list(row.values()) for row in cells]
    return [f"{now.name}: Pareto front", "", *columns(list(cells[0]), rows, width), ""]


def lines(now: Snapshot, width: int | None = None) -> list[str]:
    """What belongs below the table: what its columns mean, how the trials ended, where everything is."""
    counts = now.counts
    reasons = ", ".join(
        f"{n} {reason.replace('_', ' ')}" for reason, n in counts.by_reason.items() if reason != "complete"
    )
    apart = {"of them timed again": counts.repeats, "with fresh seeds": counts.confirmations}
    again = f" ({', '.join(f'{n} {what}' for what, n in apart.items() if n)})" if any(apart.values()) else ""
    ended = f"{counts.complete} complete{again}, {counts.pruned} stopped early, {counts.failed} failed"
    ended += f", {counts.ablations} to take points apart" if counts.ablations else ""
    said = [
        *_legend(now),
        *_uncertain(now),
        *([confirmed.LIKENESS] if now.alike else []),
        *nothing_passed(now),
        *_disturbed(now),
        *_on_the_wall(now),
        *_test_time(now),
        *shadow.lines(now),
        *confirmed.lines(now),
        *on_all_images(now),
        *_network_of_all(now),
        *starts.lines(now),
        f"trials      {ended}" + (f" ({reasons})" if reasons else ""),
    ]
    if now.box is not None:
        said.append(
            f"hypervolume {now.hypervolume():.3f} of the box from {now.kind.brief(now.box.slowest, 3)} and "
            f"{_share(now.box.useful, now)} to {now.kind.brief(now.box.fastest)} and no error, both in decades"
        )
    return [
        *(timeline.lines(now, width) if now.kind.trains else []),
        *effects.lines(now, width),
        *said,
        f"models      {now.artifacts} ({disk.words(disk.folder_bytes(now.artifacts))})",
        f"database    {now.database.shown} ({disk.words(disk.database_bytes(now.database.url))})",
        f"dashboard   {command('dashboard')} --study {now.name}{now.database.option}",
    ]


def _refit(now: Snapshot) -> dict[str, object] | None:
    """The network that was trained on all images, as plain data."""
    told = now.attributes.get(records.REFIT)
    return {**told, "folder": str((now.artifacts / "refit").absolute())} if told else None


def on_all_images(now: Snapshot) -> list[str]:
    """What the network promises that was trained on all images; where none was, nothing."""
    told = now.attributes.get(records.REFIT)
    if not told:
        return []
    low, high = told["interval"]
    n, seeds = told["n_seeds"], counted(told["n_seeds"], "fresh seed")
    source = f"of {seeds}" if n else "of the run that was chosen for it"
    gain = told.get("flip_gain", 0.0)  # which earlier versions did not tell
    mirrored = [
        "It tells an image by that and its mirror image together, which takes twice as long: "
        "refit_test_time_flip = false under [search] leaves that out."
    ]
    by_mirror = f"{100 * gain:.1f} points by mirror images, " if gain else ""
    return [
        f"Trial {told['trial']}, trained on all {told['n_images']} images in {told['train_seconds']:.3g} s: expect "
        f"{told['accuracy']:.1%} on new images ({low:.1%} to {high:.1%}): {told['measured']:.1%} {source}, "
        f"{by_mirror}and what more images bring.",
        *(mirrored if gain else []),
    ]


def _network_of_all(now: Snapshot) -> list[str]:
    """Where that network is, and how to use it."""
    if not now.attributes.get(records.REFIT):
        return []
    return [
        f"network     {now.artifacts / 'refit'}",
        f"to use it   {command('predict')} --model {shlex.quote(str(now.artifacts / 'refit'))} --images FOLDER",
    ]


def _legend(now: Snapshot) -> list[str]:
    """What the columns of the table mean, where there is one."""
    if not now.front and now.baseline is None:
        return []
    if now.base is not None:
        return [
            "MFLOP: of an inference, 1 multiply-add = 2 FLOPs. Accuracy: of the validation images. Fewer FLOPs and the "
            f"difference in points: against the network that was made smaller, of {against.of_base(now.base)}"
            f"{'; of the means where it is confirmed' if now.confirmed else ''}. Seconds: of the whole reduction on "
            "this device."
        ]
    what = "Seconds: training time on this device."
    if (machine := now.spec.machine) is not None:
        what = (
            f"Modelled seconds: of {machine.name}, by a formula of the network, the batch and the number format, of no "
            "clock; of emulated formats by what is assumed of units that have them."
        )
    said = f"{what} Accuracy: of the validation images."
    if now.baseline is not None:
        means = ", of the means where both are confirmed" if now.confirmed else ""
        said += (
            f" Speed-up, difference in points and FLOPs of an inference: against BASELINE{means}. Against plain: "
            "seconds of the cheapest run without any strategy that is as accurate, over these."
        )
    return [said]


def _uncertain(now: Snapshot) -> list[str]:
    """How well accuracies are known of points without fresh seeds."""
    single = [point.values[1] for point in now.front_trials if now.confirmed_of(point) is None]
    if not single:
        return []
    half = max(Estimate(accuracy, wilson(accuracy, now.n_sure)).half or 0 for accuracy in single)
    by_class = " of uneven classes" if now.n_sure < now.n_val else ""
    images = f"{now.n_val} validation images{by_class}"
    return [f"Without fresh seeds, accuracies of {images} are known to ±{100 * half:.1f} points."]


def nothing_passed(now: Snapshot) -> list[str]:
    """Where no run reached the floor: the floor, the best below it, and how to set another."""
    curves = [t for t in now.trials if t.user_attrs.get(records.CURVE) and not records.only_says_more(t)]
    ended = [t for t in curves if records.reason(t) != "diverged"]
    if now.front or not ended:
        return []
    best = max(ended, key=lambda trial: trial.user_attrs[records.CURVE][-1][2])
    _, seconds, accuracy, _ = best.user_attrs[records.CURVE][-1]
    return [
        f"Nothing reached the floor of {now.floor:.2%} accuracy, below which a result counts for nothing. "
        f"The best below it: trial {best.number}, {accuracy:.2%} after {seconds:.2f} s, {records.in_words(best)}.",
        "For another floor set floor = ... under [search] in the study file, and begin a new study with --as NAME.",
    ]


def _on_the_wall(now: Snapshot) -> list[str]:
    """How long trainings took by the clock on the wall, where that is another time."""
    if not now.kind.is_timed:
        return []
    walls = [(t.number, t.values[0], t.user_attrs.get(records.WALL_SECONDS) or t.values[0]) for t in now.front_trials]
    number, seconds, wall = max(walls, key=lambda each: abs(each[2] / each[1] - 1), default=(0, 1.0, 1.0))
    if abs(wall / seconds - 1) <= records.MUCH:
        return []
    return [
        "Seconds are those that the processor worked for a training; by the clock on the wall it took up to "
        f"{wall / seconds:.2g}x as long (trial {number}: {wall:.2f} s)."
    ]


def _disturbed(now: Snapshot) -> list[str]:
    """What the mark means, where there is one."""
    shown = now.front_trials + ([now.baseline] if now.baseline is not None else [])
    if not any(_was_disturbed(trial) or now.is_disturbed(trial) for trial in shown):
        return []
    said = "no speed-up is claimed for it, nor against it where it is BASELINE"
    return [f"{confirmed.MARK} Other work disturbed the device whenever this was timed: {said}."]


def _test_time(now: Snapshot) -> list[str]:
    """What test-time augmentation costs, where the accuracies come from it."""
    if not now.spec.test_time_flip or not now.front or not now.kind.trains:
        return []
    seconds = [trial.user_attrs["eval_seconds"] / records.curve(trial)[-1].epoch for trial in now.front_trials]
    return [
        "Accuracies are those of each image and its mirror image together (test_time_flip): "
        f"one evaluation takes {median(seconds):.2g} s in the median of the front; it is not in the seconds."
    ]


def _point(trial: FrozenTrial, now: Snapshot) -> dict[str, object]:
    return {
        "trial": trial.number,
        **dict(zip(now.kind.metrics, trial.values, strict=True)),
        **_of_base(trial, now),
        "is_alike": trial.number in now.alike,
        "params": trial.params,
        "pipeline": trial.user_attrs[records.PIPELINE],
        "balanced_accuracy": trial.user_attrs["balanced_accuracy"],
        "noisy": trial.user_attrs.get(records.NOISY),
        "against_plain": now.against_plain(trial) if now.kind.trains else None,
        "timeline": timeline.as_json(trial),
        "network": str(network) if (network := now.network(trial.number)) is not None else None,
        **confirmed.as_json(now.confirmed_of(trial), now.kind),
    }


def _cells(trial: FrozenTrial, now: Snapshot) -> dict[str, str]:
    """A row of the table, by column."""
    (cost, accuracy), baseline, found = trial.values, now.baseline, now.confirmed_of(trial)
    alike = confirmed.ALIKE if trial.number in now.alike else ""
    mark = confirmed.MARK if trial.user_attrs.get(records.NOISY) else ""
    other = "balanced" if now.spec.metric == "plain" else "plain"
    cells = {
        "trial": str(trial.number),
        now.kind.column: f"{mark}{now.kind.shown(cost)}",
        "accuracy": f"{'' if found else alike}{accuracy:.2%}",
        other: f"{trial.user_attrs[OTHER[other]]:.2%}",
        **confirmed.cells(found, now.kind, alike),
    }
    if now.base is not None:
        [(left, kept_accuracy)], _ = _compared([trial], now)
        cells |= dict(zip(against.COLUMNS, against.cells(left, kept_accuracy, trial, now.base), strict=True))
    elif baseline is not None:
        kept = trial.user_attrs["inference_flops"] / baseline.user_attrs["inference_flops"]
        ((took, reached), (baseline_took, baseline_reached)), is_claim = _compared([trial, baseline], now)
        cells["speed-up"] = f"{baseline_took / took:.2f}x" if is_claim else ""
        plain = now.against_plain(trial)
        cells["against plain"] = "" if mark else "none" if plain is None else f"{plain:.2f}x"
        cells["difference"] = f"{100 * (reached - baseline_reached):+.2f}"
        cells["FLOPs"] = f"{kept:.0%}"
    return cells | {"pipeline": records.in_words(trial)}


def _of_base(trial: FrozenTrial, now: Snapshot) -> dict[str, object]:
    """What a network that was made smaller says beside its FLOPs."""
    if now.kind.trains:
        return {}
    return {"n_parameters": trial.user_attrs["n_parameters"], "seconds": records.seconds(trial)}


def _share(accuracy: float, now: Snapshot) -> str:
    """An accuracy from which on it counts, in as many digits as tell it from that of a network to make smaller."""
    return f"{accuracy:.0%}" if now.kind.trains else f"{accuracy:.1%}"


def _compared(trials: Sequence[FrozenTrial], now: Snapshot) -> tuple[list[tuple[float, float]], bool]:
    """((cost, accuracy) of each, whether nothing disturbed those costs).

    What the search measured, or the means of fresh seeds where all have them.
    """
    found = [each for trial in trials if (each := now.confirmed_of(trial)) is not None]
    if len(found) == len(trials):
        return [(each.cost.mean, each.accuracy.mean) for each in found], not any(each.is_disturbed for each in found)
    return [(each.values[0], each.values[1]) for each in trials], not any(map(_was_disturbed, trials))


def _was_disturbed(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get(records.NOISY))
