"""How much of a hypervolume is luck: by resampling what a search tried, and the seeds that it was tried with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from search.pareto.front import Box, Outcome, hypervolume
from search.pareto.intervals import LEVEL, Interval

Array = NDArray[np.float64]

N_RESAMPLED = 1000


@dataclass(frozen=True)
class Run:
    """A finished run, and what fresh seeds of its pipeline came to."""

    trial: int
    cost: float
    accuracy: float
    again: tuple[tuple[float, float], ...] = ()  # (cost, accuracy) of each fresh seed

    @property
    def mean(self) -> Outcome:
        """What is known of it: the mean of fresh seeds, else what the search measured."""
        told = self.again or ((self.cost, self.accuracy),)
        return Outcome(self.trial, fmean(cost for cost, _ in told), fmean(accuracy for _, accuracy in told))


@dataclass(frozen=True)
class Searched:
    """What a search came to."""

    runs: tuple[Run, ...]  # that finished
    n_trials: int  # of all kinds: those that were stopped or failed were tried, too
    n_images: int  # that validate

    def volume(self, box: Box) -> float:
        """The share of a box that its runs dominate."""
        return hypervolume([run.mean for run in self.runs], box)

    def resampled(self, box: Box, seed: int, n: int = N_RESAMPLED) -> Array:
        """[n] shares of the box that as many trials might have dominated: a bootstrap (Efron 1979).

        Drawn with replacement are the trials and, of each that has them, its fresh seeds; of one that has none, the
        images that it was measured by, else what was luckiest counts as certain. Draws leave parts of the front out:
        their mean lies below what was found.

        Two searches of the same pipelines, in a made-up world of 16 to 64 trials and 400 images, were told apart by the
        interval of their difference in 0 to 5 % of 80 pairs each, with two fresh seeds of the front and without; in 9
        to 11 % where images were not drawn.
        """
        rng = np.random.default_rng(seed)
        costs, accuracies = (np.array([getattr(run, name) for run in self.runs]) for name in ("cost", "accuracy"))
        repeated = [(i, np.array(run.again)) for i, run in enumerate(self.runs) if run.again]
        found = np.zeros(n)
        for at in range(n):
            is_drawn = np.zeros(self.n_trials, bool)
            is_drawn[rng.integers(0, self.n_trials, self.n_trials)] = True
            drawn = np.column_stack([costs, rng.binomial(self.n_images, accuracies) / self.n_images])
            for i, again in repeated:
                drawn[i] = again[rng.integers(0, len(again), len(again))].mean(0)
            drawn = drawn[is_drawn[: len(self.runs)]]
            found[at] = area(drawn[:, 0], drawn[:, 1], box)
        return found


def area(costs: Array, accuracies: Array, box: Box) -> float:
    """The share of a box that points [n] dominate, as `search.pareto.front.hypervolume` has it, but in numpy."""
    inside = (costs < box.slowest) & (accuracies > box.useful)
    order = np.argsort(costs[inside], kind="stable")
    speed = np.minimum(1.0, np.log(box.slowest / costs[inside][order]) / np.log(box.slowest / box.fastest))
    least, now, most = (
        np.log10((1.0 - each) * box.n_images + 0.5) for each in (box.useful, accuracies[inside][order], 1.0)
    )
    heights = np.maximum.accumulate((least - now) / (least - most)) if len(order) else np.zeros(0)
    return float(min(1.0, (speed * np.diff(heights, prepend=0.0)).sum()))


def interval(draws: Array) -> Interval:
    """The percentiles between which resampled values lie, but for one in twenty."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def shared(boxes: Sequence[Box]) -> Box:
    """The box that holds all of these, so that each loses nothing; of the coarsest of their accuracies."""
    return Box(
        min(box.fastest for box in boxes),
        max(box.slowest for box in boxes),
        min(box.useful for box in boxes),
        min(box.n_images for box in boxes),
    )
