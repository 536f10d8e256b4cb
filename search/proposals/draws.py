"""Candidates: what a define-by-run space would choose, found by running it with trials that only take notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any, Generic, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

T = TypeVar("T")
Value = Any  # of a parameter: whatever Optuna can store
NEAR_SHARES = (0.03, 0.1, 0.3)  # chance that a parameter near a parent is drawn anew: one of these for all of a draw
NEAR_SPREAD = 0.15  # of the range: how far a number moves otherwise, in half of the cases


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """What a space chose."""

    params: Mapping[str, Value]
    distributions: Mapping[str, BaseDistribution]
    chosen: T  # what the space returned


class Draw:
    """The part of an Optuna trial that spaces use, drawn at random, or near a parent; it notes what it is asked.

    Parameters that are settled have the value given, wherever the distribution has it.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        parent: Mapping[str, Value] | None = None,
        settled: Mapping[str, Value] | None = None,
    ) -> None:
        self._rng, self._parent, self._settled = rng, parent or {}, settled or {}
        self._share = NEAR_SHARES[int(rng.integers(len(NEAR_SHARES)))] if parent else 1.0
        self.params: dict[str, Value] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        return self.suggest(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self.suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest(self, name: str, distribution: BaseDistribution) -> Value:
        """The value of a parameter, the same whenever it is asked for."""
        if name not in self.params:
            self.distributions[name] = distribution
            self.params[name] = self._value(name, distribution)
        return self.params[name]

    def _value(self, name: str, distribution: BaseDistribution) -> Value:
        if name in self._settled and _holds(distribution, self._settled[name]):
            return self._settled[name]
        before = self._parent.get(name)
        if before is None or not _holds(distribution, before) or self._rng.random() < self._share:
            return drawn(distribution, self._rng)
        if isinstance(distribution, CategoricalDistribution) or self._rng.random() < 0.5:
            return before
        moved = position(distribution, before) + NEAR_SPREAD * self._rng.standard_normal()
        return at(distribution, min(1.0, max(0.0, moved)))


def candidate(space: Callable[[Any], T], draw: Draw) -> Candidate[T]:
    """What the space chooses with that trial."""
    chosen = space(draw)
    return Candidate(draw.params, draw.distributions, chosen)


def drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Value:
    """A value drawn evenly, on a logarithmic scale where the distribution has one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    return at(distribution, float(rng.random()))


def position(distribution: BaseDistribution, value: Value) -> float:
    """Where a number lies in its range, on the scale of the distribution: 0 the lowest, 1 the highest."""
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high = _ends(distribution)
    if high <= low:
        return 0.5
    number = log(value) if distribution.log and value > 0 else float(value)
    return (number - low) / (high - low)


def at(distribution: BaseDistribution, where: float) -> Value:
    """The number at a position in the range; the inverse of `position`, up to the distribution's steps.

    Whole numbers have equal shares of the range.
    """
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    low, high = _ends(distribution)
    number = low + (high - low) * where
    number = exp(number) if distribution.log else number
    if isinstance(distribution, IntDistribution) or distribution.step is not None:
        step = distribution.step or 1
        number = distribution.low + step * round((number - distribution.low) / step)
    number = min(max(number, distribution.low), distribution.high)
    return int(number) if isinstance(distribution, IntDistribution) else float(number)


def _ends(distribution: IntDistribution | FloatDistribution) -> tuple[float, float]:
    """The range as `at` divides it: half a step beyond both ends where there are steps."""
    margin = 0.5 * (distribution.step or 0.0)
    low, high = distribution.low - margin, distribution.high + margin
    return (log(low), log(high)) if distribution.log else (low, high)


def _holds(distribution: BaseDistribution, value: Value) -> bool:
    """Whether the distribution has the value."""
    if isinstance(distribution, CategoricalDistribution):
        return any(
            choice is value or (choice == value and type(choice) is type(value)) for choice in distribution.choices
        )
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and bool(distribution._contains(float(value)))
    )
