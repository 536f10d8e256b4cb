"""What a training on all images promises, whose accuracy nobody can measure: fresh seeds say, and more images add."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from search.pareto.expectation import SEEDS
from search.pareto.intervals import NORMAL, Interval, wilson

# Assumed, not measured here: errors fall as images to the power of -0.25, by 5 % with a quarter more of them.
POWER, POWER_SPREAD = 0.25, 0.15
# What networks gain that tell an image by that and its mirror image, where flips fit: accuracy, and its spread. On
# CIFAR-10 41 networks gained -1.0 to 2.8 points, 1.2 in the mean (benchmarks/ten_minutes.md).
SIDES = (0.01, 0.01)


def n_whole(data: Mapping[str, Any], n_splits: int) -> int:
    """Images of a training on all: those of the first split, its validation included. `data`: the facts about them."""
    return int(data["n_train"] + math.ceil(data["n_val"] / n_splits))


def expected(measured: float, more: float) -> float:
    """The accuracy after a training on so many times the images, of one that was measured."""
    return float(1 - (1 - measured) * more**-POWER)


def spread(measured: Sequence[float], n_val: int) -> float:
    """Decades of error between seeds that reached these accuracies: as they tell, and no less than is believed."""
    errors = [math.log10(max(1 - each, 0.5 / n_val)) for each in measured]
    return max(SEEDS, stdev(errors)) if len(errors) > 1 else SEEDS


@dataclass(frozen=True)
class Promise:
    """An accuracy that is expected, with its interval of 95 %."""

    accuracy: float
    interval: Interval
    measured: float  # the accuracy that it comes from
    n_seeds: int  # fresh ones that it was measured with; 0: the run that was chosen for it


def promised(
    measured: float,
    n_seeds: int,
    n_val: int,
    n_train: int,
    n: int,
    between: float = SEEDS,
    beside: float = 0.0,
) -> Promise:
    """What a pipeline of that accuracy on `n_val` images, trained on `n_train`, promises that is trained on all `n`.

    `n_val`: by which that accuracy is known, see `search.pareto.intervals.as_many`. `between`: decades of error between
    its seeds, where more is known of them than what is assumed. `beside`: spread of what is in `measured` and was seen
    otherwise.
    """
    more = math.log10(n / n_train)
    error = max(1 - measured, 0.5 / n_val)  # half an image where none was told wrongly, which `high` still allows
    low, high = wilson(measured, n_val)
    left = 1 - expected(1 - error, n / n_train)
    spread = math.hypot(between / math.sqrt(max(1, n_seeds)), between, POWER_SPREAD * more)  # decades
    half = NORMAL * math.hypot(spread * math.log(10) * left, beside)
    middle = 1 - left
    return Promise(
        middle,
        (max(0.0, middle - math.hypot(half, measured - low)), min(1.0, middle + math.hypot(half, high - 1 + error))),
        measured,
        n_seeds,
    )


@dataclass(frozen=True)
class Gain:
    """Accuracy gained by networks of a pipeline that tell an image by that and its mirror image."""

    measured: float
    expected: float  # on other images
    spread: float  # of what is expected


def both_sides(seen: Sequence[Mapping[str, Any]], which: str) -> Gain:
    """What networks of a pipeline gain by both sides of an image.

    `seen`: what each made of images that validate, see `search.workers.seam`; `which`: of the accuracies there. Few
    images say little: what is expected lies between what was measured and what is known of other networks.
    """
    measured = fmean(each["both"][which] - each["alone"][which] for each in seen)
    noise = fmean(each["noise"][which] for each in seen)  # the same images in all: no smaller for their number
    mean, spread = SIDES
    share = spread**2 / (spread**2 + noise)  # of what was measured
    return Gain(measured, share * measured + (1 - share) * mean, math.sqrt(share * noise))
