"""What a trial leaves in the database, read back: attributes, outcomes, curves, counts. Pure functions over trials."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import attrgetter

from optuna.trial import FrozenTrial, TrialState

from objectives.networks.architecture import described, widths_in
from objectives.pipeline import Pipeline, Report
from search.pareto.curves import Curve, Point
from search.pareto.front import Outcome, front

# User attributes of a trial. Short, flat, JSON; units in the name where there are any.
MODELLED = "modelled_seconds"  # after each epoch, where a study minimises them
PIPELINE, WORDS, CURVE, REASON = "pipeline", "pipeline_words", "curve", "stop_reason"
ANCHOR, RETRY_OF, SEED_TRIAL, OWNER, MESSAGE = "anchor", "retry_of", "seed_trial", "owner", "message"
EPOCHS = "epochs"  # of the run, as far as was known when it ended: strategies may change what the settings ask for
EVENTS = "events"  # what strategies did between epochs, in words; not where there is a timeline, which says it too
TIMELINE = "timeline"  # of a network that changed its size: see `timeline_json`
QUESTION = "question"  # that it was proposed for
WOULD_STOP = "would_stop"  # with stopping switched off: when and why the trial would have been stopped
REPEAT_OF = "repeat_of"  # number of the trial that is timed again, because it was disturbed
CONFIRM_OF = "confirm_of"  # number of the trial whose pipeline is trained with fresh seeds
ABLATION = "ablation"  # what it is of an ablation: see search.ablation.course; also why it ended, at its end
FILL = "fill"  # that it is what the time that was left had room for
NOISY = "noisy"  # what disturbed a finished training, in words
UNDISTURBED = "undisturbed_seconds"  # estimate: what it would have taken otherwise
WALL_SECONDS = "wall_seconds"  # of what was charged, by the clock on the wall
REFERENCE_RATIO = "reference_ratio"  # seconds of the reference workload after the training, over the study's own
RIGHT = "right"  # validation images of each class that the network told rightly; not where there are too many classes
BOUNDARY_SECONDS = "boundary_seconds"  # within the seconds: what strategies did between epochs

# User attributes of a study.
IDENTITY, FORMATS, FLOOR = "identity", "number_formats", "floor"
BOX = "box"  # what counts in the hypervolume: see pareto.front.Box
FLIPS = "flips"  # what mirror images were to a network that saw none: see search.workers.seam
ABOUT = "about_data"  # what a run says of its images: see study.opening
BASE = "base"  # the network that is made smaller: what is known of it
START = "start"  # the trained network that pipelines may begin from: see objectives.starts.origin.Origin
REFIT = "refit"  # the network that was trained on all images: see search.planning.promise
TEST = "test_"  # and the number of a confirmation: what its network is worth on the test split; {} without one
CALIBRATION = "calibration"  # of what disturbs a training on this device: see study.disturbance
MUCH = 0.1  # share by which wall seconds differ from the device's before they are shown
MIXED = "mixed"  # what an identity says in place of a device model, where several are mixed on purpose
CLUSTER = "of a cluster"  # ... and in place of workers per host: the cluster decides how many share one

MANY_CLASSES = 1000  # of more, no trial tells each one's
# Epochs that a run should have before it gets wider, and beyond which more of them gain little. By single runs, whose
# noise is 3 points: of those of 45 s on 4,000 CIFAR images 12 to 30 epochs came to 69.6 to 71.0 %, of 92 to 105 s 24
# epochs on all pixels to 74.0, 24 of a wider network to 73.0, 60 to 71.2 (benchmarks/ten_minutes.md).
ENOUGH = 20
# ... without crops, and how many with crops are worth one of those. Of 5,000 images of Fashion-MNIST and CIFAR-10, two
# seeds (benchmarks/ten_minutes.md, with intervals), 16 epochs without crops gained 0.0 and 1.2 points over 8, 12 with
# crops -0.1 and 1.9, 20 with crops 0.6 and 4.9.
ENOUGH_UNCROPPED = 8
CROPPED_PER_UNCROPPED = 1.5

EARLY = ("dominated", "below_floor", "unpromising")  # what rules of early stopping decide
OWN_FAULTS = ("out_of_memory", "hang", "crash")  # FAIL, counted
LOST = "worker_lost"  # FAIL, not counted


@dataclass(frozen=True)
class Counts:
    """How many trials ended how."""

    complete: int
    pruned: int
    failed: int
    waiting: int
    running: int
    by_reason: dict[str, int]
    repeats: int  # among the complete: trials that were timed again
    confirmations: int  # among the complete: trials with fresh seeds
    ablations: int = 0  # among none of those that ended: trials of pipelines that are taken apart


def curve_json(reports: Sequence[Report], accuracies: Sequence[float]) -> list[list[float | None]]:
    """A learning curve as one short attribute: [epoch, train_seconds, val_accuracy, loss] per epoch."""
    return [
        [r.epoch, round(r.train_seconds, 4), round(accuracy, 5), round(r.loss, 5) if math.isfinite(r.loss) else None]
        for r, accuracy in zip(reports, accuracies, strict=True)
    ]


def explanation(reports: Sequence[Report], accuracies: Sequence[float]) -> dict[str, object]:
    """What explains the result of a training: the user attributes of its trial."""
    last = reports[-1]
    attributes: dict[str, object] = {
        CURVE: curve_json(reports, accuracies),
        EPOCHS: last.epochs,
        "accuracy": last.accuracy,
        "balanced_accuracy": last.balanced_accuracy,
        "train_flops": last.train_flops,
        "inference_flops": last.inference_flops,
        "full_flops": last.full_flops,
        "n_parameters": last.n_parameters,
        "peak_memory_bytes": last.peak_memory,
        "eval_peak_memory_bytes": last.eval_peak_memory,
        WALL_SECONDS: round(last.wall_seconds, 4),
        "eval_seconds": round(last.eval_seconds, 4),
        BOUNDARY_SECONDS: round(last.boundary_seconds, 4),
    }
    if last.modelled_seconds:
        attributes[MODELLED] = [float(f"{report.modelled_seconds:.6g}") for report in reports]
    if 0 < len(last.right) <= MANY_CLASSES:
        attributes[RIGHT] = list(last.right)
    if rows := timeline_json(reports, accuracies):
        attributes[TIMELINE] = rows
    elif happened := events(reports):
        attributes[EVENTS] = happened
    if last.skipped_steps:
        attributes["skipped_steps"] = last.skipped_steps
    return attributes


def in_seconds(train_seconds: float, wall_seconds: float | None) -> str:
    """How long a training took, in words: also by the clock on the wall where that is another time."""
    said = f"{train_seconds:.2f} s"
    if wall_seconds is None or abs(wall_seconds - train_seconds) <= MUCH * train_seconds:
        return said
    return f"{said} ({wall_seconds:.2f} s on the wall)"


def events(reports: Sequence[Report]) -> list[str]:
    """What strategies did between epochs, with the epoch and the seconds that the whole boundary cost."""
    told = zip(reports, _boundaries(reports), strict=True)
    return [f"epoch {report.epoch}: {_with_cost(report.events, cost)}" for report, cost in told if report.events]


def timeline_json(reports: Sequence[Report], accuracies: Sequence[float]) -> list[list[object]]:
    """How a network came to its size: the epochs after which it changed or something was decided, the first, the last.

    A row is [epoch, train_seconds, val_accuracy, architecture, inference_flops, boundary_seconds, decision, ...].
    Empty where the size stayed as it was.
    """
    names = [report.architecture for report in reports]
    if len(set(names)) == 1:
        return []
    rows: list[list[object]] = []
    for i, (report, accuracy, cost) in enumerate(zip(reports, accuracies, _boundaries(reports), strict=True)):
        if i in (0, len(reports) - 1) or report.events or names[i] != names[i + 1]:
            reached = (report.epoch, round(report.train_seconds, 4), round(accuracy, 5))
            rows.append([*reached, names[i], report.inference_flops, round(cost, 4), *report.events])
    return rows


def _boundaries(reports: Sequence[Report]) -> list[float]:
    """Seconds of the boundary that ended each epoch."""
    until = [0.0, *(report.boundary_seconds for report in reports)]
    return [after - before for before, after in pairwise(until)]


def _with_cost(decisions: Sequence[str], boundary_seconds: float) -> str:
    return f"{'; '.join(decisions)} ({boundary_seconds:.3f} s)"


@dataclass(frozen=True)
class Moment:
    """An epoch of a timeline: the network that it trained, and what was decided at the boundary that ended it."""

    epoch: int
    train_seconds: float  # of the device, charged so far, the boundary included
    val_accuracy: float  # of that network: the one that the study maximises
    architecture: str  # that network, as `Architecture.describe` puts it
    inference_flops: float  # of that network, per image
    boundary_seconds: float  # of this boundary
    decisions: tuple[str, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, or of each layer of a plain network."""
        return widths_in(self.architecture)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage whose branch is there."""
        return tuple(sum(interior > 0 for interior in stage.interiors) for stage in described(self.architecture))

    @property
    def words(self) -> str:
        """What was decided, with the seconds that the whole boundary cost; empty where nothing was."""
        return _with_cost(self.decisions, self.boundary_seconds) if self.decisions else ""


def timeline(trial: FrozenTrial) -> list[Moment]:
    """How the network of a trial came to its size; empty where that stayed, and for trials of earlier versions."""
    return [
        Moment(epoch, seconds, accuracy, architecture, work, cost, tuple(decisions))
        for epoch, seconds, accuracy, architecture, work, cost, *decisions in trial.user_attrs.get(TIMELINE, ())
    ]


def curve(trial: FrozenTrial) -> Curve:
    """The learning curve of a trial; empty before its first epoch. A finished run is as long as it was in the end."""
    points = trial.user_attrs.get(CURVE, ())
    if not points:
        return ()
    last = points[-1][0]
    epochs = last if is_finished_run(trial) else max(last, n_epochs(trial))
    return tuple(Point(epoch, epochs, seconds, accuracy) for epoch, seconds, accuracy, _ in points)


def n_epochs(trial: FrozenTrial) -> int:
    """The epochs of a trial's run; earlier versions tell those that its settings ask for."""
    return int(trial.user_attrs.get(EPOCHS, trial.user_attrs[PIPELINE]["epochs"]))


def reason(trial: FrozenTrial) -> str:
    """Why a trial ended as it did; `complete` for one that ran to its end."""
    default = "complete" if trial.state == TrialState.COMPLETE else "unknown"
    return str(trial.user_attrs.get(REASON) or default)


def pipeline(trial: FrozenTrial) -> Pipeline:
    """The pipeline that a trial trained.

    Raises:
        ValueError: it was written by another version.
    """
    return Pipeline.from_json(trial.user_attrs[PIPELINE])


def apart_from_length(pipeline: Pipeline) -> tuple[Pipeline, float]:
    """(what a pipeline trains with but for augmentation, decades of its epochs up to enough of them)."""
    rest = replace(pipeline, epochs=1, crop=False, flip=False, alternating_flip=False, cutout=0.0)
    return rest, learning_decades(pipeline.epochs, crop=pipeline.crop)


def learning_decades(epochs: int, *, crop: bool) -> float:
    """Decades of epochs up to enough of them, those with crops counted in epochs without."""
    return (
        math.log10(min(epochs, ENOUGH) / CROPPED_PER_UNCROPPED) if crop else math.log10(min(epochs, ENOUGH_UNCROPPED))
    )


def in_words(trial: FrozenTrial) -> str:
    """A trial's pipeline in words, with its name where it is an anchor, what pruning left, and what had no effect."""
    attributes = trial.user_attrs
    happened = " ".join([*attributes.get(EVENTS, ()), *(moment.words for moment in timeline(trial))])
    notes = [f"{name} does nothing" for name in re.findall(r"(\w+) does nothing in this run", happened)]
    if re.search(r"\bpruned \d", happened):
        notes.append(f"kept {attributes['inference_flops'] / attributes['full_flops']:.0%} of FLOPs")
    if "PruneTrain removed nothing" in happened:
        notes.append("PruneTrain removed nothing")
    name = f"{attributes[ANCHOR]}: " if ANCHOR in attributes else ""
    return f"{name}{attributes[WORDS]}" + (f" ({'; '.join(notes)})" if notes else "")


def begins_trained(trial: FrozenTrial) -> bool:
    """Whether the training of a trial began from a trained network."""
    return any(each.get("strategy") == "Transfer" for each in trial.user_attrs.get(PIPELINE, {}).get("strategies", ()))


def is_finished_run(trial: FrozenTrial) -> bool:
    """Whether the trial trained to its end; a stopped one may be COMPLETE too, for samplers that do not see PRUNED."""
    return trial.state == TrialState.COMPLETE and trial.user_attrs.get(REASON) is None


def is_repeat(trial: FrozenTrial) -> bool:
    """Whether the trial times another one again."""
    return REPEAT_OF in trial.user_attrs


def is_confirmation(trial: FrozenTrial) -> bool:
    """Whether the trial trains another one's pipeline with fresh seeds."""
    return CONFIRM_OF in trial.user_attrs


def is_ablation(trial: FrozenTrial) -> bool:
    """Whether the trial trains another one's pipeline, or that without one of its ingredients, to compare the two."""
    return ABLATION in trial.user_attrs


def is_ended_ablation(trial: FrozenTrial) -> bool:
    """Whether it is such a trial and trained to its end. To Optuna it is PRUNED: no point of any front."""
    return is_ablation(trial) and trial.state == TrialState.PRUNED and reason(trial) == ABLATION


def only_says_more(trial: FrozenTrial) -> bool:
    """Whether the trial says more of another one, and its seconds are none of the search."""
    return is_confirmation(trial) or is_ablation(trial)


def is_searched(trial: FrozenTrial) -> bool:
    """Whether the trial is one of the search: counted, and proposed for what it is."""
    return not is_repeat(trial) and not only_says_more(trial)


def is_proposed(trial: FrozenTrial) -> bool:
    """Whether the search chose it: no anchor, nor a run that times or confirms another one."""
    return is_searched(trial) and ANCHOR not in trial.user_attrs


def is_stopped(trial: FrozenTrial) -> bool:
    """Whether a rule of early stopping ended the trial; a diverged one ended by itself."""
    return reason(trial) in EARLY


def is_free(trial: FrozenTrial) -> bool:
    """Whether it was lost, so that its retry is the one that counts."""
    return trial.state == TrialState.FAIL and reason(trial) == LOST


def seconds(trial: FrozenTrial) -> float:
    """Seconds that a trial trained, as far as they are known."""
    points = trial.user_attrs.get(CURVE)
    found = points[-1][1] if points else trial.values[0] if trial.values else 0.0
    return float(found) if math.isfinite(found) else 0.0


def first(trial: FrozenTrial) -> int:
    """Number of the trial that this one times again; its own where it is none."""
    return int(trial.user_attrs.get(REPEAT_OF, trial.number))


def points(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The finished runs; of a trial and its repeats the first quiet one, or the fastest where all were disturbed.

    Confirmations are none: they say what a point is worth, not what is one.
    """
    groups: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if is_finished_run(trial) and not is_confirmation(trial):
            groups.setdefault(first(trial), []).append(trial)
    chosen = (group[0] if len(group) == 1 else min(group, key=_rank) for group in groups.values())
    return sorted(chosen, key=attrgetter("number"))


def _rank(trial: FrozenTrial) -> tuple[bool, float, int]:
    """The least is the point of its group."""
    noisy = bool(trial.user_attrs.get(NOISY))
    return noisy, trial.values[0] if noisy else 0.0, trial.number


def outcomes(points: Sequence[FrozenTrial], floor: float) -> list[Outcome]:
    """Of finished runs that count those at or above the accuracy floor: the candidates for the front."""
    outcomes = [Outcome(trial.number, trial.values[0], trial.values[1]) for trial in points]
    return [outcome for outcome in outcomes if outcome.accuracy >= floor]


def pareto_front(trials: Sequence[FrozenTrial], floor: float) -> tuple[Outcome, ...]:
    """The Pareto front of a study's trials."""
    return front(outcomes(points(trials), floor))


def baseline(trials: Sequence[FrozenTrial], name: str) -> FrozenTrial | None:
    """The finished run of the anchor called `name`, or None."""
    runs = (trial for trial in points(trials) if trial.user_attrs.get(ANCHOR) == name)
    return next(runs, None)


def n_counted(trials: Sequence[FrozenTrial]) -> int:
    """Trials that count towards a study's total: finished, stopped, or failed by their own cause; once each."""
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    counted = 0
    for trial in trials:
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        failed = trial.state == TrialState.FAIL and reason(trial) in OWN_FAULTS and trial.number not in retried
        counted += (ended or failed) and is_searched(trial)
    return counted


def counts(trials: Sequence[FrozenTrial]) -> Counts:
    """How the trials ended."""
    told = [trial for trial in trials if not (is_ablation(trial) and trial.state.is_finished())]
    states = Counter(trial.state for trial in told)
    reasons = Counter(reason(trial) for trial in told if trial.state.is_finished())
    return Counts(
        states[TrialState.COMPLETE],
        states[TrialState.PRUNED],
        states[TrialState.FAIL],
        states[TrialState.WAITING],
        states[TrialState.RUNNING],
        dict(sorted(reasons.items())),
        sum(is_repeat(trial) for trial in trials if is_finished_run(trial)),
        sum(is_confirmation(trial) for trial in trials if is_finished_run(trial)),
        len(trials) - len(told),
    )


def same_json(one: object, other: object) -> bool:
    """Whether two values are the same once written as JSON."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
