"""Dominance, the Pareto front and its hypervolume, for two objectives: a lower cost, a higher accuracy.

The cost is seconds of training or FLOPs of an inference, as the kind of the study says: see `pareto.kinds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A finished trial as a point.

    Raises:
        ValueError: a value is not finite or out of range; Optuna itself would accept it and put it on the front.
    """

    trial: int  # number of the trial within its study
    cost: float  # device seconds charged to the whole run, or FLOPs of an inference: see pareto.kinds; above 0
    accuracy: float  # on the validation images when the run ended, in [0, 1]

    def __post_init__(self) -> None:
        if not 0.0 < self.cost < math.inf:  # also refuses NaN
            raise ValueError(f"trial {self.trial} cost {self.cost}: a cost must be positive and finite")
        if not 0.0 <= self.accuracy <= 1.0:
            raise ValueError(f"trial {self.trial} has accuracy {self.accuracy}: it must lie between 0 and 1")


def error_rate(accuracy: float, n_images: int) -> float:
    """The share of images that a network gets wrong, as so many validation images tell it: never 0.

    Half an image is added to the wrong and to the right ones each (Jeffreys' rule but for its quarter): where nothing
    was wrong, the rate is that of half an image, and fronts of a few hundred images do not reach for infinity.
    """
    return ((1.0 - accuracy) * n_images + 0.5) / (n_images + 1.0)


@dataclass(frozen=True)
class Box:
    """The region of interest: what counts in the hypervolume. Fixed when a study is created.

    Both axes are decades: of the cost, and of the share of images that the network gets wrong. In accuracy the step
    from 95 to 99 % would weigh as much as a twentieth of the way from 0 to 100 %; here it weighs as much as to be five
    times as fast, and to halve the errors as much as to halve the seconds (benchmarks/search.md).

    Raises:
        ValueError: the box is empty, or a value is not finite or out of range.
    """

    fastest: float  # cost; what is below counts as if it cost so much
    slowest: float  # cost; what is above counts for nothing
    useful: float  # accuracy; what is less accurate counts for nothing, in [0, 1)
    n_images: int  # of the validation split: how fine accuracies are

    def __post_init__(self) -> None:
        if not 0.0 < self.fastest < self.slowest < math.inf:
            raise ValueError(f"a box from {self.fastest} to {self.slowest} s: it must have an extent")
        if not 0.0 <= self.useful < 1.0 or self.n_images < 1:
            raise ValueError(f"a box from accuracy {self.useful} of {self.n_images} images: it must have an extent")

    def speed(self, seconds: float) -> float:
        """Where seconds lie in the box: 0 at the slowest, 1 at the fastest and beyond; below 0 outside."""
        return min(1.0, math.log(self.slowest / seconds) / math.log(self.slowest / self.fastest))

    def quality(self, accuracy: float) -> float:
        """Where an accuracy lies in the box: 0 at what is useful, 1 where all images are right; below 0 outside."""
        least, now, most = (error_rate(each, self.n_images) for each in (self.useful, accuracy, 1.0))
        return math.log(least / now) / math.log(least / most)


def dominates(a: Outcome, b: Outcome) -> bool:
    """Whether `a` is at least as good as `b` in both objectives and better in one."""
    no_worse = a.cost <= b.cost and a.accuracy >= b.accuracy
    return no_worse and (a.cost < b.cost or a.accuracy > b.accuracy)


def front(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """The outcomes that no other dominates, by rising seconds (so by rising accuracy); of equal points the earliest."""
    chosen: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda o: (o.cost, -o.accuracy, o.trial)):
        if not chosen or outcome.accuracy > chosen[-1].accuracy:
            chosen.append(outcome)
    return tuple(chosen)


def best_within(outcomes: Iterable[Outcome], seconds: float) -> float | None:
    """F(seconds): the best accuracy among outcomes that took no longer; None where all took longer."""
    return max((o.accuracy for o in outcomes if o.cost <= seconds), default=None)


def hypervolume(outcomes: Iterable[Outcome], box: Box) -> float:
    """The share of the box that the outcomes dominate, in [0, 1]. Those outside contribute nothing."""
    inside = [o for o in outcomes if o.cost < box.slowest and o.accuracy > box.useful]
    area, below = 0.0, 0.0
    for outcome in front(inside):  # each adds the strip between its quality and that of the next faster one
        quality = box.quality(outcome.accuracy)
        area += box.speed(outcome.cost) * (quality - below)
        below = quality
    return min(1.0, area)  # a rounding above 1 is none
