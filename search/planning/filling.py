"""What the time that is left buys: runs like the best ones that fill it, by more epochs, more pixels, more channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from objectives.pipeline import Pipeline
from search.proposals.draws import Candidate, Draw, candidate
from search.study import records

PARENTS = 3  # the most accurate runs
# Epochs that a run should have before it gets wider. By single runs, whose noise is 3 points: of those of 45 s on 4,000
# CIFAR images 12 to 30 epochs came to 69.6 to 71.0 %, of 92 to 105 s 24 epochs on all pixels to 74.0, 24 of a wider
# network to 73.0, 60 to 71.2 (benchmarks/ten_minutes.md).
ENOUGH = 20
AWAY = 0.02  # decades of error for each doubling of epochs away from there: about what those runs differ by
FILLED = 0.97  # of the seconds
WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0)  # times the parent's


def candidates(
    choose: Callable[[Any], Pipeline],
    points: Sequence[FrozenTrial],
    seconds: float,
    forecast: Callable[[Pipeline], float],
    epochs: tuple[int, int],
) -> list[tuple[Candidate[Pipeline], float]]:
    """(pipeline, decades of error that its epochs may cost) of runs that take about so many device seconds.

    Those of a parent were measured; `forecast` tells ratios. One at least where the cheapest run takes no more.
    `epochs`: the fewest and the most that a run may have.
    """
    filled = [_apart(t.params) for t in points if records.FILL in t.user_attrs]  # one a little longer tells little new
    parents = [*sorted(points, key=lambda trial: -trial.values[1])[:PARENTS], min(points, key=lambda t: t.values[0])]
    found: dict[str, tuple[Candidate[Pipeline], float]] = {}
    for parent in parents:
        before = records.pipeline(parent)
        rate = parent.values[0] / forecast(before)
        for params in _variants(parent.params, before.width):
            epoch = rate * forecast(_with(choose, params).chosen) / before.epochs
            n = max(epochs[0], min(int(FILLED * seconds / epoch), epochs[1]))
            made = _with(choose, {**params, "epochs": n})
            if _apart(made.params) not in filled and rate * forecast(made.chosen) <= seconds:
                away = abs(math.log2(made.chosen.epochs / ENOUGH))
                found.setdefault(repr(sorted(made.params.items())), (made, AWAY * away))
    return list(found.values())


def _apart(params: Mapping[str, Any]) -> dict[str, Any]:
    """All but the length of a run."""
    return {name: value for name, value in params.items() if name != "epochs"}


def _variants(params: Mapping[str, Any], channels: float) -> Iterator[dict[str, Any]]:
    """The parent's parameters, with all pixels, and with more channels."""
    strides = {params.get("stride", False), False}
    for stride in sorted(strides):
        for factor in WIDTHS:
            width = channels if factor == 1.0 else round(4 * channels * factor) / 4
            yield {**params, "stride": stride, "width": width, "augment.crop": True}


def _with(choose: Callable[[Any], Pipeline], params: Mapping[str, Any]) -> Candidate[Pipeline]:
    """What the space chooses with these parameters, where it has them; what else it asks is drawn at random."""
    return candidate(choose, Draw(np.random.default_rng(0), None, params))
