"""Dominance, the Pareto front and its hypervolume, for two objectives: fewer training seconds, higher accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Outcome:
    """A finished trial as a point.

    Raises:
        ValueError: a value is not finite or out of range; Optuna itself would accept it and put it on the front.
    """

    trial: int  # number of the trial within its study
    train_seconds: float  # charged to the whole run, above 0
    accuracy: float  # on the validation images when the run ended, in [0, 1]

    def __post_init__(self) -> None:
        if not 0.0 < self.train_seconds < math.inf:  # also refuses NaN
            raise ValueError(f"trial {self.trial} took {self.train_seconds} s: seconds must be positive and finite")
        if not 0.0 <= self.accuracy <= 1.0:
            raise ValueError(f"trial {self.trial} has accuracy {self.accuracy}: it must lie between 0 and 1")


@dataclass(frozen=True)
class Reference:
    """The worst corner of the box in which hypervolume is counted: fixed and stored when the baseline has run.

    Raises:
        ValueError: a value is not finite or out of range.
    """

    train_seconds: float  # above 0
    accuracy: float  # the floor, in [0, 1)

    def __post_init__(self) -> None:
        if not 0.0 < self.train_seconds < math.inf:
            raise ValueError(f"reference of {self.train_seconds} s: seconds must be positive and finite")
        if not 0.0 <= self.accuracy < 1.0:
            raise ValueError(f"reference accuracy is {self.accuracy}: it must be at least 0 and below 1")


def dominates(a: Outcome, b: Outcome) -> bool:
    """Whether `a` is at least as good as `b` in both objectives and better in one."""
    no_worse = a.train_seconds <= b.train_seconds and a.accuracy >= b.accuracy
    return no_worse and (a.train_seconds < b.train_seconds or a.accuracy > b.accuracy)


def front(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """The outcomes that no other dominates, by rising seconds (so by rising accuracy); of equal points the earliest."""
    chosen: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda o: (o.train_seconds, -o.accuracy, o.trial)):
        if not chosen or outcome.accuracy > chosen[-1].accuracy:
            chosen.append(outcome)
    return tuple(chosen)


def best_within(outcomes: Iterable[Outcome], seconds: float) -> float | None:
    """F(seconds): the best accuracy among outcomes that took no longer; None where all took longer."""
    return max((o.accuracy for o in outcomes if o.train_seconds <= seconds), default=None)


def hypervolume(outcomes: Iterable[Outcome], reference: Reference) -> float:
    """The area of (log10 seconds, accuracy) that the outcomes dominate, down to `reference`.

    Seconds count by their logarithm, so that halving the time is worth the same at 10 s and at 1000 s. Outcomes outside
    the box (slower or less accurate than the reference) contribute nothing.
    """
    inside = [o for o in outcomes if o.train_seconds < reference.train_seconds and o.accuracy > reference.accuracy]
    area, below = 0.0, reference.accuracy
    for outcome in front(inside):  # each adds the strip between its accuracy and that of the next faster one
        area += math.log10(reference.train_seconds / outcome.train_seconds) * (outcome.accuracy - below)
        below = outcome.accuracy
    return area


def normalised_hypervolume(outcomes: Iterable[Outcome], reference: Reference, fastest_seconds: float) -> float:
    """The hypervolume as a share of the box from `reference` down to `fastest_seconds` and up to accuracy 1.

    `fastest_seconds` is the time of the fastest anchor. Outcomes faster than that count as if they were as fast: what
    they dominate beyond the box is no part of it, and the share is never above 1.

    Raises:
        ValueError: the box is empty.
    """
    if not 0.0 < fastest_seconds < reference.train_seconds:
        limit = reference.train_seconds
        raise ValueError(f"the fastest anchor took {fastest_seconds} s: it must be below the reference of {limit} s")
    box = math.log10(reference.train_seconds / fastest_seconds) * (1.0 - reference.accuracy)
    inside = [replace(o, train_seconds=max(o.train_seconds, fastest_seconds)) for o in outcomes]
    return min(1.0, hypervolume(inside, reference) / box)  # a rounding above 1 is none
