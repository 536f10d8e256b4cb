"""`Study`: an Optuna study with its spec, open for trials. `search.study.opening` creates and resumes it."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from objectives.pipeline import Pipeline
from objectives.task import Seeds
from search.database import storage
from search.database.storage import Database
from search.errors import Untold
from search.host.owner import Owner, this_process
from search.pareto.front import Outcome, Reference, hypervolume, normalised_hypervolume
from search.study import records, repeats, results
from search.study.results import Result
from search.study.spec import StudySpec
from spaces import SPACES
from spaces.base import BASELINE, Given, Trial
from spaces.ladders import LADDERS
from spaces.restricted import sample, usable_anchors

REFERENCE = "reference"
LATE = "late_result"  # study attribute, with the number of the trial: told after it had been given up
WORSE_THAN_BASELINE = 10  # times the seconds of the baseline: the reference of the hypervolume
MAX_RETRIES = 3  # of a trial whose worker was lost with the whole program, or whose device was lost
LEASE_SECONDS = 180  # without a heartbeat, a trial of another host is lost
_INHERITED = (records.SEED_TRIAL, records.ANCHOR, records.REPEAT_OF)  # by a trial that is queued once more

T = TypeVar("T")


@dataclass(frozen=True)
class Study:
    """A study in a database, open for trials."""

    name: str
    spec: StudySpec
    optuna: optuna.Study
    database: Database
    given: Given
    floor: float  # accuracy below which a result counts for nothing

    @property
    def artifacts(self) -> Path:
        """The folder of this study's exported models."""
        return storage.artifacts(self.database.url, self.name)

    @property
    def _storage(self) -> RDBStorage:
        return self.optuna._storage  # type: ignore[return-value]

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self._patiently(lambda: self.optuna.get_trials(deepcopy=False))

    def attributes(self) -> dict[str, Any]:
        """The user attributes of the study."""
        return self._patiently(lambda: self.optuna.user_attrs)

    def _patiently(self, action: Callable[[], T]) -> T:
        """What the action returns; while the database is away it is tried again.

        Not within `exclusive`: others may have come in between, so that who has taken the study tries the whole again.
        """
        return action() if self.database.has(self.name) else storage.patiently(action)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other threads and processes from asking and telling meanwhile."""
        with self.database.exclusive(self.name):
            yield

    def ask(self, waiting: FrozenTrial | None = None) -> OptunaTrial:
        """The next trial, signed by this process: one from the queue (anchors, what was interrupted), or a new one.

        `waiting`: this one from the queue, where repeats wait as well.
        """
        with self.exclusive():
            trials = self.trials()
            n_waiting = sum(trial.state == TrialState.WAITING for trial in trials)
            self.optuna.sampler = sampler(self.spec, len(trials), n_waiting)
            trial = self._begun(waiting or next(filter(_is_searched, trials), None))
            try:
                trial.set_user_attr(records.OWNER, this_process().to_json())
                pipeline = self.pipeline(trial)
                words = {records.PIPELINE: pipeline.to_json(), records.WORDS: pipeline.describe()}
                self.database.write(trial._trial_id, words)
            except storage.FAILURES:  # signed by a process that lives, it would never be found lost
                self.requeue(trial)
                raise
        return trial

    def _begun(self, waiting: FrozenTrial | None) -> OptunaTrial:
        """The trial from the queue, or a new one, as `optuna.Study.ask` begins it, which takes any that waits."""
        self.optuna._thread_local.cached_all_trials = None
        if waiting is None:
            return OptunaTrial(self.optuna, self._storage.create_new_trial(self.optuna._study_id))
        self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        return OptunaTrial(self.optuna, waiting._trial_id)

    def claim(self, n_trials: int) -> OptunaTrial | None:
        """The next trial of a total of `n_trials`, then of its repeats; None when only what runs now is missing."""
        return self._patiently(lambda: self._claim(n_trials))

    def _claim(self, n_trials: int) -> OptunaTrial | None:
        with self.exclusive():
            self.recover()
            trials = self.trials()
            running = sum(trial.state == TrialState.RUNNING and not records.is_repeat(trial) for trial in trials)
            if (n_left := self.n_left(n_trials)) > 0:
                return self.ask() if n_left > running else None
            again = repeats.waiting(trials) or self._repeat(trials)
            return self.ask(again[0]) if again else None

    def pipeline(self, trial: OptunaTrial) -> Pipeline:
        """The pipeline that the trial chooses."""

        def sampled() -> Pipeline:
            anchor = trial.user_attrs.get(records.ANCHOR)
            space = SPACES[self.spec.space.name]
            return sample(space, cast("Trial", trial), self.given, self.spec.restrictions, anchor)

        return self._patiently(sampled)

    def seeds(self, trial: OptunaTrial) -> Seeds:
        """The seeds of a trial; a retry has those of the trial that it repeats."""
        attributes = self._patiently(lambda: trial.user_attrs)
        return Seeds.of(self.spec.search.seed, attributes.get(records.SEED_TRIAL, trial.number))

    def front(self) -> tuple[Outcome, ...]:
        """The Pareto front so far, by rising seconds."""
        return records.pareto_front(self.trials(), self.floor)

    def baseline(self) -> FrozenTrial | None:
        """The finished run of BASELINE, or None."""
        return records.baseline(self.trials(), BASELINE)

    def reference(self) -> Reference | None:
        """The worst corner of the hypervolume: None before BASELINE has run, fixed once it is not timed again.

        None as well where the floor is 1, as it was for two classes once: nothing lies above it.
        """
        stored = self.attributes().get(REFERENCE)
        if stored is None and (run := self.baseline()) is not None:
            stored = [WORSE_THAN_BASELINE * run.values[0], self.floor]
            if records.first(run) not in repeats.unsettled(self.trials(), self.floor, self.spec.search.repeats):
                self._patiently(lambda: self.optuna.set_user_attr(REFERENCE, stored))
        return Reference(*stored) if stored is not None and stored[1] < 1 else None

    def hypervolume(self, outcomes: Sequence[Outcome] | None = None) -> tuple[float, float] | None:
        """(hypervolume, share of the whole box) of the front or of given outcomes; None before BASELINE has run.

        The box reaches from the reference down to the fastest anchor and up to an accuracy of 1; what is faster than
        that anchor counts in the share as if it were as fast.
        """
        reference = self.reference()
        anchors = [t.values[0] for t in records.points(self.trials()) if records.ANCHOR in t.user_attrs]
        if reference is None or not anchors or min(anchors) >= reference.train_seconds:
            return None
        points = self.front() if outcomes is None else outcomes
        return hypervolume(points, reference), normalised_hypervolume(points, reference, min(anchors))

    def n_left(self, n_trials: int) -> int:
        """Trials that are missing from a total of `n_trials`."""
        return max(0, n_trials - records.n_counted(self.trials()))

    def is_complete(self, n_trials: int) -> bool:
        """Whether it has so many trials, and nothing is left to be timed again."""
        limit = self.spec.search.repeats
        return not self.n_left(n_trials) and not repeats.pending(self.trials(), self.floor, limit)

    def tell(self, result: Result) -> None:
        """Writes how a trial ended. While another program holds the database, it is tried again.

        Raises:
            Untold: the database does not take it; the result lies in a file, and the next run tells it.
        """
        try:
            storage.patiently(lambda: self._tell(result))
        except storage.FAILURES as error:
            raise self.put_aside(result, error) from error

    def put_aside(self, result: Result, why: Exception) -> Untold:
        """Keeps a result that the database does not take in a file, for the next run to tell; what is said of it."""
        message = storage.failure(why, self.database.url)
        with suppress(OSError):
            path = results.keep(self.artifacts / "untold", result)
            message += f"; the result of trial {result.trial} is kept in {path} until then"
        return Untold(message)

    def _tell(self, result: Result) -> None:
        with self.exclusive():
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, result.trial)
            trial = self._storage.get_trial(trial_id)
            if trial.state.is_finished():  # given up while its owner was suspended, and perhaps tried again
                if trial.values != (list(result.values) if result.values else None):
                    self.optuna.set_user_attr(f"{LATE}_{result.trial}", result.to_json())
                return
            self.database.write(trial_id, result.attributes)
            if result.violation is not None:  # in the one form that Optuna and its dashboard both read
                self._storage.set_trial_system_attr(trial_id, "constraints", [result.violation])
            if result.values is not None:
                self.optuna.tell(result.trial, list(result.values))
            else:
                self.optuna.tell(result.trial, state=TrialState[result.state])

    def requeue(self, trial: OptunaTrial) -> None:
        """Puts a trial that was interrupted back into the queue, with its number and its parameters."""
        ours = this_process().to_json()

        def put_back() -> None:
            with suppress(optuna.exceptions.UpdateFinishedTrialError), self.exclusive():  # told, or given up, meanwhile
                if trial.user_attrs.get(records.OWNER, ours) != ours:  # put back before, and taken by another run
                    return
                for name in (records.REASON, records.MESSAGE, records.WOULD_STOP, records.NOISY, records.UNDISTURBED):
                    if name in trial.user_attrs:
                        self._storage.set_trial_user_attr(trial._trial_id, name, None)
                self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

        storage.patiently(put_back)

    def retry(self, trial: FrozenTrial) -> None:
        """Queues a failed trial once more, with the same parameters and seeds."""
        if not any(other.user_attrs.get(records.RETRY_OF) == trial.number for other in self.trials()):
            self._enqueue(trial, {records.RETRY_OF: trial.number})

    def _repeat(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Queues what is to be timed again next, if anything is: the repeat."""
        due = repeats.due(trials, self.floor, self.spec.search.repeats)
        if due is None:
            return []
        self._enqueue(due, {records.REPEAT_OF: records.first(due)})
        return repeats.waiting(self.trials())

    def _enqueue(self, trial: FrozenTrial, attributes: dict[str, object]) -> None:
        """Queues a trial once more, with the same parameters and seeds; as a repeat where it was one."""
        inherited = {key: trial.user_attrs[key] for key in _INHERITED if key in trial.user_attrs}
        queued = trial.system_attrs.get("fixed_params", {})  # all of an anchor's, also those not yet asked for
        same = {records.SEED_TRIAL: trial.number, **inherited, **attributes}
        self.optuna.enqueue_trial({**queued, **trial.params}, user_attrs=same)

    def heartbeat(self, trial_ids: Iterable[int]) -> None:
        """Says that trials still run: for other hosts, which cannot look at this one's processes."""
        for trial_id in trial_ids:
            self._storage.record_heartbeat(trial_id)

    def recover(self) -> list[int]:
        """Tells kept results, then fails the trials whose process is gone and queues each again; their numbers."""
        with self.exclusive():
            for path, result in results.kept(self.artifacts / "untold"):
                self._tell(result)
                path.unlink()
            lost = [trial for trial in self.trials() if trial.state == TrialState.RUNNING and self.is_lost(trial)]
            for trial in lost:
                self.lose(trial.number, "its process is gone")
        return [trial.number for trial in lost]

    def lose(self, number: int, message: str) -> str:
        """Fails a running trial whose worker is gone and queues it again; why it failed.

        The new trial is queued before the old one is failed: killed in between, the next start finishes the job.
        """
        with self.exclusive():
            trial = self.trials()[number]
            reason = records.LOST if self._n_losses(trial) < MAX_RETRIES else "crash"  # it takes all down each time
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another host has given it up meanwhile
                self._storage.set_trial_user_attr(trial._trial_id, records.REASON, reason)
                self._storage.set_trial_user_attr(trial._trial_id, records.MESSAGE, message)
                if reason == records.LOST:
                    self.retry(trial)
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return reason

    def enqueue_anchors(self) -> None:
        """Queues the anchors that the study lacks; a ladder only where half of the trials are left to search."""
        anchors = usable_anchors(SPACES[self.spec.space.name], self.given, self.spec.restrictions)
        left_out = LADDERS.get(self.given.data, {}) if 2 * len(anchors) > self.spec.search.n_trials else {}
        with self.exclusive():
            have = {trial.user_attrs.get(records.ANCHOR) for trial in self.trials()}
            for name, parameters in anchors:
                if name not in have and name not in left_out:
                    self.optuna.enqueue_trial(parameters, user_attrs={records.ANCHOR: name})

    def kept(self, trials: Sequence[FrozenTrial]) -> set[int]:
        """Trials whose networks are kept: those of the front, and those that repeats may bring back to it."""
        return repeats.kept(trials, self.floor, self.spec.search.repeats)

    def strays(self) -> list[Path]:
        """Exported models of trials that are not kept, and what an interrupted export left."""
        kept = {self.artifact(number).name for number in self.kept(self.trials())}
        folders = [*self.artifacts.glob("trial-*"), *self.artifacts.glob(".trial-*.partial")]
        return [folder for folder in folders if folder.name not in kept and folder.is_dir()]

    def collect(self) -> None:
        """Removes what is no longer needed."""
        with self.exclusive():  # an export of another process is on the front once it is told
            for folder in self.strays():
                shutil.rmtree(folder, ignore_errors=True)

    def artifact(self, trial_number: int) -> Path:
        """The folder of a trial's exported model; it exists for trials on the front."""
        return self.artifacts / f"trial-{trial_number:05d}"

    def is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the process that ran a trial is gone for certain, or silent on another host for too long."""
        owner = trial.user_attrs.get(records.OWNER)
        if owner is None:  # killed between asking and signing: both happen in one `exclusive`, and we have it
            return True
        fate = Owner.from_json(owner).fate
        return fate == "dead" or (fate == "unknown" and trial._trial_id in self._silent())

    def _silent(self) -> list[int]:
        """Ids of running trials whose last heartbeat is older than the lease, both by the database's clock."""
        judge = copy.copy(self.database.optuna)
        judge.heartbeat_interval = LEASE_SECONDS // 2  # set on the storage itself, every `ask` would warn
        judge.grace_period = LEASE_SECONDS
        return judge._get_stale_trial_ids(self.optuna._study_id)

    def _n_losses(self, trial: FrozenTrial) -> int:
        """How often this trial was tried before."""
        numbers = {other.number: other for other in self.trials()}
        losses = 0
        while (before := trial.user_attrs.get(records.RETRY_OF)) is not None:
            trial, losses = numbers[before], losses + 1
        return losses


def _is_searched(trial: FrozenTrial) -> bool:
    """Whether the trial waits for the search, not for its end."""
    return trial.state == TrialState.WAITING and not records.is_repeat(trial)


def sampler(spec: StudySpec, n_trials: int, n_waiting: int) -> BaseSampler:
    """The sampler for one question, asked when the study has so many trials.

    The storage keeps no sampler state. Its seed derives from what the storage holds: a resumed study would otherwise
    repeat the draws of the run before, and runs that start at once would draw alike.
    """
    seed = int(np.random.SeedSequence((spec.search.seed, n_trials, n_waiting)).generate_state(1)[0])
    match spec.search.sampler:
        case "random":
            return RandomSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(population_size=16, seed=seed)
        case "tpe":
            with experimental():
                return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def learns_from_pruned(spec: StudySpec) -> bool:
    """Whether the sampler sees PRUNED trials without values; others are told a value and a violated constraint."""
    return spec.search.sampler != "nsga2"


@contextmanager
def experimental() -> Iterator[None]:
    """Silences Optuna's warnings about features of it that we use on purpose; constraints.txt pins their behaviour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
