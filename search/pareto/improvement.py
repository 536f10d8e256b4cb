"""What a trial is worth before it has run: the expected improvement of the hypervolume, in closed form."""

from __future__ import annotations

from itertools import pairwise
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def expected_improvement(mean: Array, spread: Array, front: Array) -> Array:
    """Expected growth of the area that a front dominates within the unit square, of points of uncertain place: [n].

    Both coordinates are maximised; what lies beyond 1 counts as 1, what lies below 0 for nothing.

    The growth is the integral over the square's undominated part of the chance that the point lies above it in both
    coordinates. Between two neighbours of the front that part is a rectangle, over which the integral falls into a
    product of one integral per coordinate, as coordinates are independent.

    Args:
        mean: [n, 2] expected coordinates.
        spread: [n, 2] their standard deviations, above 0.
        front: [m, 2] points; dominated ones and those outside change nothing.
    """
    inside = front[(front > 0).all(1)]
    steps = staircase(np.minimum(inside, 1.0))
    total = np.zeros(len(mean))
    for (left, height), (right, _) in pairwise(steps):
        across = _above(mean[:, 0], spread[:, 0], left) - _above(mean[:, 0], spread[:, 0], right)
        total += across * (_above(mean[:, 1], spread[:, 1], height) - _above(mean[:, 1], spread[:, 1], 1.0))
    return np.maximum(total, 0.0)


def staircase(front: Array) -> list[tuple[float, float]]:
    """(where a step begins, height of the front on it) from left to right over [0, 1]; last the right end, (1, 0)."""
    steps: list[tuple[float, float]] = []
    height = 0.0
    for first, second in sorted(front.tolist(), reverse=True):  # from the right: the front rises towards the left
        if second > height:
            steps.append((first, height))
            height = second
    edges = [0.0, *(at for at, _ in reversed(steps))]
    heights = [height, *(low for _, low in reversed(steps))]
    return [*zip(edges, heights, strict=True), (1.0, 0.0)]


def _above(mean: Array, spread: Array, limit: float) -> Array:
    """E[max(X - limit, 0)] of normal X: the integral of P(X > t) over t from `limit` on."""
    from scipy.special import ndtr

    z = (mean - limit) / spread
    return np.asarray(spread * (z * ndtr(z) + np.exp(-0.5 * z**2) / sqrt(2 * pi)))
