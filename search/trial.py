"""One trial: sample, train, record, stop. Start reading here."""

from __future__ import annotations

import math
import shutil
import time
from contextlib import closing
from typing import Protocol

import optuna
from optuna.trial import TrialState

from objectives.errors import DataError, DeviceError
from objectives.pipeline import Pipeline, Report
from search import records
from search.errors import StorageError
from search.front import Outcome, front
from search.pruner import STOPPING, Point
from search.study import Study, learns_from_pruned
from search.worker import Objective, TrialFault

VIOLATED = 1e-3  # constraint of a stopped trial above the floor, for samplers that must be told a value


class Watcher(Protocol):
    """Whoever is shown a trial while it runs."""

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None: ...
    def epoch_finished(self, report: Report, accuracy: float) -> None: ...
    def trial_finished(self, number: int, reason: str, message: str) -> None: ...


class OutOfTime(Exception):
    """The invocation's time is up; the trial in flight is back in the queue."""


def run(study: Study, objective: Objective, watcher: Watcher, deadline: float) -> tuple[int, str]:
    """Runs the next trial of the study to its end and returns its number and why it ended.

    `deadline` is a time of `time.monotonic()`. Interrupted in any way, the trial goes back to the queue.

    Raises:
        OutOfTime: the deadline passed.
        StorageError: the network cannot be exported.
    """
    trial = study.ask()
    try:
        pipeline = study.pipeline(trial)
        trial.set_user_attr(records.PIPELINE, pipeline.to_json())
        trial.set_user_attr(records.WORDS, pipeline.describe())
        watcher.trial_started(trial.number, trial.user_attrs.get(records.ANCHOR), pipeline)
        try:
            reports, reason = _train(study, trial, pipeline, objective, watcher, deadline)
            message = _record(study, trial, reports, reason)
            if reason is None:
                _finish(study, trial, reports[-1], objective)
            else:
                _stop(study, trial, reports[-1], reason)
        except TrialFault as fault:
            reason, message = fault.reason, str(fault)
            _fail(study, trial, fault)
    except (KeyboardInterrupt, OutOfTime, DataError, DeviceError, StorageError):
        study.requeue(trial)
        raise
    watcher.trial_finished(trial.number, reason or "complete", message)
    return trial.number, reason or "complete"


def accuracy_of(study: Study, report: Report) -> float:
    """The accuracy that the study maximises."""
    return report.accuracy if study.spec.metric == "plain" else report.balanced_accuracy


def _train(
    study: Study, trial: optuna.Trial, pipeline: Pipeline, objective: Objective, watcher: Watcher, deadline: float
) -> tuple[list[Report], str | None]:
    """The reports of the training, and why it was stopped, or None when it ran to its end."""
    trials = study.trials()
    finished = [records.curve(t) for t in trials if records.is_finished_run(t)]
    archive = records.pareto_front(trials, study.floor)
    stopping = STOPPING[study.spec.search.stopping]
    shadow = STOPPING["front"] if study.spec.search.stopping == "none" else None
    reports: list[Report] = []
    points: list[Point] = []
    with closing(objective.reports(pipeline, study.seeds(trial))) as running:
        for report in running:
            reports.append(report)
            watcher.epoch_finished(report, accuracy_of(study, report))
            if report.diverged or not _is_plausible(report):
                return reports, "diverged"
            points.append(
                Point(report.epoch, report.epochs, report.train_seconds, accuracy_of(study, report), report.settled)
            )
            reason = stopping.decide(tuple(points), finished, archive, study.floor)
            if reason is not None:
                return reports, reason
            if shadow is not None and (verdict := shadow.decide(tuple(points), finished, archive, study.floor)):
                trial.set_user_attr(records.WOULD_STOP, {"epoch": report.epoch, "reason": verdict})
                shadow = None
            if time.monotonic() > deadline and report.epoch < report.epochs:
                raise OutOfTime
    return reports, None


def _record(study: Study, trial: optuna.Trial, reports: list[Report], reason: str | None) -> str:
    """Writes what explains the result; the same in words."""
    last = reports[-1]
    attributes: dict[str, object] = {
        records.CURVE: records.curve_json(reports, [accuracy_of(study, r) for r in reports]),
        "accuracy": last.accuracy,
        "balanced_accuracy": last.balanced_accuracy,
        "train_flops": last.train_flops,
        "inference_flops": last.inference_flops,
        "full_flops": last.full_flops,
        "n_parameters": last.n_parameters,
        "peak_memory_bytes": last.peak_memory,
        "process_seconds": round(last.process_seconds, 4),
        "eval_seconds": round(last.eval_seconds, 4),
    }
    if events := records.events(reports):
        attributes["events"] = events
    if last.skipped_steps:
        attributes["skipped_steps"] = last.skipped_steps
    if reason is not None:
        attributes[records.REASON] = reason
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    return f"{accuracy_of(study, last):.2%} after {last.train_seconds:.2f} s"


def _finish(study: Study, trial: optuna.Trial, last: Report, objective: Objective) -> None:
    """Tells the result of a training that ran to its end; its network is exported when it enters the front."""
    accuracy = accuracy_of(study, last)
    _constrain(study, trial, study.floor - accuracy)
    before = records.outcomes(study.trials(), study.floor)
    point = Outcome(trial.number, last.train_seconds, accuracy)
    after = front([*before, point]) if accuracy >= study.floor else front(before)
    if point in after:
        about = {"study": study.name, "trial": trial.number, "val_accuracy": accuracy, "metric": study.spec.metric}
        try:
            objective.export(study.artifact(trial.number), about)
        except TrialFault as fault:  # the training is sound: it must not be told as a crash
            raise StorageError(f"trial {trial.number} cannot be exported to {study.artifacts}: {fault}") from fault
    study.optuna.tell(trial, [last.train_seconds, accuracy], skip_if_finished=True)
    for left in {p.trial for p in before} - {p.trial for p in after}:
        shutil.rmtree(study.artifact(left), ignore_errors=True)


def _stop(study: Study, trial: optuna.Trial, last: Report, reason: str) -> None:
    """Tells a training that was stopped early."""
    if learns_from_pruned(study.spec) or not _is_plausible(last):
        study.optuna.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        return
    accuracy = accuracy_of(study, last)
    _constrain(study, trial, max(study.floor - accuracy, VIOLATED))
    study.optuna.tell(trial, [last.train_seconds, accuracy], skip_if_finished=True)


def _fail(study: Study, trial: optuna.Trial, fault: TrialFault) -> None:
    """Tells a training that ended by a fault. A crash is tried once more: it may have been the machine's."""
    trial.set_user_attr(records.REASON, fault.reason)
    trial.set_user_attr(records.MESSAGE, str(fault)[:500])
    study.optuna.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
    if fault.reason == "crash" and records.RETRY_OF not in trial.user_attrs:
        study.retry(study.trials()[trial.number])


def _constrain(study: Study, trial: optuna.Trial, violation: float) -> None:
    """Marks a trial as feasible (at most 0) or not, in the one form that Optuna and its dashboard both read."""
    trial.storage.set_trial_system_attr(trial._trial_id, "constraints", [violation])


def _is_plausible(report: Report) -> bool:
    return math.isfinite(report.train_seconds) and report.train_seconds > 0 and 0 <= report.accuracy <= 1
