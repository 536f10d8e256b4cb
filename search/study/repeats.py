"""Which disturbed runs are timed again. Pure functions over trials: whoever is killed on the way, the next one goes on.

A repeat has the parameters and seeds of its first, so the same accuracy; only its seconds are new. It does not count
towards a study's total, and of a trial and its repeats one is a point: see `records.points`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from search.pareto.front import Outcome, front
from search.study import records
from spaces.base import BASELINE

SHARE = 0.1  # of the seconds of a study's trainings: what its repeats may take


def due(trials: Sequence[FrozenTrial], floor: float, limit: int) -> FrozenTrial | None:
    """The disturbed run to time again next, now that the search is over; None where there is none, or no use in it.

    BASELINE comes first, with which all are compared; then what decides who is on the front, the shortest first; each
    at most `limit` times, and all together in a tenth of the study's seconds. A repeat that was disturbed as well ends
    it, until the search has gone on: there is no quiet to be had.
    """
    disturbed = _repeatable(trials, limit)
    if not disturbed or _is_restless(trials):
        return None
    waited_for, deciding, left = _waited_for(trials), _deciding(trials, floor), _seconds_left(trials)
    chosen = [
        trial
        for trial in disturbed
        if (_is_baseline(trial) or trial.number in deciding)
        and records.first(trial) not in waited_for
        and trial.values[0] <= left
    ]
    return min(chosen, key=lambda trial: (not _is_baseline(trial), trial.values[0]), default=None)


def waiting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The repeats that nobody has begun."""
    return [trial for trial in trials if trial.state == TrialState.WAITING and records.is_repeat(trial)]


def pending(trials: Sequence[FrozenTrial], floor: float, limit: int) -> bool:
    """Whether, now that the search is over, a repeat is due, waits or runs."""
    return bool(_waited_for(trials)) or due(trials, floor, limit) is not None


def unsettled(trials: Sequence[FrozenTrial], floor: float, limit: int) -> set[int]:
    """First trials whose point a repeat may yet replace, now or once the search has gone on."""
    candidates = _candidates(*_worlds(trials, floor))
    open_ = (t for t in _repeatable(trials, limit) if _is_baseline(t) or t.number in candidates)
    return _waited_for(trials) | {records.first(trial) for trial in open_}


def kept(trials: Sequence[FrozenTrial], floor: float, limit: int) -> set[int]:
    """Trials whose networks are kept: the front, and what would be on it once repeats have changed it.

    A repeat may be slower than its disturbed first, and bring a point back that the first dominated.
    """
    points, changing = records.outcomes(records.points(trials), floor), unsettled(trials, floor, limit)
    settled = [point for point in points if records.first(trials[point.trial]) not in changing]
    others = [point for point in points if records.first(trials[point.trial]) in changing]
    return {point.trial for point in front(settled)} | {p.trial for p in others if p in front([*settled, p])}


World = dict[int, Outcome]  # number of a trial: its point


def _worlds(trials: Sequence[FrozenTrial], floor: float) -> tuple[World, World]:
    """The points as they were measured, and at the seconds that each would have taken undisturbed, as estimated."""
    measured = {point.trial: point for point in records.outcomes(records.points(trials), floor)}
    estimated = {
        number: replace(point, cost=trials[number].user_attrs.get(records.UNDISTURBED) or point.cost)
        for number, point in measured.items()
    }
    return measured, estimated


def _candidates(measured: World, estimated: World) -> set[int]:
    """Who is on the front of either world.

    Estimates are compared with estimates: where everything is disturbed, each would beat what was measured of others.
    """
    return _on_front(measured) | _on_front(estimated)


def _deciding(trials: Sequence[FrozenTrial], floor: float) -> set[int]:
    """Candidates whose seconds decide who is on the front: taken from the other world, they would change it."""
    measured, estimated = _worlds(trials, floor)
    return {
        number
        for world, other in ((measured, estimated), (estimated, measured))
        for number in _candidates(measured, estimated)
        if other[number] != world[number] and _on_front(world | {number: other[number]}) != _on_front(world)
    }


def _on_front(world: World) -> set[int]:
    return {point.trial for point in front(world.values())}


def _repeatable(trials: Sequence[FrozenTrial], limit: int) -> list[FrozenTrial]:
    """Points that are disturbed, and were not timed again `limit` times."""
    spent = _n_repeats(trials)
    noisy = (trial for trial in records.points(trials) if trial.user_attrs.get(records.NOISY))
    return [trial for trial in noisy if spent[records.first(trial)] < limit]


def _is_baseline(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get(records.ANCHOR) == BASELINE


def _is_restless(trials: Sequence[FrozenTrial]) -> bool:
    """Whether a repeat was disturbed, too, since the search last went on."""
    searched = (trial.number for trial in trials if trial.state.is_finished() and records.is_searched(trial))
    latest = max(searched, default=-1)
    again = (trial for trial in trials[latest + 1 :] if records.is_repeat(trial) and records.is_finished_run(trial))
    return any(trial.user_attrs.get(records.NOISY) for trial in again)


def _seconds_left(trials: Sequence[FrozenTrial]) -> float:
    """Seconds that further repeats may take. One that has not ended, or failed, counts as its first."""
    searched, repeated = 0.0, 0.0
    for trial in trials:
        if records.is_searched(trial):
            searched += records.seconds(trial)
        elif records.is_repeat(trial) and not records.is_free(trial):
            repeated += records.seconds(trial) or records.seconds(trials[records.first(trial)])
    return SHARE * searched - repeated


def _waited_for(trials: Sequence[FrozenTrial]) -> set[int]:
    """First trials of which a repeat waits or runs."""
    return {records.first(trial) for trial in trials if records.is_repeat(trial) and not trial.state.is_finished()}


def _n_repeats(trials: Sequence[FrozenTrial]) -> Counter[int]:
    """Repeats of each first trial; one that was lost or crashed, and was tried again, is one with its retry."""
    retried = {trial.user_attrs.get(records.RETRY_OF) for trial in trials}
    return Counter(records.first(t) for t in trials if records.is_repeat(t) and t.number not in retried)
