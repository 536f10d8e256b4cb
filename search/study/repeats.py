"""Which disturbed runs are timed again. Pure functions over trials: whoever is killed on the way, the next one goes on.

A repeat has the parameters and seeds of its first, so the same accuracy; only its seconds are new. It does not count
towards a study's total, and of a trial and its repeats one is a point: see `records.points`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from search.pareto.front import front
from search.study import records
from spaces.base import BASELINE


def due(trials: Sequence[FrozenTrial], floor: float, limit: int) -> list[FrozenTrial]:
    """The disturbed runs to queue again, each at most `limit` times.

    Timed again is BASELINE, with which all are compared, and what is on the front or would be, undisturbed.
    """
    disturbed = [trial for trial in records.points(trials) if trial.user_attrs.get(records.NOISY)]
    if not disturbed:
        return []
    wanted = _candidates(trials, floor)
    waited_for, spent = _waited_for(trials), _spent(trials)
    return [
        trial
        for trial in disturbed
        if (trial.number in wanted or trial.user_attrs.get(records.ANCHOR) == BASELINE)
        and records.first(trial) not in waited_for
        and spent[records.first(trial)] < limit
    ]


def waiting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The repeats that nobody has begun."""
    return [trial for trial in trials if trial.state == TrialState.WAITING and records.is_repeat(trial)]


def unsettled(trials: Sequence[FrozenTrial], floor: float, limit: int) -> set[int]:
    """First trials whose point may yet be replaced: a repeat is due, waits or runs."""
    return _waited_for(trials) | {records.first(trial) for trial in due(trials, floor, limit)}


def kept(trials: Sequence[FrozenTrial], floor: float, limit: int) -> set[int]:
    """Trials whose networks are kept: the front, and what would be on it once repeats have changed it.

    A repeat may be slower than its disturbed first, and bring a point back that the first dominated.
    """
    points, changing = records.outcomes(trials, floor), unsettled(trials, floor, limit)
    settled = [point for point in points if records.first(trials[point.trial]) not in changing]
    others = [point for point in points if records.first(trials[point.trial]) in changing]
    return {point.trial for point in front(settled)} | {p.trial for p in others if p in front([*settled, p])}


def _candidates(trials: Sequence[FrozenTrial], floor: float) -> set[int]:
    """The front as it is, and at the seconds that each run would have taken undisturbed, as far as can be estimated.

    Estimates are compared with estimates: where everything is disturbed, each would beat what was measured of others.
    """
    measured = records.outcomes(trials, floor)
    seconds = [trials[point.trial].user_attrs.get(records.UNDISTURBED) or point.train_seconds for point in measured]
    estimated = [replace(point, train_seconds=each) for point, each in zip(measured, seconds, strict=True)]
    return {point.trial for point in (*front(measured), *front(estimated))}


def _waited_for(trials: Sequence[FrozenTrial]) -> set[int]:
    """First trials of which a repeat waits or runs."""
    return {records.first(trial) for trial in trials if records.is_repeat(trial) and not trial.state.is_finished()}


def _spent(trials: Sequence[FrozenTrial]) -> Counter[int]:
    """Repeats of each first trial; one that was lost or crashed, and was tried again, is one with its retry."""
    retried = {trial.user_attrs.get(records.RETRY_OF) for trial in trials}
    return Counter(records.first(t) for t in trials if records.is_repeat(t) and t.number not in retried)
