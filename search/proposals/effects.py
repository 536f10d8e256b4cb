"""What each strategy did in a study: seconds and errors of runs with it, beside what they would have been without."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from objectives.pipeline import Pipeline
from search.pareto.intervals import NORMAL
from search.proposals import interest
from search.proposals.draws import Draw, candidate
from search.proposals.experience import Experience, choosing
from search.proposals.proposal import Memory, Models, Pair, Settings, Tried, learned
from search.study.snapshot import Snapshot
from spaces.ingredients import EVERYTHING

FEW = 10  # runs, below which a study has nothing to say of effects
LEAST = 2  # runs with a strategy, likewise


@dataclass(frozen=True)
class Change:
    """A difference in decades, with half of its 95 % interval."""

    mean: float
    half: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval excludes that nothing changed."""
        return abs(self.mean) > self.half

    @property
    def factors(self) -> tuple[float, float, float]:
        """(middle, least, most) of the factor that the difference is."""
        return 10**self.mean, 10 ** (self.mean - self.half), 10 ** (self.mean + self.half)


@dataclass(frozen=True)
class Effect:
    """What a strategy did in the runs that had it."""

    switch: str  # its name in the space
    n: int  # runs with it that ended or were stopped
    seconds: Change | None = None  # None: too few runs to tell
    error: Change | None = None
    error_without: float = 1.0  # share of images that these runs would have got wrong without it, in the mean
    n_pairs: int = 0  # runs with a twin that differs in nothing but this strategy

    @property
    def points(self) -> tuple[float, float, float] | None:
        """(middle, least, most) of the points of accuracy that it brought."""
        if self.error is None:
            return None
        middle, least, most = self.error.factors
        gains = [100 * self.error_without * (1 - factor) for factor in (middle, most, least)]
        return gains[0], gains[1], gains[2]


def effects(now: Snapshot) -> list[Effect]:
    """The effect of each strategy that the space offers, by the models that proposals are made with.

    For each run with a strategy the models tell what the same pipeline comes to without it; the mean difference has the
    variance that the models' joint belief in both gives it, but not less than means of so many runs with and without
    have, by which the models miss what they have not seen: what a model of many columns expects of one of them it
    expects of all, whether there is evidence or not. Pairs that were really trained enter the models like all
    runs do.
    """

    def expect(pipeline: Pipeline) -> Pair:
        return math.log10(interest.forecast(pipeline, now.spec.task, now.given, None)), 0.0

    if now.box is None or len(now.points) < FEW or not now.kind.is_timed:
        return []
    tried = [each for each in Experience().tried(now, expect, plain=False) if each.values is not None]
    models = learned(tried, Settings(), Memory())
    offered = {name for each in tried for name in each.distributions if name in EVERYTHING}
    return [_effect(switch, tried, models, choosing(now), expect) for switch in EVERYTHING if switch in offered]


def _effect(
    switch: str,
    tried: Sequence[Tried],
    models: Models,
    choose: Callable[[Any], Pipeline],
    expect: Callable[[Pipeline], Pair],
) -> Effect:
    having = [each for each in tried if each.params.get(switch) is True]
    if len(having) < LEAST:
        return Effect(switch, len(having))
    without = [candidate(choose, Draw(np.random.default_rng(0), None, _without(switch, each))) for each in having]
    shift = np.array([each.expected for each in having]) - np.array([expect(each.chosen) for each in without])
    rows, twins = ([dict(each.params) for each in group] for group in (having, without))
    found = models.contrast(rows, twins)
    n = 1 / len(having) + 1 / max(1, len(tried) - len(having))
    errors = [process.error * n**0.5 for process in models.processes]
    changes = [
        Change(mean + float(shift[:, i].mean()), NORMAL * max(spread, errors[i]))
        for i, (mean, spread) in enumerate(found)
    ]
    means, _ = models.predict(twins, [expect(each.chosen) for each in without])
    known = {_key(each.params) for each in tried}
    n_pairs = sum(_key(twin) in known for twin in twins)
    return Effect(switch, len(having), changes[0], changes[1], 10 ** fmean(map(float, means[:, 1])), n_pairs)


def _without(switch: str, each: Tried) -> dict[str, Any]:
    """The parameters of a run, but without a strategy, and no other in its place."""
    kept = {name: value for name, value in each.params.items() if not f"{name}.".startswith(f"{switch}.")}
    return {**dict.fromkeys(EVERYTHING, False), **kept}


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted((name, value) for name, value in params.items() if value is not False))
