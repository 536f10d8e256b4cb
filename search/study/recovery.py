"""Trials whose process is gone: found, failed, and queued again."""

from __future__ import annotations

import copy
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.host.owner import Owner
from search.study import records
from search.study.study import Study

MAX_RETRIES = 3  # of a trial whose worker was lost with the whole program, or whose device was lost
LEASE_SECONDS = 180  # without a heartbeat, a trial of another host is lost


def recover(study: Study) -> list[int]:
    """Tells kept results, then fails the trials whose process is gone and queues each again; their numbers."""
    with study.exclusive():
        study.tell_kept()
        lost = [trial for trial in study.trials() if trial.state == TrialState.RUNNING and is_lost(study, trial)]
        for trial in lost:
            lose(study, trial.number, "its process is gone")
    return [trial.number for trial in lost]


def lose(study: Study, number: int, message: str) -> str:
    """Fails a running trial whose worker is gone and queues it again; why it failed.

    The new trial is queued before the old one is failed: killed in between, the next start finishes the job.
    """
    with study.exclusive():
        trials = study.trials()
        trial = trials[number]
        reason = records.LOST if _n_losses(trials, trial) < MAX_RETRIES else "crash"  # it takes all down each time
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another host has given it up meanwhile
            study.storage.set_trial_user_attr(trial._trial_id, records.REASON, reason)
            study.storage.set_trial_user_attr(trial._trial_id, records.MESSAGE, message)
            if reason == records.LOST:
                retry(study, trial)
            study.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    return reason


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queues a failed trial once more, with the same parameters and seeds."""
    if not any(other.user_attrs.get(records.RETRY_OF) == trial.number for other in study.trials()):
        study.enqueue(trial, {records.RETRY_OF: trial.number})


def is_lost(study: Study, trial: FrozenTrial) -> bool:
    """Whether the process that ran a trial is gone for certain, or silent on another host for too long."""
    owner = trial.user_attrs.get(records.OWNER)
    if owner is None:  # killed between asking and signing: both happen in one `exclusive`, and we have it
        return True
    fate = Owner.from_json(owner).fate
    return fate == "dead" or (fate == "unknown" and trial._trial_id in _silent(study))


def _silent(study: Study) -> list[int]:
    """Ids of running trials whose last heartbeat is older than the lease, both by the database's clock."""
    judge = copy.copy(study.database.optuna)
    judge.heartbeat_interval = LEASE_SECONDS // 2  # set on the storage itself, every `ask` would warn
    judge.grace_period = LEASE_SECONDS
    return judge._get_stale_trial_ids(study.optuna._study_id)


def _n_losses(trials: list[FrozenTrial], trial: FrozenTrial) -> int:
    """How often this trial was tried before."""
    numbers = {other.number: other for other in trials}
    losses = 0
    while (before := trial.user_attrs.get(records.RETRY_OF)) is not None:
        trial, losses = numbers[before], losses + 1
    return losses
