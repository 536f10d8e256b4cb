"""`Study`: an Optuna study with its spec, created or resumed, and never confused with another one."""

from __future__ import annotations

import os
import shutil
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from objectives.pipeline import Pipeline
from objectives.task import Seeds
from search import records
from search.errors import StorageError, UsageError
from search.front import Outcome, Reference, hypervolume, normalised_hypervolume
from search.spec import StudySpec
from spaces import SPACES
from spaces.base import BASELINE, Given, Trial
from spaces.restricted import check, sample, usable_anchors, walk

IDENTITY, FORMATS, REFERENCE, FLOOR = "identity", "number_formats", "reference", "floor"
MIN_FLOOR = 0.2  # accuracy
WORSE_THAN_BASELINE = 10  # times the seconds of the baseline: the reference of the hypervolume
MAX_RETRIES = 3  # of a trial whose worker was lost with the whole program


@dataclass(frozen=True)
class Study:
    """A study in a database, open for trials."""

    name: str
    spec: StudySpec
    optuna: optuna.Study
    given: Given
    floor: float  # accuracy below which a result counts for nothing
    artifacts: Path  # folder of this study's exported models

    @cached_property
    def _storage(self) -> RDBStorage:
        return self.optuna._storage  # type: ignore[return-value]

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.optuna.get_trials(deepcopy=False)

    def ask(self) -> OptunaTrial:
        """The next trial: one from the queue (anchors, what was interrupted), or a new one, signed by this process."""
        trial = self.optuna.ask()
        trial.set_user_attr(records.OWNER, _this_process())
        return trial

    def pipeline(self, trial: OptunaTrial) -> Pipeline:
        """The pipeline that the trial chooses."""
        anchor = trial.user_attrs.get(records.ANCHOR)
        return sample(SPACES[self.spec.space.name], cast("Trial", trial), self.given, self.spec.restrictions, anchor)

    def seeds(self, trial: OptunaTrial) -> Seeds:
        """The seeds of a trial; a retry has those of the trial that it repeats."""
        return Seeds.of(self.spec.search.seed, trial.user_attrs.get(records.SEED_TRIAL, trial.number))

    def front(self) -> tuple[Outcome, ...]:
        """The Pareto front so far, by rising seconds."""
        return records.pareto_front(self.trials(), self.floor)

    def baseline(self) -> FrozenTrial | None:
        """The finished run of BASELINE, or None."""
        return records.baseline(self.trials(), BASELINE)

    def reference(self) -> Reference | None:
        """The worst corner of the hypervolume: fixed when BASELINE has run, None before."""
        stored = self.optuna.user_attrs.get(REFERENCE)
        if stored is None and (run := self.baseline()) is not None:
            stored = [WORSE_THAN_BASELINE * run.values[0], self.floor]
            self.optuna.set_user_attr(REFERENCE, stored)
        return Reference(*stored) if stored is not None else None

    def hypervolume(self, outcomes: Sequence[Outcome] | None = None) -> tuple[float, float] | None:
        """(hypervolume, share of the whole box) of the front or of given outcomes; None before BASELINE has run.

        The box reaches from the reference down to the fastest anchor and up to an accuracy of 1.
        """
        reference = self.reference()
        anchors = [t.values[0] for t in self.trials() if records.is_finished_run(t) and records.ANCHOR in t.user_attrs]
        if reference is None or not anchors:
            return None
        points = self.front() if outcomes is None else outcomes
        return hypervolume(points, reference), normalised_hypervolume(points, reference, min(anchors))

    def n_left(self, n_trials: int) -> int:
        """Trials that are missing from a total of `n_trials`."""
        return max(0, n_trials - records.n_counted(self.trials()))

    def requeue(self, trial: OptunaTrial) -> None:
        """Puts a trial that was interrupted back into the queue, with its number and its parameters."""
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # told at the very moment of the interruption
            for name in (records.REASON, records.MESSAGE, records.WOULD_STOP):
                if name in trial.user_attrs:
                    self._storage.set_trial_user_attr(trial._trial_id, name, None)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def retry(self, trial: FrozenTrial) -> None:
        """Queues a failed trial once more, with the same parameters and seeds."""
        if any(other.user_attrs.get(records.RETRY_OF) == trial.number for other in self.trials()):
            return
        attributes = {
            records.RETRY_OF: trial.number,
            records.SEED_TRIAL: trial.user_attrs.get(records.SEED_TRIAL, trial.number),
        }
        if records.ANCHOR in trial.user_attrs:
            attributes[records.ANCHOR] = trial.user_attrs[records.ANCHOR]
        queued = trial.system_attrs.get("fixed_params", {})  # all of an anchor's, also those not yet asked for
        self.optuna.enqueue_trial({**queued, **trial.params}, user_attrs=attributes)

    def recover(self) -> list[int]:
        """Fails the trials whose process is gone and queues each again; their numbers.

        The new trial is queued before the old one is failed: killed in between, the next start finishes the job.
        """
        recovered = []
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and _is_dead(trial.user_attrs.get(records.OWNER)):
                if self._n_losses(trial) < MAX_RETRIES:
                    self.retry(trial)
                    reason = records.LOST
                else:
                    reason = "crash"  # it takes the program down each time
                self._storage.set_trial_user_attr(trial._trial_id, records.REASON, reason)
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                recovered.append(trial.number)
        return recovered

    def enqueue_anchors(self) -> None:
        """Queues every anchor that the study does not have yet."""
        have = {trial.user_attrs.get(records.ANCHOR) for trial in self.trials()}
        for name, parameters in usable_anchors(SPACES[self.spec.space.name], self.given, self.spec.restrictions):
            if name not in have:
                self.optuna.enqueue_trial(parameters, user_attrs={records.ANCHOR: name})

    def collect(self) -> None:
        """Removes exported models of trials that are not on the front, and what an interrupted export left."""
        kept = {self.artifact(point.trial).name for point in self.front()}
        for folder in [*self.artifacts.glob("trial-*"), *self.artifacts.glob(".trial-*.partial")]:
            if folder.name not in kept and folder.is_dir():
                shutil.rmtree(folder)

    def artifact(self, trial_number: int) -> Path:
        """The folder of a trial's exported model; it exists for trials on the front."""
        return self.artifacts / f"trial-{trial_number:05d}"

    def _n_losses(self, trial: FrozenTrial) -> int:
        """How often this trial was tried before."""
        numbers = {other.number: other for other in self.trials()}
        losses = 0
        while (before := trial.user_attrs.get(records.RETRY_OF)) is not None:
            trial, losses = numbers[before], losses + 1
        return losses


def find(name: str, storage: RDBStorage) -> optuna.Study | None:
    """The study of that name in the storage, or None. One whose creation was interrupted is removed."""
    try:
        found = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    if IDENTITY in found.user_attrs:
        return found
    ours = [direction.name for direction in found.directions] == ["MINIMIZE", "MAXIMIZE"]
    if not ours or found.get_trials(deepcopy=False):
        raise StorageError(f"study {name!r} in this storage was not made by frontrunner: choose another name with --as")
    optuna.delete_study(study_name=name, storage=storage)
    return None


def opened(name: str, spec: StudySpec, found: optuna.Study, artifacts: Path) -> Study:
    """A stored study, without a look at device and data: to read it.

    Raises:
        UsageError: the spec asks for another one: the difference and the way out.
    """
    stored = found.user_attrs[IDENTITY]
    usable = tuple(n for n, reason in found.user_attrs[FORMATS].items() if reason is None)
    given = spec.given(usable, stored["data"]["flip"])
    asked = {"name": spec.data.name, "n_train": spec.data.n_train or stored["data"]["n_train"]}
    _check_same(name, stored, identity(spec, given, stored | {"data": stored["data"] | asked}))
    return Study(name, spec, found, given, found.user_attrs[FLOOR], artifacts)


def resumed(name: str, spec: StudySpec, found: optuna.Study, facts: Mapping[str, Any], artifacts: Path) -> Study:
    """A stored study, open for more trials.

    Raises:
        UsageError: it was made of something else: the difference and the way out.
    """
    study = opened(name, spec, found, artifacts)
    now = identity(spec, study.given, facts)
    _check_same(name, found.user_attrs[IDENTITY], now)
    found.sampler = sampler(spec, len(study.trials()))
    return study


def created(
    name: str,
    spec: StudySpec,
    storage: RDBStorage,
    facts: Mapping[str, Any],
    number_formats: Mapping[str, str | None],
    artifacts: Path,
) -> Study:
    """A new study in the storage.

    Raises:
        StorageError: another process has just created it.
        UsageError: its restrictions cannot be followed on this device or with these data.
    """
    usable = tuple(format_name for format_name, reason in number_formats.items() if reason is None)
    given = spec.given(usable, facts["data"]["flip"])
    try:
        check(SPACES[spec.space.name], given, spec.restrictions)
    except ValueError as error:
        raise UsageError(f"study {name!r} on this device and data: {error}") from error
    floor = spec.search.floor
    if floor is None:
        floor = max(MIN_FLOOR, 2 / facts["data"]["n_classes"])
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, directions=["minimize", "maximize"], sampler=sampler(spec, 0)
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise StorageError(f"study {name!r} has just been created by another process: run the command again") from error
    with _experimental():
        study.set_metric_names(list(records.METRICS))
    study.set_user_attr(FORMATS, dict(number_formats))
    study.set_user_attr(FLOOR, floor)
    study.set_user_attr("spec", spec.model_dump(mode="json"))
    study.set_user_attr(IDENTITY, identity(spec, given, facts))  # last: a study without it was never finished
    return Study(name, spec, study, given, floor, artifacts)


def identity(spec: StudySpec, given: Given, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change within a study: seconds of two devices, accuracies of two data sets, share no front."""
    return {
        "kind": spec.kind,
        "space": walk(SPACES[spec.space.name], given, spec.restrictions) | {"name": [spec.space.name]},
        "fixed": dict(spec.space.fix),
        "excluded": {name: sorted(map(str, values)) for name, values in spec.restrictions.exclude.items()},
        "data": facts["data"],
        "family": spec.network.family,
        "stem_stride": spec.network.stem_stride,
        "metric": spec.metric,
        "test_time_flip": spec.test_time_flip,
        "seed": spec.search.seed,
        "device": facts["device"],
        "workers": 1,
        "timing_version": facts["timing_version"],
    }


def sampler(spec: StudySpec, n_trials: int) -> BaseSampler:
    """The sampler of a run that finds `n_trials` trials in the storage.

    The storage keeps no sampler state: its seed derives from the number of trials, or a resumed study would repeat the
    draws of the run before.
    """
    seed = int(np.random.SeedSequence((spec.search.seed, n_trials)).generate_state(1)[0])
    match spec.search.sampler:
        case "random":
            return RandomSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(population_size=16, seed=seed)
        case "tpe":
            with _experimental():
                return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def learns_from_pruned(spec: StudySpec) -> bool:
    """Whether the sampler sees PRUNED trials without values; others are told a value and a violated constraint."""
    return spec.search.sampler != "nsga2"


@contextmanager
def _experimental() -> Iterator[None]:
    """Silences Optuna's warnings about features of it that we use on purpose; constraints.txt pins their behaviour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _check_same(name: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if differences := _differences(stored, now):
        raise UsageError(
            f"study {name!r} does not match what was asked: {'; '.join(differences)}: "
            f"start a new study with --as NAME, or restore what it was"
        )


def _differences(stored: Any, now: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(stored, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*stored, *now}):
            found += _differences(stored.get(key), now.get(key), f"{where}.{key}" if where else str(key))
        return found
    if records.same_json(stored, now):
        return []
    return [f"{where} was {_short(stored)}, is {_short(now)}"]


def _short(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _this_process() -> dict[str, object]:
    """Who runs a trial: enough to tell later whether that process still lives."""
    return {"host": socket.gethostname(), "boot": _boot_id(), "pid": os.getpid(), "started": _start_time(os.getpid())}


def _is_dead(owner: Mapping[str, Any] | None) -> bool:
    """Whether the process that ran a trial is gone for certain. One on another host is not judged."""
    if owner is None:  # killed between asking for the trial and signing it; the study's lock says nobody else runs it
        return True
    if owner["host"] != socket.gethostname():
        return False
    return bool(owner["boot"] != _boot_id() or owner["started"] != _start_time(owner["pid"]))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started (field 22 of /proc/PID/stat); None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
