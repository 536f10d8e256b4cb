"""Which point of a front to take: the most accurate that costs so much, or the cheapest that is accurate enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.pareto.intervals import Interval


@dataclass(frozen=True)
class Candidate:
    """A point of a front with what is known of it: means of fresh seeds where it has them, else its own trial."""

    trial: int  # number of its trial
    cost: float  # what its kind of study minimises
    accuracy: float
    interval: Interval  # of 95 %, of the accuracy
    n_seeds: int  # fresh ones; 0: the trial that it was chosen for, which flatters it
    cost_interval: Interval | None = None  # where its spread is known


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what stands beside it."""

    best: Candidate
    cheaper: Candidate | None  # the most accurate of those that cost less
    dearer: Candidate | None  # the cheapest of those that are more accurate


def chosen(
    front: Sequence[Candidate],
    at_most: float | None = None,
    min_accuracy: float | None = None,
    within: float = 0.0,
) -> Choice | None:
    """The most accurate that costs so much at most, or the cheapest of at least an accuracy; None without one.

    `within`: so much less accuracy is as good, where it costs less; in [0, 1]. Without a limit it is the most
    accurate of all that is looked for.
    """
    able = [each for each in front if at_most is None or each.cost <= at_most]
    if not able:
        return None
    wanted = max(each.accuracy for each in able) if min_accuracy is None else min_accuracy
    enough = [each for each in able if each.accuracy >= wanted - within]
    if not enough:
        return None
    best = min(enough, key=lambda each: (each.cost, -each.accuracy))
    cheaper = [each for each in front if each.cost < best.cost]
    dearer = [each for each in front if each.accuracy > best.accuracy]
    return Choice(
        best,
        max(cheaper, key=lambda each: each.accuracy, default=None),
        min(dearer, key=lambda each: each.cost, default=None),
    )
