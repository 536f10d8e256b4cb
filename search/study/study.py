"""`Study`: an Optuna study with its spec, open for trials. `study.opening` creates and resumes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from objectives.pipeline import Pipeline
from objectives.task import Seeds
from search.database import storage
from search.database.storage import Database
from search.errors import Untold
from search.host.owner import this_process
from search.pareto.curves import Curve
from search.proposals.draws import Candidate
from search.proposals.experience import Experience
from search.proposals.samplers import OURS, question, sampler
from search.study import records, results
from search.study.networks import Networks
from search.study.results import Result
from search.study.snapshot import Snapshot, restrictions
from search.study.spec import StudySpec
from spaces import SPACES
from spaces.base import Given, Trial
from spaces.restricted import sample

FIRST_ROUND = 100  # of an ablation: its repeat of the seeds of a trial, of which others have single digits
LATE = "late_result"  # study attribute, with the number of the trial: told after it had been given up
# by a trial queued once more
_INHERITED = (
    *(records.PIPELINE, records.WORDS, records.FILL),
    *(records.SEED_TRIAL, records.ANCHOR, records.REPEAT_OF, records.CONFIRM_OF, records.ABLATION),
)
_OF_A_RUN = (records.OWNER, records.REASON, records.MESSAGE, records.WOULD_STOP, records.NOISY, records.UNDISTURBED)

T = TypeVar("T")


@dataclass(frozen=True)
class Study:
    """A study in a database, open for trials. Asks and tells are made in turn; what follows from them: `snapshot`."""

    name: str
    spec: StudySpec
    optuna: optuna.Study
    database: Database
    given: Given
    floor: float  # accuracy below which a result counts for nothing
    experience: Experience = field(default_factory=Experience, repr=False, compare=False)
    curves: dict[int, Curve] = field(default_factory=dict, repr=False, compare=False)  # of finished runs, once read

    @property
    def networks(self) -> Networks:
        """The exported networks of this study."""
        return Networks(self.database.artifacts(self.name))

    @property
    def untold(self) -> Path:
        """The folder of results that the database did not take."""
        return self.networks.folder / "untold"

    @property
    def storage(self) -> RDBStorage:
        """Optuna's storage."""
        return self.optuna._storage  # type: ignore[return-value]

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.patiently(lambda: self.optuna.get_trials(deepcopy=False))

    def attributes(self) -> dict[str, Any]:
        """The user attributes of the study."""
        return self.patiently(lambda: self.optuna.user_attrs)

    def snapshot(self, trials: Sequence[FrozenTrial] | None = None) -> Snapshot:
        """The study as it is now; with its trials where they are known already."""
        trials, attributes = tuple(self.trials() if trials is None else trials), self.attributes()
        return Snapshot(
            *(self.name, self.spec, self.floor, self.given, trials, attributes),
            *(self.database, self.networks.folder, self.curves),
        )

    def patiently(self, action: Callable[[], T]) -> T:
        """What the action returns; while the database is away it is tried again.

        Not within `exclusive`: others may have come in between, so that who has taken the study tries the whole again.
        """
        return action() if self.database.has(self.name) else storage.patiently(action)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other threads and processes from asking and telling meanwhile."""
        with self.database.exclusive(self.name):
            yield

    def ask(self, waiting: FrozenTrial | None = None, question_id: str | None = None) -> OptunaTrial:
        """The next trial, signed by this process: one from the queue (anchors, what was interrupted), or a new one.

        `waiting`: this one from the queue, where repeats and confirmations wait as well. `question_id`: see `answer`.
        """
        with self.exclusive():
            trials = self.trials()
            queued = waiting or next(filter(_is_searched, trials), None)
            name = self.spec.search.sampler
            if queued is None and name == OURS:
                return self.propose(question_id, self.experience.next)
            seed = self._question(trials)
            self.optuna.sampler = sampler("random" if name == OURS else name, seed)
            trial = self._begun(queued)
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
            return OptunaTrial(self.optuna, self._made(None))
        self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        return OptunaTrial(self.optuna, waiting._trial_id)

    def propose(
        self,
        question_id: str | None,
        proposal: Callable[[Snapshot, int], Candidate[Pipeline]],
        attributes: Mapping[str, object] | None = None,
    ) -> OptunaTrial:
        """A new trial with the pipeline that is proposed to the study as it is, of a seed.

        Whole in one commit, where Optuna makes one a parameter.
        """
        now = self.snapshot()
        found = proposal(now, self._question(now.trials))
        words = {records.PIPELINE: found.chosen.to_json(), records.WORDS: found.chosen.describe(), **(attributes or {})}
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(found.params),
            distributions=dict(found.distributions),
            user_attrs={records.OWNER: this_process().to_json(), records.QUESTION: question_id, **words},
        )
        return self._whole(self._made(trial))

    def _question(self, trials: Sequence[FrozenTrial]) -> int:
        """The seed of the next question."""
        n_waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        return question(self.spec.search.seed, len(trials), n_waiting)

    def answer(self, question_id: str, trials: Iterable[FrozenTrial]) -> OptunaTrial | None:
        """The trial that was made for a question, if the server took it and only its answer was lost.

        Signed by a process that lives, it would never be found lost, and be waited for.
        """
        found = (trial for trial in trials if trial.user_attrs.get(records.QUESTION) == question_id)
        return next((self._whole(trial._trial_id) for trial in found), None)

    def _made(self, template: FrozenTrial | None) -> int:
        trial_id = self.database.begin(self.optuna._study_id, template)
        self.trials()  # Optuna's cache takes parameters only of trials that it has read
        return trial_id

    def _whole(self, trial_id: int) -> OptunaTrial:
        """A trial that has all its parameters."""
        self.optuna._thread_local.cached_all_trials = None
        self.optuna.sampler = sampler("random", 0)  # is asked nothing
        return OptunaTrial(self.optuna, trial_id)

    def pipeline(self, trial: OptunaTrial) -> Pipeline:
        """The pipeline that the trial chooses; of an ablation the one that it is of."""

        def sampled() -> Pipeline:
            if (told := trial.user_attrs.get(records.ABLATION)) is not None:
                return Pipeline.from_json(told["pipeline"])
            anchor = trial.user_attrs.get(records.ANCHOR)
            space = SPACES[self.spec.space.name]
            allowed = restrictions(self.spec, self.optuna.user_attrs)
            return sample(space, cast("Trial", trial), self.given, allowed, anchor)

        return self.patiently(sampled)

    def seeds(self, trial: OptunaTrial) -> Seeds:
        """The seeds of a trial; a retry has those of the trial that it repeats, a round of an ablation one for all."""
        attributes = self.patiently(lambda: trial.user_attrs)
        if (told := attributes.get(records.ABLATION)) is not None:
            return Seeds.of(self.spec.search.seed, told["of"], FIRST_ROUND + told["round"])
        return Seeds.of(self.spec.search.seed, attributes.get(records.SEED_TRIAL, trial.number))

    def enqueue(self, trial: FrozenTrial, attributes: Mapping[str, object]) -> None:
        """Queues a trial once more, with the same parameters and seeds; as a repeat where it was one."""
        inherited = {key: trial.user_attrs[key] for key in _INHERITED if key in trial.user_attrs}
        self._enqueue(trial, {records.SEED_TRIAL: trial.number, **inherited, **attributes})

    def enqueue_afresh(self, trial: FrozenTrial, attributes: Mapping[str, object]) -> None:
        """Queues the parameters of a trial with the seeds of the new one."""
        name = {records.ANCHOR: trial.user_attrs[records.ANCHOR]} if records.ANCHOR in trial.user_attrs else {}
        self._enqueue(trial, {**name, **attributes})

    def enqueue_ablation(self, told: Mapping[str, object]) -> None:
        """Queues a training of an ablation. It has no parameters: its pipeline need not be one of the space."""
        self.optuna.enqueue_trial({}, user_attrs={records.ABLATION: dict(told)})

    def _enqueue(self, trial: FrozenTrial, attributes: dict[str, object]) -> None:
        queued = trial.system_attrs.get("fixed_params", {})  # all of an anchor's, also those not yet asked for
        self.optuna.enqueue_trial({**queued, **trial.params}, user_attrs=attributes)

    def requeue(self, trial: OptunaTrial) -> None:
        """Puts a trial that was interrupted back into the queue, with its number and its parameters."""
        ours = this_process().to_json()

        def put_back() -> None:
            with suppress(optuna.exceptions.UpdateFinishedTrialError), self.exclusive():  # told, or given up, meanwhile
                found = self.storage.get_trial(trial._trial_id).user_attrs
                if (found.get(records.OWNER) or ours) != ours:  # put back before, and taken by another run
                    return
                for name in _OF_A_RUN:
                    if name in found:
                        self.storage.set_trial_user_attr(trial._trial_id, name, None)
                self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

        storage.patiently(put_back)

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
            path = results.keep(self.untold, result)
            message += f"; the result of trial {result.trial} is kept in {path} until then"
        return Untold(message)

    def tell_kept(self) -> None:
        """Tells the results that were put aside."""
        with self.exclusive():
            for path, result in results.kept(self.untold):
                self._tell(result)
                path.unlink()

    def _tell(self, result: Result) -> None:
        with self.exclusive():
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, result.trial)
            trial = self.storage.get_trial(trial_id)
            if trial.state.is_finished():  # given up while its owner was suspended, and perhaps tried again
                if trial.values != (list(result.values) if result.values else None):
                    self.optuna.set_user_attr(f"{LATE}_{result.trial}", result.to_json())
                return
            self.database.write(trial_id, result.attributes)
            if result.violation is not None:  # in the one form that Optuna and its dashboard both read
                self.storage.set_trial_system_attr(trial_id, "constraints", [result.violation])
            if result.values is not None:
                self.optuna.tell(result.trial, list(result.values))
            else:
                self.optuna.tell(result.trial, state=TrialState[result.state])

    def tell_test(self, number: int, found: Mapping[str, object]) -> None:
        """Writes what the network of a confirmation is worth on the test split.

        As an attribute of the study: Optuna lets no trial change that has ended.
        """
        self.patiently(lambda: self.optuna.set_user_attr(f"{records.TEST}{number}", dict(found)))

    def collect(self) -> None:
        """Removes the networks that nothing names any more."""
        with self.exclusive():  # an export of another process is on the front once it is told
            self.networks.collect(self.snapshot().kept)

    def heartbeat(self, trial_ids: Iterable[int]) -> None:
        """Says that trials still run: for other hosts, which cannot look at this one's processes."""
        for trial_id in trial_ids:
            self.storage.record_heartbeat(trial_id)


def keep_place(found: optuna.Study, spec: StudySpec) -> None:
    """Keeps where the network to start from lies now, for commands that read no study file, in whatever folder."""
    known, start = found.user_attrs["spec"], spec.task.start
    if start is not None and known["network"].get("start") != start:
        found.set_user_attr("spec", {**known, "network": {**known["network"], "start": start}})


def _is_searched(trial: FrozenTrial) -> bool:
    """Whether the trial waits for the search, not for its end."""
    return trial.state == TrialState.WAITING and records.is_searched(trial)
