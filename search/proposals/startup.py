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


def missing(candidate: Candidate[Any], tried: Counter[Choice]) -> int:
    """How many tries a candidate would add to choices that lack them."""
    return sum(tried[choice] < TIMES for choice in _choices(candidate.params, candidate.distributions))


def covering(draws: Sequence[Candidate[T]], costs: Sequence[float], tried: Counter[Choice]) -> Candidate[T]:
    """Of the cheap draws the one that tries most of what lacks tries; a dear one where no cheap one tries anything."""
    by_cost = sorted(range(len(draws)), key=costs.__getitem__)
    cheap = by_cost[: max(1, round(CHEAP_SHARE * len(draws)))]
    best = max(cheap, key=lambda i: missing(draws[i], tried))
    if missing(draws[best], tried) == 0:
        best = max(by_cost, key=lambda i: missing(draws[i], tried))
    if missing(draws[best], tried) == 0:
        best = min(cheap)  # a draw at random among the cheap: they come unsorted
    return draws[best]


def _choices(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> list[Choice]:
    return [
        (name, type(value), value)
        for name, value in params.items()
        if isinstance(distributions.get(name), CategoricalDistribution)
    ]
