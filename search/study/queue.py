"""What a study runs next: what was lost comes back first, then the queue, then something new."""

from __future__ import annotations

from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState

from search.study import records, recovery, repeats
from search.study.study import Study
from spaces import SPACES
from spaces.ladders import LADDERS
from spaces.restricted import usable_anchors


def claim(study: Study, n_trials: int) -> OptunaTrial | None:
    """The next trial of a total of `n_trials`, or a repeat; None when only what is running now is missing."""
    return study.patiently(lambda: _claim(study, n_trials))


def _claim(study: Study, n_trials: int) -> OptunaTrial | None:
    with study.exclusive():
        recovery.recover(study)
        now = study.snapshot()
        running = sum(trial.state == TrialState.RUNNING and not records.is_repeat(trial) for trial in now.trials)
        if now.n_left(n_trials) > running:
            return study.ask()
        again = next(iter(repeats.waiting(now.trials)), None)
        return study.ask(again) if again is not None else None


def enqueue_anchors(study: Study) -> None:
    """Queues the anchors that the study lacks; a ladder only where half of the trials are left to search."""
    anchors = usable_anchors(SPACES[study.spec.space.name], study.given, study.spec.restrictions)
    left_out = LADDERS.get(study.given.data, {}) if 2 * len(anchors) > study.spec.search.n_trials else {}
    with study.exclusive():
        have = {trial.user_attrs.get(records.ANCHOR) for trial in study.trials()}
        for name, parameters in anchors:
            if name not in have and name not in left_out:
                study.optuna.enqueue_trial(parameters, user_attrs={records.ANCHOR: name})
