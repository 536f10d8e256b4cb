"""Intervals of 95 %: of a share of images, and of means over few trainings. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, median, variance

LEVEL = 0.95
NORMAL = 1.959963984540054  # the quantile of the normal distribution for that level, two-sided

LEAST_DEGREES = 3  # of freedom: from fewer, an interval is wider than what is known of a training anyway

Interval = tuple[float, float]  # low, high


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; None where too little is known of its spread."""

    mean: float
    interval: Interval | None

    @property
    def half(self) -> float | None:
        """Half of the interval's width."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean difference, one of several that are looked at."""

    is_sure: bool = False  # which way it goes, all of them taken together


def wilson(share: float, n: int) -> Interval:
    """The interval of a share that was seen in `n` images (Wilson 1927)."""
    z = NORMAL**2 / n
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(z * share * (1 - share) + z * z / 4) / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


def as_many(metric: str, by_class: Sequence[int], n: int) -> int:
    """Images whose share is known as well as an accuracy of that metric is of `n`, `by_class` so many of each class.

    A balanced accuracy is the mean of k recalls. Where these are alike, its variance is that of a share of
    k^2 / sum(1 / n_class) images: of classes of 130 and of 4 as of 16. Where classes are not told it counts as plain.
    """
    present = [each for each in by_class if each]
    if metric != "balanced" or not present:
        return n
    return max(1, round(len(present) ** 2 / math.fsum(1 / each for each in present)))


@cache
def student(degrees: int, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t with so many degrees of freedom."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """The probability of a value between -t and t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def of_costs(groups: Sequence[Sequence[float]]) -> list[Estimate]:
    """Means of seconds or FLOPs, a group for each pipeline. What seeds and neighbours change is a share of them."""
    return _of(groups, math.log, math.exp)


def of_accuracies(groups: Sequence[Sequence[float]]) -> list[Estimate]:
    """Means of accuracies, a group for each pipeline, on the scale where a share spreads alike wherever it lies."""
    return _of(groups, lambda share: math.asin(math.sqrt(share)), _share)


def of_differences(groups: Sequence[Sequence[float]]) -> list[Difference]:
    """Means of differences between pairs, a group for each pipeline that another one is compared with.

    Pairs share their other half: what it did by chance all groups have at once. So each interval holds for its group
    by itself, and which way a difference goes is sure where one of the level that all groups together need excludes
    that there is none (Bonferroni). Of 7 that did nothing, from 2 pairs each, one or more looked sure in 23 %
    of simulated layouts by the intervals alone, in 7.5 % so.
    """
    found = _of(groups, _same, _same, least=1)
    strict = _of(groups, _same, _same, least=1, level=1 - (1 - LEVEL) / max(1, len(groups)))
    return [Difference(one.mean, one.interval, _is_beside_none(all_)) for one, all_ in zip(found, strict, strict=True)]


def _same(difference: float) -> float:
    return difference


def _is_beside_none(estimate: Estimate) -> bool:
    return estimate.interval is not None and not estimate.interval[0] <= 0 <= estimate.interval[1]


def _share(angle: float) -> float:
    return math.sin(min(max(angle, 0.0), math.pi / 2)) ** 2


def _of(
    groups: Sequence[Sequence[float]],
    forth: Callable[[float], float],
    back: Callable[[float], float],
    least: int = LEAST_DEGREES,
    level: float = LEVEL,
) -> list[Estimate]:
    """Means of groups that have about one spread, which all of them tell: two values alone would be multiplied by 12.7.

    It is the median of theirs, so that one restless pipeline among steady ones makes only its own interval wide.
    """
    scaled = [[forth(value) for value in group] for group in groups]
    degrees = sum(len(group) - 1 for group in scaled)
    if degrees < least:
        return [Estimate(fmean(group), None) for group in groups]
    variances = [variance(values) if len(values) > 1 else None for values in scaled]
    usual = median(
        each / (1 - 2 / (9 * (len(values) - 1))) ** 3  # over the median of chi-squared per degree (Wilson and Hilferty)
        for each, values in zip(variances, scaled, strict=True)
        if each is not None
    )
    found = []
    for group, values, own in zip(groups, scaled, variances, strict=True):
        spread = math.sqrt(max(usual, own or 0.0))
        middle, each = fmean(values), student(degrees, level) * spread / math.sqrt(len(values))
        found.append(Estimate(fmean(group), (back(middle - each), back(middle + each))))
    return found
