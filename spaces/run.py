"""What is known of a run before its first step, for spaces that ask for nothing that has no effect in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import floor, log, sqrt
from statistics import median

from objectives.networks.architecture import HEAD, Architecture
from objectives.networks.families import build
from objectives.networks.plain import INPUTS, AnyArchitecture
from objectives.pipeline import Pipeline
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.prune_train import dying_share
from spaces.base import Given, Trial

UNEVEN = 5  # times the images of the smallest class that the largest has where balancing is worth a question
MOST_LPR = 0.6  # 0.5 over 10 epochs cost 1.5 points of accuracy (Fashion-MNIST)


@dataclass(frozen=True)
class Run(Outline):
    """What is known of a run before its first step, of its classes, and what PruneTrain can do in it."""

    prunable: float  # share of the channels that the strongest penalty of this space kills, by forecast; in tenths
    is_uneven: bool  # some class has many times the images of another
    is_low: bool  # it computes in less than fp32
    has_start: bool = False  # there is a trained network to begin from


Chosen = Callable[[Trial, Given, Run], Strategy]
Ingredients = Mapping[str, tuple[type[Strategy], Chosen]]  # by the name of its switch


def outlined(given: Given, plain: Pipeline) -> Run:
    """What is known of a run before its first step.

    How much PruneTrain can shrink norms is an expectation, as it forecasts it from the weights itself: He-normal
    filters, a loss of ln 10, half the peak rate on average.
    """
    full, total, middle = _filters(given.family, plain.depth, plain.width, given.size, given.stem_stride)
    strength = MOST_LPR / (1 - MOST_LPR) * log(10) / total
    n_steps = (plain.epochs - 1) * max(1, given.n_train // plain.batch_size)
    kappa = strength * plain.peak_lr * n_steps / (1 - plain.momentum) / middle
    prunable = floor(10 * dying_share(kappa)) / 10
    is_uneven, is_low = given.unevenness >= UNEVEN, plain.number_format != "fp32"
    has_start = given.start is not None
    known = (full, given.size, plain.epochs, prunable, is_uneven, is_low, has_start)
    return Run(*known, batch_size=plain.batch_size)


@cache
def _filters(
    family: str, depth: int, width: float, size: int, stem_stride: int
) -> tuple[AnyArchitecture, float, float]:
    """(architecture, sum of the norms of its initial filters by channel written and read, median of those written).

    He-normal over the fan-out, or over the fan-in in plain networks.
    """
    # neither channels nor classes play a part in what can act
    shape = {"depth": depth, "stem_stride": stem_stride, "in_channels": 3, "n_classes": 2}
    full = build(family, width=width, size=size, **shape)
    layers = [layer for layer in full.layers(size) if layer.writes != HEAD]
    by_fan_out = isinstance(full, Architecture)
    rows = [
        sqrt(2 * layer.n_in / layer.n_out) if by_fan_out else sqrt(2) for layer in layers for _ in range(layer.n_out)
    ]
    columns = (layer.n_in * (sqrt(2) if by_fan_out else sqrt(2 * layer.n_out / layer.n_in)) for layer in layers[1:])
    return full, sum(rows) + sum(columns), median(rows)


def widest(run: Run) -> int:
    """Channels of the widest stage, or layer of a plain network."""
    if isinstance(run.full, Architecture):
        return max(stage.width for stage in run.full.stages)
    return max((n for axis, n in run.full.axis_sizes().items() if axis != INPUTS), default=1)


def deepest(run: Run) -> int:
    """Blocks of the longest stage; a plain network has none that could be added."""
    if not isinstance(run.full, Architecture):
        return 1
    return max(len(stage.interiors) for stage in run.full.stages)


def last_boundary(run: Run) -> float:
    """The share of the run after which its last epoch begins."""
    return (run.epochs - 1) / run.epochs
