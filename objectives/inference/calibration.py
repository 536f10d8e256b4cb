"""Probabilities that mean what they say: a temperature for the logits, fitted on images that a network never saw.

A network that is trained until its training images are right is surer than it is right on others. One number, by which
all logits are divided, mends most of that and changes no prediction (Guo et al. 2017, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

BOUNDS = 0.05, 20.0  # of a temperature: beyond, logits are noise or a certainty that no image supports
HALVINGS = 40  # of that range on its logarithmic scale: 5e-12 decades are left
FOLDS = 5
BINS = 15  # of equal width, as Guo et al. 2017 have them
NEUTRAL = 1.0  # the temperature that leaves probabilities as they are


@dataclass(frozen=True)
class Calibration:
    """By what logits are divided, and what that does to images which the temperature was not fitted on."""

    temperature: float
    n_images: int  # it was fitted on; 0: on none
    error_before: float | None = None  # expected calibration error at temperature 1; None: not measured
    error_after: float | None = None  # ... of each fold at the temperature of the others; None: not measured
    nll_before: float | None = None  # mean negative logarithm of the probability of the right class
    nll_after: float | None = None  # ... likewise
    source: str = "validation images, each fifth at the temperature of the other four"

    def to_json(self) -> dict[str, object]:
        """This as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object] | None) -> Calibration:
        """What `to_json` wrote; neutral where there is none, as in exports of before."""
        return cls(**plain) if plain else NONE  # type: ignore[arg-type]


NONE = Calibration(NEUTRAL, 0, source="never fitted")


def calibrated(logits: Tensor, y: Tensor) -> Calibration:
    """The calibration that logits [n, n_classes] of images of the classes y [n] ask for; images are not in the fit.

    Errors are cross-fitted: an image is judged at the temperature of images that it is not among. What is not finite is
    left out; of fewer than two images nothing is told.
    """
    sound = logits.isfinite().all(1)
    logits, y = logits[sound].double().cpu(), y[sound].cpu()
    if len(y) < 2:
        return NONE
    n_folds = min(FOLDS, len(y))
    fold, scaled = torch.arange(len(y)) % n_folds, torch.empty_like(logits)
    for number in range(n_folds):
        others = fold != number
        scaled[~others] = logits[~others] / temperature(logits[others], y[others])
    return Calibration(
        temperature(logits, y),
        len(y),
        expected_error(logits.softmax(1), y),
        expected_error(scaled.softmax(1), y),
        _nll(logits, y),
        _nll(scaled, y),
    )


def temperature(logits: Tensor, y: Tensor) -> float:
    """The temperature, within BOUNDS, that the classes y [n] ask for, given logits [n, n_classes].

    The likeliest one, nearer to 1 the less the images speak against 1: few of them mistake chance for a network that is
    too sure. Its logarithm is shrunk by 1 - 1 / r, to 0 at most: r is the likelihood ratio statistic, the square of how
    many standard errors it is from 0 (James and Stein 1961, in the positive part of Baranchik 1964). Measured in
    benchmarks/sureness.md.
    """
    likely = likeliest(logits, y)
    logits, target = logits.double(), _target(logits.shape, y)
    nll = [
        float(torch.nn.functional.cross_entropy(logits / each, target, reduction="sum")) for each in (NEUTRAL, likely)
    ]
    ratio = 2 * (nll[0] - nll[1])
    return likely ** (1 - 1 / ratio) if ratio > 1 else NEUTRAL


def likeliest(logits: Tensor, y: Tensor) -> float:
    """The temperature, within BOUNDS, at which the classes y [n] are likeliest, given logits [n, n_classes].

    As if one image more than there are had every label to the same share: where all are right, a likelihood alone asks
    for a temperature of 0 (Platt 1999, section 2.2, has such targets for two classes). The negative logarithm is convex
    in the inverse of the temperature, so that its slope changes sign once.
    """
    logits, target = logits.double(), _target(logits.shape, y)

    def slope(inverse: float) -> float:
        return float(((logits * inverse).softmax(1) - target).mul(logits).sum(1).mean())

    low, high = (math.log(1 / bound) for bound in reversed(BOUNDS))  # of the inverse
    if slope(math.exp(low)) == slope(math.exp(high)):  # all logits are alike
        return NEUTRAL
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def _target(shape: tuple[int, ...], y: Tensor) -> Tensor:
    """[n, n_classes] of each class the share that it has of an image."""
    n, k = shape
    target = torch.full((n, k), 1 / (n + 1) / k, dtype=torch.float64)
    return target.scatter_add_(1, y[:, None], torch.full((n, 1), n / (n + 1), dtype=torch.float64))


def expected_error(probabilities: Tensor, y: Tensor) -> float:
    """By how much the probability of what is told is off, in the mean over images: in [0, 1] (Naeini et al. 2015).

    probabilities: [n, n_classes], y: [n]. Images are binned by that probability; of each bin its mean is compared with
    the share that is right. Of few images it is too high: each bin has chance in it.
    """
    sure, told = probabilities.double().max(1)
    place = (sure * BINS).long().clamp_(0, BINS - 1)
    gaps = torch.bincount(place, sure - (told == y).double(), minlength=BINS)
    return float(gaps.abs().sum() / len(y))


def _nll(logits: Tensor, y: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits, y))
