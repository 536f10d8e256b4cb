"""One trial: train, record, stop. Start reading here."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Protocol, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from objectives.errors import DataError, DeviceError, DeviceLost
from objectives.pipeline import Pipeline, Report
from search.database import storage
from search.errors import StorageError, Untold, told_as_no_room
from search.pareto.curves import Point
from search.pareto.rules import STOPPING
from search.proposals.samplers import learns_from_pruned
from search.study import records, recovery
from search.study.disturbance import Watch
from search.study.recovery import MAX_RETRIES
from search.study.results import Result
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views.ablation import without
from search.workers.seam import Halted, Objective, TrialFault, WorkerLost

VIOLATED = 1e-3  # constraint of a stopped trial above the floor, for samplers that must be told a value
DEVICE_FAULTS = "device_faults"  # user attribute: how often the device was lost under the trial


class Watcher(Protocol):
    """Whoever is shown a trial while it runs."""

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None: ...
    def epoch_finished(self, number: int, report: Report, accuracy: float) -> None: ...
    def trial_finished(self, number: int, reason: str, message: str) -> None: ...
    def say(self, line: str) -> None: ...


class OutOfTime(Exception):
    """The invocation's time is up; the trial in flight is back in the queue."""


def run(study: Study, trial: optuna.Trial, objective: Objective, watcher: Watcher, deadline: float) -> tuple[int, str]:
    """Runs a trial that was asked for to its end and returns its number and why it ended.

    `deadline` is a time of `time.monotonic()`. Interrupted in any way, the trial goes back to the queue.

    Raises:
        OutOfTime: the deadline passed.
        Halted: the objective was told to stop.
        DeviceLost: the device failed.
        StorageError: the network cannot be exported, or the result cannot be told.
    """
    disturbed = None
    try:
        pipeline, before = study.pipeline(trial), study.snapshot()
        assert not (pipeline.is_emulated and study.spec.what.is_timed), "emulated formats have no seconds"
        attributes = storage.patiently(lambda: trial.user_attrs)
        for line in _announced(before, trial.number, attributes):
            watcher.say(line)
        watcher.trial_started(trial.number, attributes.get(records.ANCHOR), pipeline)
        try:
            reports, reason = _train(study, before, trial, pipeline, objective, watcher, deadline)
            message = _outcome(study, reports[-1])
            if reason is not None:
                study.tell(_stopped(study, before, trial, reports, reason))
            else:
                disturbed = _finish(study, before, trial, reports, objective)
        except TrialFault as fault:
            reason, message = fault.reason, str(fault)
            _fail(study, trial, fault)
        except WorkerLost as gone:
            message = f"its worker was lost: {gone}"
            reason = recovery.lose(study, trial.number, message)
        except DeviceLost as lost:
            if not _out_of_patience(trial):
                raise
            reason, message = "crash", f"the device failed under each of {MAX_RETRIES + 1} tries: {lost}"
            _fail(study, trial, TrialFault("crash", message))
    except Untold:
        raise  # it has a result: the trial stays as it is until that is told
    except (KeyboardInterrupt, OutOfTime, Halted, DataError, DeviceError, DeviceLost, StorageError):
        study.requeue(trial)
        raise
    watcher.trial_finished(trial.number, reason or "complete", message)
    if disturbed is not None and records.REPEAT_OF in attributes:
        watcher.say(f"  it was disturbed again ({disturbed}): there is no quiet to be had, nothing more is timed again")
    return trial.number, reason or "complete"


def _announced(before: Snapshot, number: int, attributes: Mapping[str, Any]) -> Iterator[str]:
    """What is said before a repeat, a confirmation or an ablation begins."""
    if records.REPEAT_OF in attributes:
        yield _why_again(before, number, attributes[records.REPEAT_OF])
    if records.CONFIRM_OF in attributes:
        point = attributes[records.CONFIRM_OF]
        yield f"trial {point} is confirmed: it is trained with fresh seeds as trial {number}, not counted"
    if records.ABLATION in attributes:
        yield without.announced(attributes[records.ABLATION], number)


def _outcome(study: Study, last: Report) -> str:
    """What a training came to, in words."""
    reached, seconds = accuracy_of(study, last), records.in_seconds(last.train_seconds, last.wall_seconds)
    cost = "" if study.spec.what.is_timed else f" with {study.spec.what.said(study.spec.what.cost(last))}"
    return f"{reached:.2%}{cost} after {seconds}"


def accuracy_of(study: Study, report: Report) -> float:
    """The accuracy that the study maximises."""
    return report.accuracy if study.spec.metric == "plain" else report.balanced_accuracy


def _train(
    study: Study,
    before: Snapshot,
    trial: optuna.Trial,
    pipeline: Pipeline,
    objective: Objective,
    watcher: Watcher,
    deadline: float,
) -> tuple[list[Report], str | None]:
    """The reports of the training, and why it was stopped, or None when it ran to its end.

    It is judged by what was finished before it began.
    """
    is_searched = records.is_searched(before.trials[trial.number])  # of others the end is what they are run for
    stopping = STOPPING[study.spec.search.stopping if is_searched else "none"]
    watched = study.spec.search.stopping == "none" and is_searched and study.spec.what.is_timed
    shadow = STOPPING["front"] if watched else None
    reports: list[Report] = []
    points: list[Point] = []
    with closing(objective.reports(pipeline, study.seeds(trial))) as running:
        for report in running:
            reports.append(report)
            watcher.epoch_finished(trial.number, report, accuracy_of(study, report))
            if report.diverged or not _is_plausible(study, report):
                return reports, "diverged"
            points.append(
                Point(report.epoch, report.epochs, report.train_seconds, accuracy_of(study, report), report.settled)
            )
            reason = stopping.decide(tuple(points), before)
            if reason is not None:
                return reports, reason
            if shadow is not None and (verdict := shadow.decide(tuple(points), before)) is not None:
                seen = {"epoch": report.epoch, "reason": verdict}
                storage.patiently(partial(trial.set_user_attr, records.WOULD_STOP, seen))
                shadow = None
            if time.monotonic() > deadline and report.epoch < report.epochs:
                raise OutOfTime
    return reports, None


def _why_again(now: Snapshot, number: int, first: int) -> str:
    """Why a trial times another one again, in words."""
    why = now.trials[first].user_attrs.get(records.NOISY)
    return f"trial {first} was disturbed ({why}): it is timed again as trial {number}, not counted"


def _finish(
    study: Study, before: Snapshot, trial: optuna.Trial, reports: list[Report], objective: Objective
) -> str | None:
    """Tells the result of a training that ran to its end; its network is exported when it enters the front.

    Returns what disturbed the training, if anything did.
    """
    last = reports[-1]
    accuracy, observed = accuracy_of(study, last), Watch.of(before).observed(last, objective.reference)
    disturbed = cast("str | None", observed.get(records.NOISY))
    explained = records.explanation(reports, [accuracy_of(study, report) for report in reports]) | observed
    if records.is_ablation(before.trials[trial.number]):  # no point of any front, and nothing that samplers may learn
        study.tell(Result(trial.number, "PRUNED", attributes=explained | {records.REASON: records.ABLATION}))
        return disturbed
    result = Result(
        trial.number,
        "COMPLETE",
        (study.spec.what.cost(last), accuracy),
        explained,
        violation=study.floor - accuracy,
    )
    try:
        storage.patiently(lambda: _settle(study, result, objective))
    except storage.FAILURES as error:  # whether it is on the front is seen when it is told; `collect` follows
        _export(study, result, objective)
        raise study.put_aside(result, error) from error
    return disturbed


def _settle(study: Study, result: Result, objective: Objective) -> None:
    """Tells a finished result, with its network if it is on the front; networks that it dominates are removed."""
    with study.exclusive():  # the front must not change between the export and the result
        before = study.snapshot()
        if result.trial in before.with_trial(_as_told(before.trials[result.trial], result)).kept:
            _export(study, result, objective)
        study.tell(result)
        now = study.snapshot()
        for left in {point.trial for point in before.outcomes} - now.kept:
            study.networks.remove(left)


def _as_told(trial: FrozenTrial, result: Result) -> FrozenTrial:
    """The trial as it will be in the database."""
    told = copy.copy(trial)
    told.state, told.values = TrialState[result.state], result.values
    told.user_attrs = {**trial.user_attrs, **result.attributes}
    return told


def _export(study: Study, result: Result, objective: Objective) -> None:
    assert result.values is not None
    about = {"study": study.name, "trial": result.trial, "val_accuracy": result.values[1], "metric": study.spec.metric}
    with told_as_no_room():
        objective.export(study.networks.of(result.trial), about)


def _stopped(study: Study, before: Snapshot, trial: optuna.Trial, reports: list[Report], reason: str) -> Result:
    """The result of a training that was stopped early."""
    last, accuracies = reports[-1], [accuracy_of(study, report) for report in reports]
    attributes = records.explanation(reports, accuracies) | {records.REASON: reason}
    is_told = records.is_ablation(before.trials[trial.number]) or learns_from_pruned(study.spec.search.sampler)
    if is_told or not _is_plausible(study, last):
        return Result(trial.number, "PRUNED", attributes=attributes)
    violation = max(study.floor - accuracies[-1], VIOLATED)
    return Result(trial.number, "COMPLETE", (study.spec.what.cost(last), accuracies[-1]), attributes, violation)


def _fail(study: Study, trial: optuna.Trial, fault: TrialFault) -> None:
    """Tells a training that ended by a fault. A crash is tried once more: it may have been the machine's."""
    attributes: dict[str, object] = {records.REASON: fault.reason, records.MESSAGE: str(fault)[:500]}
    if fault.peak_memory is not None:
        attributes["peak_memory_bytes"] = fault.peak_memory
    result = Result(trial.number, "FAIL", attributes=attributes)
    if fault.reason != "crash":
        study.tell(result)
        return

    def tell_and_retry() -> None:
        with study.exclusive():  # killed in between, the trial would not be tried again
            study.tell(result)
            trials = study.trials()
            before = trial.user_attrs.get(records.RETRY_OF)
            if before is None or records.is_free(trials[before]):  # that one was lost, by nobody's fault
                recovery.retry(study, trials[trial.number])

    storage.patiently(tell_and_retry)


def _out_of_patience(trial: optuna.Trial) -> bool:
    """Counts that the device was lost under the trial once more; whether that was once too often."""
    n_faults = storage.patiently(lambda: trial.user_attrs).get(DEVICE_FAULTS, 0) + 1
    storage.patiently(lambda: trial.set_user_attr(DEVICE_FAULTS, n_faults))
    return bool(n_faults > MAX_RETRIES)


def _is_plausible(study: Study, report: Report) -> bool:
    accuracies = (report.accuracy, report.balanced_accuracy)  # either may be the one that counts
    cost, seconds = study.spec.what.cost(report), report.train_seconds
    is_measured = 0 < cost < math.inf and 0 <= seconds < math.inf  # a network that is to be reduced took none yet
    return is_measured and all(0 <= accuracy <= 1 for accuracy in accuracies)
