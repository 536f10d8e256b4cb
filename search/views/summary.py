"""The result of a study: the front as a table for people, and as one JSON object for programs."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from optuna.trial import FrozenTrial
from rich import box
from rich.table import Table

from search.database import disk
from search.study import records
from search.study.study import Study

MARK = "*"  # of seconds that were disturbed


def as_json(study: Study) -> dict[str, object]:
    """The result as plain data."""
    trials, front = study.trials(), study.front()
    volume, reference, baseline = study.hypervolume(front), study.reference(), study.baseline()
    return {
        "study": study.name,
        "trials": asdict(records.counts(trials)),
        "front": [_point(trials[point.trial]) for point in front],
        "baseline": _point(baseline) if baseline is not None else None,
        "hypervolume": volume[0] if volume else None,
        "hypervolume_share": volume[1] if volume else None,
        "reference": asdict(reference) if reference else None,
        "identity": study.optuna.user_attrs[records.IDENTITY],
        "storage": study.database.shown,
    }


def table(study: Study) -> Table:
    """The front by rising seconds, compared with BASELINE, which stands below it where it is not on it."""
    trials, front, baseline = study.trials(), study.front(), study.baseline()
    shown = Table(box=box.SIMPLE_HEAD, title=f"{study.name}: Pareto front", title_justify="left", pad_edge=False)
    for name in ("trial", "seconds", "accuracy", "speed-up", "difference", "FLOPs"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("pipeline", overflow="fold")
    for point in front:
        shown.add_row(*_row(trials[point.trial], baseline))
    if baseline is not None and baseline.number not in {point.trial for point in front}:
        shown.add_section()
        shown.add_row(*_row(baseline, baseline), style="dim")
    return shown


def lines(study: Study) -> list[str]:
    """What belongs below the table: what its columns mean, how the trials ended, where everything is."""
    counts = records.counts(study.trials())
    reasons = ", ".join(
        f"{n} {reason.replace('_', ' ')}" for reason, n in counts.by_reason.items() if reason != "complete"
    )
    again = f" ({counts.repeats} of them timed again)" if counts.repeats else ""
    ended = f"{counts.complete} complete{again}, {counts.pruned} stopped early, {counts.failed} failed"
    said = [
        "Seconds: training time on this device. Accuracy: of the validation images. Speed-up, difference in points and "
        "FLOPs of an inference: against BASELINE.",
        *_nothing_passed(study),
        *_disturbed(study),
        *_on_the_wall(study),
        *_test_time(study),
        f"trials      {ended}" + (f" ({reasons})" if reasons else ""),
    ]
    if (volume := study.hypervolume()) is not None:
        said.append(f"hypervolume {volume[1]:.3f} of the box down to the fastest anchor, up to 100 %")
    return [
        *said,
        f"models      {study.artifacts} ({disk.words(disk.folder_bytes(study.artifacts))})",
        f"database    {study.database.shown} ({disk.words(disk.database_bytes(study.database.url))})",
        f"dashboard   python -m search dashboard --study {study.name}",
    ]


def _nothing_passed(study: Study) -> list[str]:
    """Where no run reached the floor: the floor, the best below it, and how to set another."""
    ended = [t for t in study.trials() if t.user_attrs.get(records.CURVE) and records.reason(t) != "diverged"]
    if study.front() or not ended:
        return []
    best = max(ended, key=lambda trial: trial.user_attrs[records.CURVE][-1][2])
    _, seconds, accuracy, _ = best.user_attrs[records.CURVE][-1]
    return [
        f"Nothing reached the floor of {study.floor:.2%} accuracy, below which a result counts for nothing. "
        f"The best below it: trial {best.number}, {accuracy:.2%} after {seconds:.2f} s, {records.in_words(best)}.",
        "For another floor set floor = ... under [search] in the study file, and begin a new study with --as NAME.",
    ]


def _on_the_wall(study: Study) -> list[str]:
    """How long trainings took by the clock on the wall, where that is another time."""
    trials = study.trials()
    shown = [trials[point.trial] for point in study.front()]
    walls = [(t.number, t.values[0], t.user_attrs.get(records.WALL_SECONDS) or t.values[0]) for t in shown]
    number, seconds, wall = max(walls, key=lambda each: abs(each[2] / each[1] - 1), default=(0, 1.0, 1.0))
    if abs(wall / seconds - 1) <= records.MUCH:
        return []
    return [
        "Seconds are those that the processor worked for a training; by the clock on the wall it took up to "
        f"{wall / seconds:.2g}x as long (trial {number}: {wall:.2f} s)."
    ]


def _disturbed(study: Study) -> list[str]:
    """What the mark means, where there is one."""
    trials, baseline = study.trials(), study.baseline()
    shown = [trials[point.trial] for point in study.front()] + ([baseline] if baseline is not None else [])
    if not any(trial.user_attrs.get(records.NOISY) for trial in shown):
        return []
    said = "no speed-up is claimed for it, nor against it where it is BASELINE"
    return [f"{MARK} Other work disturbed the device whenever this was timed: {said}."]


def _test_time(study: Study) -> list[str]:
    """What test-time augmentation costs, where the accuracies come from it."""
    if not study.spec.test_time_flip or not (front := study.front()):
        return []
    trials = study.trials()
    attributes = [trials[point.trial].user_attrs for point in front]
    seconds = [each["eval_seconds"] / each[records.PIPELINE]["epochs"] for each in attributes]
    return [
        "Accuracies are those of each image and its mirror image together (test_time_flip): "
        f"one evaluation takes {median(seconds):.2g} s in the median of the front; it is not in the seconds."
    ]


def _point(trial: FrozenTrial) -> dict[str, object]:
    return {
        "trial": trial.number,
        "train_seconds": trial.values[0],
        "val_accuracy": trial.values[1],
        "params": trial.params,
        "pipeline": trial.user_attrs[records.PIPELINE],
        "noisy": trial.user_attrs.get(records.NOISY),
    }


def _row(trial: FrozenTrial, baseline: FrozenTrial | None) -> list[str]:
    seconds, accuracy = trial.values
    mark = MARK if trial.user_attrs.get(records.NOISY) else ""
    against = ["", "", ""]
    if baseline is not None:
        is_claim = not (mark or baseline.user_attrs.get(records.NOISY))
        kept = trial.user_attrs["inference_flops"] / baseline.user_attrs["inference_flops"]
        against = [
            f"{baseline.values[0] / seconds:.2f}x" if is_claim else "",
            f"{100 * (accuracy - baseline.values[1]):+.2f}",
            f"{kept:.0%}",
        ]
    return [str(trial.number), f"{mark}{seconds:.2f}", f"{accuracy:.2%}", *against, records.in_words(trial)]
