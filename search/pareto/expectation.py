"""What one more run of each pipeline is expected to reach: by all runs of it, and of those that are like it.

A single run is noisy, and the best of several is the luckiest as well: of 2, 3 and 8 epochs on Fashion-MNIST one fresh
seed each chose the 3 (87.5 %, and 87.3 % for the 8), though the 8 had been ahead before, 88.7 to 88.1 % (2026-11-27).
Three epochs were then trained on all images, with time left for more. So errors, in decades, are taken for a straight
line in decades of epochs, of a slope that is believed beforehand, in pipelines that differ in nothing else but
augmentation, for what each has of its own, and for noise: the mean of the Gaussian that the runs leave.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np

# By runs on CIFAR-10 and Fashion-MNIST, a decade of epochs gains .29 and .15 decades of error up to 12 epochs, .04 from
# 24 to 60; by later ones on Fashion-MNIST .04 from 3 epochs to 5, nothing from 5 to 10 (benchmarks/ten_minutes.md).
# Epochs count as far as they gain: see `records.learning_decades`.
LEARNING = (0.17, 0.1)  # gain of a decade of epochs, up to enough of them; its spread
# Decades of error: spread of seeds, and the share of what images drawn anew would change that is left where all runs
# have the same. Set by pairs of seeds at errors of 1 to 30 % (benchmarks/noise.md).
SEEDS, SAME = 0.018, 0.5
LEAST_ERROR = 1e-3
APART = 0.3  # decades of error: spread of pipelines that are not alike; assumed, wide
OWN = 0.02  # likewise, of what a pipeline has beside its line: augmentation; assumed
QUANTILES = np.array([NormalDist().inv_cdf((n + 0.5) / 64) for n in range(64)])  # of what one more run may tell


@dataclass(frozen=True)
class Runs:
    """All runs of a pipeline."""

    like: Hashable  # equal for pipelines that differ in epochs and augmentation alone
    decades: float  # of epochs, up to enough of them
    accuracies: tuple[float, ...]  # of the first run, and of fresh seeds


def decades_of_error(accuracy: float) -> float:
    """The logarithm of an error; of none at all that of the least that counts."""
    return math.log10(max(1 - accuracy, LEAST_ERROR))


def noise_of(error: float, n_val: int) -> float:
    """Decades of error between two runs of a pipeline of that error, a share, that the same images validate."""
    error = min(max(error, 0.5 / n_val), 1 - 0.5 / n_val)  # half an image where none was wrong, or right
    images = math.sqrt((1 - error) / (error * n_val)) / math.log(10)
    return math.sqrt(2) * math.hypot(SEEDS, SAME * images)


def expected(pipelines: Sequence[Runs], n_val: int) -> list[float]:
    """The accuracy that one more run of each pipeline is expected to reach. `n_val`: images that validate."""
    if not pipelines:
        return []
    errors, _, _ = _believed(pipelines, n_val)
    return [float(1 - 10**each) for each in errors]


def worth_another(pipelines: Sequence[Runs], n_val: int) -> list[float]:
    """Decades of error that the one chosen is expected to be better by, once each pipeline has run once more.

    The choice can change by what such a run tells of a pipeline, and of its like (Frazier et al. 2009, knowledge
    gradient for correlated beliefs).
    """
    if not pipelines:
        return []
    errors, between, noise = _believed(pipelines, n_val)
    moves = between / np.sqrt(np.diag(between) + noise)  # of all, a column for each, by a standard deviation
    best = (errors[:, None, None] + moves[:, :, None] * QUANTILES).min(axis=0)
    return [float(errors.min() - each) for each in best.mean(axis=-1)]


def _believed(pipelines: Sequence[Runs], n_val: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decades of error of each pipeline that all runs leave: means, covariance, and the variance of a run of each."""
    errors = np.array([fmean(map(decades_of_error, each.accuracies)) for each in pipelines])
    epochs = np.array([each.decades for each in pipelines])
    epochs = epochs - epochs.mean()
    slope, spread = LEARNING
    believed = errors.mean() - slope * epochs
    alike = np.array([[one.like == other.like for other in pipelines] for one in pipelines])
    between = APART**2 * alike + spread**2 * np.outer(epochs, epochs) + OWN**2 * np.eye(len(pipelines))
    noise = np.array([noise_of(10**error, n_val) ** 2 / 2 for error in errors])
    noisy = between + np.diag(noise / [len(each.accuracies) for each in pipelines])
    told = np.linalg.solve(noisy, np.column_stack([errors - believed, between]))
    return believed + between @ told[:, 0], between - between @ told[:, 1:], noise
