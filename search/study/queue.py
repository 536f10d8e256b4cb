"""What a study runs next: what was lost comes back first, then the queue, then something new."""

from __future__ import annotations

from uuid import uuid4

from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from search.planning import budget
from search.planning.budget import Budget
from search.proposals import interest
from search.study import confirmation, records, recovery, repeats
from search.study.confirmation import SHARE
from search.study.snapshot import Snapshot
from search.study.study import Study
from spaces import SPACES
from spaces.base import BASELINE
from spaces.ladders import ladder
from spaces.restricted import anchor_pipelines, usable_anchors


def claim(study: Study, n_trials: int, share: float = SHARE) -> OptunaTrial | None:
    """The next trial of a total of `n_trials`, then of its repeats, then of its confirmations within the share.

    None when only what runs now is missing.
    """
    question_id = uuid4().hex  # the same, however often it is asked while the server goes and comes
    return study.patiently(lambda: _claim(study, n_trials, share, question_id))


def claim_within(study: Study, minutes: Budget) -> OptunaTrial | None:
    """The next trial that ends in time; None when only the last training is left to do."""
    question_id = uuid4().hex
    return study.patiently(lambda: _claim_within(study, minutes, question_id))


def _claim_within(study: Study, minutes: Budget, question_id: str) -> OptunaTrial | None:
    with study.exclusive():
        recovery.recover(study)
        now = study.snapshot()
        if (begun := study.answer(question_id, now.trials)) is not None:
            return begun
        step = minutes.next_step(now)
        match step:
            case None:
                return None
            case budget.Queued(trial):
                return study.ask(trial)
            case budget.Confirm(point):
                study.enqueue_afresh(point, {records.CONFIRM_OF: records.first(point)})
                return study.ask(confirmation.waiting(study.trials())[-1])  # others may wait that do not fit
            case budget.Search(most, n_startup):
                return study.propose(question_id, lambda now, seed: study.experience.next(now, seed, most, n_startup))
            case budget.Fill(seconds):
                if (longest := study.experience.fill(now, seconds)) is None:  # all such were tried
                    longest = study.experience.next(now, 0, seconds, 0)
                return study.propose(question_id, lambda now, seed: longest, {records.FILL: True})


def _claim(study: Study, n_trials: int, share: float, question_id: str) -> OptunaTrial | None:
    with study.exclusive():
        recovery.recover(study)
        now = study.snapshot()
        if (begun := study.answer(question_id, now.trials)) is not None:
            return begun
        running = sum(trial.state == TrialState.RUNNING and records.is_searched(trial) for trial in now.trials)
        if (n_left := now.n_left(n_trials)) > 0:
            return study.ask(question_id=question_id) if n_left > running else None
        again = repeats.waiting(now.trials) or _repeat(study, now)
        if not repeats.pending(now.trials, study.floor, study.spec.search.repeats):  # they may change the front
            again = confirmation.waiting(now.trials) or _confirmation(study, now, share)
        return study.ask(again[0]) if again else None


def _repeat(study: Study, now: Snapshot) -> list[FrozenTrial]:
    """Queues what is to be timed again next, if anything is: the repeat."""
    due = repeats.due(now.trials, study.floor, study.spec.search.repeats)
    if due is None:
        return []
    study.enqueue(due, {records.REPEAT_OF: records.first(due)})
    return repeats.waiting(study.trials())


def _confirmation(study: Study, now: Snapshot, share: float) -> list[FrozenTrial]:
    """Queues what is to be trained next with fresh seeds, if anything is: the confirmation."""
    due = confirmation.due(now.trials, study.floor, study.spec.search.confirm, share)
    if due is None:
        return []
    study.enqueue_afresh(due, {records.CONFIRM_OF: records.first(due)})
    return confirmation.waiting(study.trials())


def enqueue_anchors(study: Study, n_trials: int | None = None, *, in_minutes: bool = False) -> None:
    """Queues the anchors that the study lacks, the cheapest first; in minutes, which there is time for is seen later.

    Else, of a study that is short, BASELINE comes first, with which all are compared, and the ladder is left out: half
    of the trials are left to search. `n_trials`: in all; None: those of the study file.
    """
    n_trials = study.spec.search.n_trials if n_trials is None else n_trials
    space, given, restrictions = SPACES[study.spec.space.name], study.given, study.spec.restrictions
    anchors, is_short = usable_anchors(space, given, restrictions), False
    if not in_minutes and 2 * len(anchors) > n_trials:
        is_short = True
        anchors = [each for each in anchors if each[0] not in ladder(given)]
    pipelines = anchor_pipelines(space, given, restrictions)
    cost = {name: interest.forecast(pipelines[name], study.spec.task, given, None) for name, _ in anchors}
    anchors.sort(key=lambda each: (not (is_short and each[0] == BASELINE), cost[each[0]]))
    with study.exclusive():
        have = {trial.user_attrs.get(records.ANCHOR) for trial in study.trials()}
        for name, parameters in anchors:
            if name not in have:
                study.optuna.enqueue_trial(parameters, user_attrs={records.ANCHOR: name})
