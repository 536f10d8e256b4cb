"""Parameters of define-by-run spaces as rows of numbers, for models that want a fixed number of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.proposals.draws import position

Array = NDArray[np.float64]
Params = Mapping[str, Any]

ABSENT = 0.5  # where a number stands that was not asked for: the middle, so that only whether it was asked tells
ONE_HOT = 0.5**0.5  # so that two choices are as far apart as both ends of a range


@dataclass(frozen=True)
class Encoding:
    """Which columns there are.

    A number has one, on the scale of its distribution; a choice of two has one, of more one each. Whether a parameter
    was asked at all has a column of its own where that differs between trials and no other column says the same.
    """

    ranges: Mapping[str, BaseDistribution]  # number -> a range that covers all that were seen
    choices: Mapping[str, tuple[Any, ...]]  # choice -> all values that were seen on offer
    names: tuple[str, ...]  # of the columns: of all that there could be those that differ between rows, each once

    @classmethod
    def of(cls, seen: Sequence[Mapping[str, BaseDistribution]], params: Sequence[Params]) -> Encoding:
        """The encoding of all that trials were offered; columns are kept that tell the given ones apart."""
        ranges: dict[str, BaseDistribution] = {}
        choices: dict[str, tuple[Any, ...]] = {}
        for distributions in seen:
            for name, distribution in distributions.items():
                if isinstance(distribution, CategoricalDistribution):
                    known = choices.get(name, ())
                    choices[name] = known + tuple(c for c in distribution.choices if not _among(c, known))
                else:
                    ranges[name] = _joined(ranges.get(name), distribution)
        kept: dict[bytes, str] = {}
        for name, column in cls(ranges, choices, ())._columns(params):
            if np.ptp(column) > 0:
                kept.setdefault(column.tobytes(), name)
        return cls(ranges, choices, tuple(kept.values()))

    def rows(self, params: Sequence[Params]) -> Array:
        """[len(params), columns]."""
        columns = [column for _, column in self._columns(params, set(self.names))]
        return np.stack(columns, axis=1) if columns else np.zeros((len(params), 0))

    def _columns(self, params: Sequence[Params], wanted: Set[str] | None = None) -> Iterator[tuple[str, Array]]:
        """(name, column) of those that are wanted, or of all that there could be."""
        for name, values in self.choices.items():
            unit = 1.0 if len(values) == 2 else ONE_HOT
            for choice in values[1:] if len(values) == 2 else values:
                label = f"{name} = {choice!r}"
                if wanted is None or label in wanted:
                    yield label, np.array([unit * (name in p and _same(p[name], choice)) for p in params], dtype=float)
        for name, distribution in self.ranges.items():
            if wanted is None or name in wanted:
                yield name, np.array([position(distribution, p[name]) if name in p else ABSENT for p in params])
            if wanted is None or f"{name}?" in wanted:
                yield f"{name}?", np.array([name in p for p in params], dtype=float)


def _joined(one: BaseDistribution | None, other: BaseDistribution) -> BaseDistribution:
    """A range that covers both; on a logarithmic scale where the latest is."""
    assert isinstance(other, (IntDistribution, FloatDistribution))
    if not isinstance(one, (IntDistribution, FloatDistribution)):
        return other
    if (one.low, one.high, one.log) == (other.low, other.high, other.log):
        return other
    low, high = min(one.low, other.low), max(one.high, other.high)
    return FloatDistribution(float(low), float(high), log=other.log and low > 0)


def _among(value: Any, known: Sequence[Any]) -> bool:
    return any(_same(value, each) for each in known)


def _same(one: Any, other: Any) -> bool:
    """Whether two choices are the same: True and 1 are not."""
    return type(one) is type(other) and (one == other or one != one)
