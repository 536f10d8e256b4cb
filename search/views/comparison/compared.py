"""Two fronts beside each other: what they dominate, how good they are at which cost, what strategies did in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

from search.pareto import resampling
from search.pareto.choice import chosen
from search.pareto.front import Box, hypervolume
from search.pareto.intervals import LEVEL, NORMAL, Estimate
from search.pareto.resampling import Run, Searched
from search.proposals.effects import Change, Effect, effects
from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing import points
from search.views.drawing.points import Shown
from search.views.report import budgets

SEEDS = (1, 2)  # of the draws of each study


@dataclass(frozen=True)
class Side:
    """One of the two studies."""

    now: Snapshot
    name: str  # that tells it from the other

    @cached_property
    def searched(self) -> Searched:
        """What its search came to, for resampling."""
        again: dict[int, list[tuple[float, float]]] = {}
        for trial in self.now.trials:
            if records.is_confirmation(trial) and records.is_finished_run(trial):
                again.setdefault(trial.user_attrs[records.CONFIRM_OF], []).append((trial.values[0], trial.values[1]))
        runs = [
            Run(trial.number, trial.values[0], trial.values[1], tuple(again.get(records.first(trial), ())))
            for trial in self.now.points
        ]
        return Searched(tuple(runs), max(self.now.n_counted, len(runs)), self.now.n_sure)

    @cached_property
    def front(self) -> Mapping[int, Shown]:
        """The points of its front, by the number of their trials."""
        return {each.number: each for each in points.on_front(self.now)}

    @cached_property
    def effects(self) -> Mapping[str, Effect]:
        """What each strategy did."""
        return {each.switch: each for each in effects(self.now)}

    @cached_property
    def spent(self) -> list[tuple[int, float]]:
        """(number of a trial of the search, seconds of all up to it), in order."""
        total, found = 0.0, []
        for trial in self.now.trials:
            if not records.only_says_more(trial):
                total += records.seconds(trial)
                found.append((trial.number, total))
        return found

    @property
    def seconds(self) -> float:
        """That all trainings of its search took."""
        return self.spent[-1][1] if self.spent else 0.0

    def volume_after(self, seconds: float, box: Box) -> float:
        """The share of a box that it dominated, as the search measured, after so many seconds."""
        done = {number for number, total in self.spent if total <= seconds * (1 + 1e-9)}
        return hypervolume([each for each in self.now.outcomes if each.trial in done], box)

    def best(self, cost: float) -> Shown | None:
        """The most accurate of its front that costs no more."""
        choice = chosen(self.now.candidates, cost)
        return None if choice is None else self.front[choice.best.trial]


@dataclass(frozen=True)
class Within:
    """How good both are at a cost."""

    cost: float
    words: str
    a: Shown | None  # None: everything costs more
    b: Shown | None

    @property
    def difference(self) -> Estimate | None:
        """Accuracy of A less that of B; None where one has nothing."""
        if self.a is None or self.b is None:
            return None
        middle = self.a.accuracy.mean - self.b.accuracy.mean
        half = math.hypot(self.a.accuracy.half or 0.0, self.b.accuracy.half or 0.0)
        return Estimate(middle, (middle - half, middle + half))


@dataclass(frozen=True)
class Moved:
    """What a strategy did in A beside what it did in B; both have runs enough to tell."""

    switch: str
    a: Effect
    b: Effect
    n_looks: int  # differences that are looked at together

    @property
    def seconds(self) -> Change:
        """Decades of seconds that it brought in A, less those in B."""
        return _less(self.a.seconds, self.b.seconds)

    @property
    def error(self) -> Change:
        """Likewise of error."""
        return _less(self.a.error, self.b.error)

    def holds(self, change: Change) -> bool:
        """Whether it is sure that there is a difference, all that are looked at together (Bonferroni)."""
        wider = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * self.n_looks)) / NORMAL
        return abs(change.mean) > wider * change.half


def _less(one: Change | None, other: Change | None) -> Change:
    assert one is not None
    assert other is not None
    return Change(one.mean - other.mean, math.hypot(one.half, other.half))


@dataclass(frozen=True)
class Comparison:
    """Two studies, compared in one box."""

    a: Side
    b: Side
    box: Box  # holds those of both
    obstacles: Sequence[str]  # why they should not be compared; none where they may be
    remarks: Sequence[str]

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.a, self.b

    @cached_property
    def volumes(self) -> tuple[Estimate, Estimate]:
        """The share of the box that each front dominates; fresh seeds count where there are any."""
        return self._estimate(0), self._estimate(1)

    def _estimate(self, at: int) -> Estimate:
        return Estimate(self.sides[at].searched.volume(self.box), resampling.interval(self._draws[at]))

    @cached_property
    def _draws(self) -> tuple[resampling.Array, ...]:
        return tuple(side.searched.resampled(self.box, seed) for side, seed in zip(self.sides, SEEDS, strict=True))

    @cached_property
    def difference(self) -> Estimate:
        """The share of A less that of B."""
        one, two = self.volumes
        return Estimate(one.mean - two.mean, resampling.interval(self._draws[0] - self._draws[1]))

    @cached_property
    def equally(self) -> tuple[float, float, float]:
        """(seconds, shares of A and of B), as their searches measured them, once both had taken so many seconds."""
        seconds = min(side.seconds for side in self.sides)
        return seconds, self.a.volume_after(seconds, self.box), self.b.volume_after(seconds, self.box)

    @cached_property
    def within(self) -> list[Within]:
        """By rising cost, where either of them has something new."""
        costs: dict[float, str] = {}
        for side in self.sides:
            for answer in budgets.answers(side.now):
                if answer.is_new:
                    costs[answer.within] = answer.words
        found: list[Within] = []
        for cost, words in sorted(costs.items()):
            now = Within(cost, words, self.a.best(cost), self.b.best(cost))
            if not found or (now.a, now.b) != (found[-1].a, found[-1].b):
                found.append(now)
        return found

    @cached_property
    def moved(self) -> list[Moved]:
        """Strategies of which both studies have something to say."""
        both = [name for name, each in self.a.effects.items() if _is_told(each) and _is_told(self.b.effects.get(name))]
        return [Moved(name, self.a.effects[name], self.b.effects[name], 2 * len(both)) for name in both]


def _is_told(effect: Effect | None) -> bool:
    return effect is not None and effect.seconds is not None and effect.error is not None
