"""The front trained again with fresh seeds: what is left to train, and what it says. Pure functions over trials.

The front is what was luckiest among many single seeds. A confirmation has the parameters of a point and seeds of its
own, on the same split; it does not count towards a study's total, and never becomes a point itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.pareto.intervals import Estimate, Interval, of_accuracies, of_costs, wilson
from search.study import records
from spaces.base import BASELINE

Tests = Mapping[int, Mapping[str, Any]]  # number of a confirmation: accuracies of its network on `n` test images

SHARE = 0.25  # of the seconds of a study's trainings: what its confirmations may take by themselves
ACCURACIES = {"plain": "accuracy", "balanced": "balanced_accuracy"}  # by metric, as a test tells them


def shown(trials: Sequence[FrozenTrial], floor: float) -> list[FrozenTrial]:
    """What is confirmed, in that order: BASELINE, with which all are compared, then the front by rising cost."""
    front = [trials[point.trial] for point in records.pareto_front(trials, floor)]
    baseline = records.baseline(trials, BASELINE)
    return [*([baseline] if baseline else []), *(point for point in front if point is not baseline)]


def due(trials: Sequence[FrozenTrial], floor: float, n_seeds: int, share: float) -> FrozenTrial | None:
    """The point to train next with a fresh seed; None where each has `n_seeds`, or the seconds do not suffice.

    All confirmations together take at most this share of the seconds of the search.
    """
    left = _seconds_left(trials, share)
    return next((point for point in lacking(trials, floor, n_seeds) if records.seconds(point) <= left), None)


def lacking(trials: Sequence[FrozenTrial], floor: float, n_seeds: int) -> list[FrozenTrial]:
    """What has fewer than `n_seeds` confirmations that ended or are on their way, in order."""
    begun = n_begun(trials)
    return [point for point in shown(trials, floor) if begun[records.first(point)] < n_seeds]


def seconds_lacking(trials: Sequence[FrozenTrial], floor: float, n_seeds: int) -> float:
    """The seconds that would give each point `n_seeds` confirmations, as far as they can be foreseen."""
    begun = n_begun(trials)
    missing = ((n_seeds - begun[records.first(point)], point) for point in lacking(trials, floor, n_seeds))
    return math.fsum(n * records.seconds(point) for n, point in missing)


def waiting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The confirmations that nobody has begun."""
    return [trial for trial in trials if trial.state == TrialState.WAITING and records.is_confirmation(trial)]


def pending(trials: Sequence[FrozenTrial], floor: float, n_seeds: int, share: float) -> bool:
    """Whether, now that all else is over, a confirmation is due, waits or runs."""
    on_their_way = any(records.is_confirmation(trial) and not trial.state.is_finished() for trial in trials)
    return on_their_way or due(trials, floor, n_seeds, share) is not None


def tests(attributes: Mapping[str, Any]) -> Tests:
    """What the networks of confirmations are worth on the test split, as the attributes of a study tell it."""
    keys = (key for key in attributes if key.startswith(records.TEST))
    return {int(key.removeprefix(records.TEST)): attributes[key] for key in keys}


def untested(trials: Sequence[FrozenTrial], floor: float, tests: Tests) -> list[FrozenTrial]:
    """Confirmations of what is shown whose networks have not met the test split."""
    firsts = {records.first(point) for point in shown(trials, floor)}
    ended = (trial for trial in trials if records.is_confirmation(trial) and records.is_finished_run(trial))
    return [t for t in ended if t.user_attrs[records.CONFIRM_OF] in firsts and t.number not in tests]


def failures(trials: Sequence[FrozenTrial], floor: float) -> dict[int, list[str]]:
    """Why fresh seeds did not train to their end, by the number of the point; lost ones were tried again."""
    retried = {trial.user_attrs.get(records.RETRY_OF) for trial in trials}
    points, found = {records.first(point): point.number for point in shown(trials, floor)}, dict[int, list[str]]()
    for trial in trials:
        of = trial.user_attrs.get(records.CONFIRM_OF)
        ended_early = trial.state.is_finished() and not records.is_finished_run(trial) and trial.number not in retried
        if of in points and ended_early:
            found.setdefault(points[of], []).append(records.reason(trial))
    return found


def runs(trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """Fresh seeds that trained to their end, by the number of the first trial of a point, on the front or not."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in filter(records.is_confirmation, trials):
        if records.is_finished_run(trial):
            found.setdefault(trial.user_attrs[records.CONFIRM_OF], []).append(trial)
    return found


@dataclass(frozen=True)
class Confirmed:
    """What fresh seeds say of a point. Its first run is not among them: it was chosen for its luck."""

    point: int  # number of the trial that is the point
    searched: float  # its accuracy, as the search measured it
    n: int  # fresh seeds that trained to their end
    n_failed: int  # ... and that did not
    cost: Estimate
    accuracy: Estimate
    has_spread: bool  # whether its interval comes from seeds; else from the number of images
    test: Estimate | None = None  # accuracy on the test split; its interval is that of the images
    is_disturbed: bool = False  # other work disturbed all of them: no claim is made of their seconds


def confirmed(
    trials: Sequence[FrozenTrial], floor: float, n_val: int, metric: str, tests: Tests
) -> dict[int, Confirmed]:
    """What is confirmed by at least one seed, by the number of its first trial.

    Disturbed seconds are left out where there are others. `n_val`: validation images, whose number is all that
    an interval of accuracy comes from while there are too few seeds to tell a spread.
    """
    fresh = runs(trials)
    points = [point for point in shown(trials, floor) if records.first(point) in fresh]
    groups = [fresh[records.first(point)] for point in points]
    costs = of_costs([[t.values[0] for t in _quiet(group)] for group in groups])
    accuracies = of_accuracies([[t.values[1] for t in group] for group in groups])
    begun, found = n_begun(trials, ended=True), {}
    for point, group, took, reached in zip(points, groups, costs, accuracies, strict=True):
        first, interval = records.first(point), reached.interval or wilson(reached.mean, n_val)
        found[first] = Confirmed(
            point.number,
            point.values[1],
            len(group),
            begun[first] - len(group),
            took,
            replace(reached, interval=interval),
            reached.interval is not None,
            _tested([tests[t.number] for t in group if tests.get(t.number)], metric),
            is_disturbed=all(t.user_attrs.get(records.NOISY) for t in group),
        )
    return found


@dataclass(frozen=True)
class Correction:
    """How much the search had flattered the front."""

    n_points: int
    n_seeds: tuple[int, int]  # of a point: the fewest, the most
    mean: float  # accuracy of the search less that of fresh seeds
    largest: float
    point: int  # number of the trial that it is largest of


def correction(confirmed: Collection[Confirmed]) -> Correction | None:
    """What fresh seeds take from the accuracies of points that were chosen for them; None where there are none."""
    lost = {each.point: each.searched - each.accuracy.mean for each in confirmed}
    if not lost:
        return None
    seeds = [each.n for each in confirmed]
    worst = max(lost, key=lambda number: lost[number])
    return Correction(len(lost), (min(seeds), max(seeds)), fmean(lost.values()), lost[worst], worst)


def alike(accuracies: Iterable[Interval]) -> list[bool]:
    """Which of these intervals, by rising cost, reach down to that of a cheaper point: a group has a first."""
    marks: list[bool] = []
    leader = None
    for interval in accuracies:
        marks.append(leader is not None and interval[0] <= leader[1])
        leader = leader if marks[-1] else interval
    return marks


def _tested(tests: Sequence[Mapping[str, Any]], metric: str) -> Estimate | None:
    """The mean accuracy on the test split."""
    if not tests:
        return None
    mean = fmean(test[ACCURACIES[metric]] for test in tests)
    return Estimate(mean, wilson(mean, tests[-1]["n"]))


def _quiet(group: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    """The runs that nothing disturbed, or all where there are none."""
    return [trial for trial in group if not trial.user_attrs.get(records.NOISY)] or group


def _seconds_left(trials: Sequence[FrozenTrial], share: float) -> float:
    """Seconds that further confirmations may take. One that has not ended, or failed, counts as its first."""
    searched, spent = 0.0, 0.0
    for trial in trials:
        if records.is_searched(trial):
            searched += records.seconds(trial)
        elif records.is_confirmation(trial) and not records.is_free(trial):
            spent += records.seconds(trial) or records.seconds(trials[trial.user_attrs[records.CONFIRM_OF]])
    return share * searched - spent


def n_begun(trials: Sequence[FrozenTrial], *, ended: bool = False) -> Counter[int]:
    """Confirmations of each first trial; one that was lost or crashed, and was tried again, is one with its retry."""
    retried = {trial.user_attrs.get(records.RETRY_OF) for trial in trials}
    return Counter(
        int(t.user_attrs[records.CONFIRM_OF])
        for t in trials
        if records.is_confirmation(t) and t.number not in retried and (t.state.is_finished() or not ended)
    )
