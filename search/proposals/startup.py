"""The first trials of a search, before a model leads: cheap ones that together try every choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.proposals.draws import Candidate

T = TypeVar("T")
Choice = tuple[str, type, Any]  # parameter, type of the value (True is not 1), value

TIMES = 2  # that every choice is to be tried
CHEAP_SHARE = 0.4  # of the draws: start-up trials are among the cheapest; how much that saves was not measured here


def tries(trials: Sequence[tuple[Mapping[str, Any], Mapping[str, BaseDistribution]]]) -> Counter[Choice]:
    """How often each choice was tried, of (parameters, their distributions)."""
    return Counter(choice for params, distributions in trials for choice in _choices(params, distributions))


def missing(candidate: Candidate[Any], tried: Counter[Choice]) -> tuple[int, int]:
    """How many tries a candidate would add to choices that lack them: to those of no group, and to all.

    `prune.interval` is of the group `prune`: whether to prune is tried before how. Where the space offers forty
    strategies that refuse each other, their settings took the trials that the last of them needed.
    """
    lacking = [each[0] for each in _choices(candidate.params, candidate.distributions) if tried[each] < TIMES]
    return sum("." not in name for name in lacking), len(lacking)


def covering(draws: Sequence[Candidate[T]], costs: Sequence[float], tried: Counter[Choice]) -> Candidate[T]:
    """Of the cheap draws the one that tries most of what lacks tries; a dear one where no cheap one tries anything."""
    by_cost = sorted(range(len(draws)), key=costs.__getitem__)
    cheap = by_cost[: max(1, round(CHEAP_SHARE * len(draws)))]
    lacks = [missing(each, tried) for each in draws]
    best = max(cheap, key=lacks.__getitem__)
    if lacks[best][0] == 0 < max(lacks)[0] or lacks[best][1] == 0:
        best = max(by_cost, key=lacks.__getitem__)
    if lacks[best][1] == 0:
        best = min(cheap)  # a draw at random among the cheap: they come unsorted
    return draws[best]


def _choices(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> list[Choice]:
    return [
        (name, type(value), value)
        for name, value in params.items()
        if isinstance(distributions.get(name), CategoricalDistribution)
    ]
