"""Where a training that was stopped would have ended: its seconds and its errors, with how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev

from search.pareto.curves import Curve, gain_ratio
from search.pareto.front import error_rate

FEW = 5  # curves that tell: with fewer, what is usual is expected
USUAL_GAIN, USUAL_SPREAD = -0.15, 0.3  # decades of error from where a training stands to its end: a guess
LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class Forecast:
    """The end of a training, in decades."""

    log_seconds: float
    log_error: float
    error_spread: float  # standard deviation


def forecast(curve: Curve, finished: Sequence[Curve], n_images: int) -> Forecast:
    """The end that a curve is heading for, if it gains what those that finished gained from its share of the run on.

    `n_images`: of the validation split.
    """
    last, best = curve[-1], max(point.accuracy for point in curve)
    seconds = last.train_seconds / last.epoch * last.epochs
    ratios = [ratio for other in finished if (ratio := gain_ratio(other, last.fraction)) is not None]
    gains = [math.log10(max(ratio, 1e-3)) for ratio in ratios]
    gain, spread = (median(gains), pstdev(gains, fmean(gains))) if len(gains) >= FEW else (USUAL_GAIN, USUAL_SPREAD)
    now = math.log10(error_rate(best, n_images))
    least = math.log10(error_rate(1.0, n_images))
    return Forecast(math.log10(seconds), max(least, now + gain), max(spread, LEAST_SPREAD))
