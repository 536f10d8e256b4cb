"""What the time that is left buys: runs like the best ones that fill it, by more epochs, more pixels, more channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from objectives.pipeline import Pipeline
from objectives.strategies.strided_stem import StridedStem
from search.pareto.expectation import LEARNING, decades_of_error, noise_of
from search.proposals.draws import Candidate, Draw, candidate
from search.study import records
from search.study.records import ENOUGH
from spaces.ingredients import EVERYTHING

PARENTS = 3  # the most accurate runs
AWAY = 0.02  # decades of error for each doubling of epochs away from enough: about what those runs differ by
FILLED = 0.97  # of the seconds
LONGER = 1.25  # times as many epochs tell something new
WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0)  # times the parent's
# What is believed before the runs of a study say more: decades of error, and their spread. By runs with a stem of
# stride 2 and on all pixels (benchmarks/ten_minutes.md; one to three seeds) all pixels gain .06, .07, .06 on CIFAR-10
# (8 epochs, 12 and 24 with crops), .08, .09 and .06 on Fashion-MNIST (8, 12 with crops, 5). In 12 to 20 s they gain .06
# on Fashion-MNIST with 3 epochs instead of 10, .03 on CIFAR-10 with 5 instead of 11: by that it would be some .1.
PIXELS = (0.09, 0.02)  # gain of all pixels at equal epochs, few of them: with enough they are taken anyway
CROPS = math.ceil(records.CROPPED_PER_UNCROPPED * records.ENOUGH_UNCROPPED)  # epochs that are worth no less with crops


def candidates(
    choose: Callable[[Any], Pipeline],
    points: Sequence[FrozenTrial],
    seconds: float,
    forecast: Callable[[Pipeline], float],
    epochs: tuple[int, int],
    n_val: int,
) -> list[tuple[Candidate[Pipeline], float]]:
    """(pipeline, decades of error) of runs that take about so many device seconds.

    Decades are what their epochs cost them, less what all pixels gain where the parent had every second one.

    Seconds of a parent were measured; `forecast` tells ratios. One at least where the cheapest run takes no more: one
    that tells something new, if there is any.
    `epochs`: the fewest and the most that a run may have; `n_val`: images that validate.
    """
    runs = [(_apart(p := records.pipeline(t)), p.epochs, records.FILL in t.user_attrs) for t in points]
    learning, pixels = gains(points, n_val)

    def is_new(made: Candidate[Pipeline]) -> bool:
        """Whether it tells what no run has told: none that differs in nothing else was nearly as long."""
        return all(apart != _apart(made.chosen) or made.chosen.epochs >= LONGER * n for apart, n, _ in runs)

    def is_unfilled(made: Candidate[Pipeline]) -> bool:
        return all(apart != _apart(made.chosen) for apart, _, filled in runs if filled)

    accurate = sorted(points, key=lambda trial: -trial.values[1])[:PARENTS]
    cheapest = min(points, key=lambda trial: trial.values[0])
    for is_wanted in (is_new, is_unfilled):
        for parents in (accurate, [cheapest]):  # what is cheap tells little of long runs: only where nothing else fits
            like = (_like(parent, choose, seconds, forecast, epochs, learning, pixels) for parent in parents)
            found: dict[str, tuple[Candidate[Pipeline], float]] = {}
            for made, loss in filter(lambda each: is_wanted(each[0]), chain.from_iterable(like)):
                found.setdefault(repr(sorted(made.params.items())), (made, loss))
            if found:
                return list(found.values())
    return []


def _like(
    parent: FrozenTrial,
    choose: Callable[[Any], Pipeline],
    seconds: float,
    forecast: Callable[[Pipeline], float],
    epochs: tuple[int, int],
    learning: float,
    pixels: float,
) -> Iterator[tuple[Candidate[Pipeline], float]]:
    """(pipeline, decades of error) of runs like one."""
    before = records.pipeline(parent)
    rate = parent.values[0] / forecast(before)

    def affordable(params: Mapping[str, Any]) -> int:
        """Epochs that fill the seconds."""
        epoch = rate * forecast(_with(choose, params).chosen) / before.epochs
        return max(epochs[0], min(int(FILLED * seconds / epoch), epochs[1]))

    for params in _variants(parent.params, before.width):
        n = affordable(params)
        made = _with(choose, {**params, "epochs": n, "augment.crop": n >= CROPS})
        if rate * forecast(made.chosen) > seconds:
            continue
        enough, loss = n, 0.0
        if parent.params.get("stride", False) and not params["stride"]:
            enough = max(n, min(affordable({**params, "stride": True}), ENOUGH))
            strided = _with(choose, {**params, "stride": True, "epochs": enough, "augment.crop": enough >= CROPS})
            loss = learning * (_decades(strided.chosen) - _decades(made.chosen)) - pixels
        yield made, loss + AWAY * abs(math.log2(enough / ENOUGH))


def _decades(pipeline: Pipeline) -> float:
    """What the epochs of a pipeline are worth."""
    return records.learning_decades(pipeline.epochs, crop=pipeline.crop)


def gains(points: Sequence[FrozenTrial], n_val: int) -> tuple[float, float]:
    """Decades of error that a decade of epochs is worth, and that all pixels are instead of every second one.

    By pairs of runs that differ in nothing else but augmentation, as far as they tell more than is believed without.
    """
    learning, pixels = _Belief(*LEARNING), _Belief(*PIXELS)
    for one, other in combinations(map(_Run.of, points), 2):
        if one.rest != other.rest:
            continue
        short, long = sorted((one, other), key=lambda run: (run.decades, -run.strided))
        noise = noise_of(10 ** ((short.error + long.error) / 2), n_val)
        if one.strided == other.strided:
            learning.add(long.decades - short.decades, short.error - long.error, noise)
        elif long.decades == short.decades:
            pixels.add(1.0, short.error - long.error, noise)
    return learning.mean, pixels.mean


class _Belief:
    """A number, from what was believed before and from measurements that it is a factor of, all of them noisy."""

    def __init__(self, mean: float, spread: float) -> None:
        self._sum, self._weight = mean / spread**2, 1 / spread**2

    def add(self, factor: float, measured: float, noise: float) -> None:
        self._sum, self._weight = self._sum + factor * measured / noise**2, self._weight + (factor / noise) ** 2

    @property
    def mean(self) -> float:
        return self._sum / self._weight


@dataclass(frozen=True)
class _Run:
    """What a run tells of epochs and pixels."""

    decades: float  # of epochs, up to enough of them
    strided: bool
    error: float  # decades
    rest: Pipeline  # what else it trained with, but for augmentation

    @classmethod
    def of(cls, trial: FrozenTrial) -> _Run:
        pipeline = records.pipeline(trial)
        others = tuple(each for each in pipeline.strategies if not isinstance(each, StridedStem))
        rest, decades = records.apart_from_length(replace(pipeline, strategies=others))
        return cls(decades, others != pipeline.strategies, decades_of_error(trial.values[1]), rest)


def _apart(pipeline: Pipeline) -> Pipeline:
    """All but the length of a run, and the augmentation that comes with it."""
    return records.apart_from_length(pipeline)[0]


def _variants(params: Mapping[str, Any], channels: float) -> Iterator[dict[str, Any]]:
    """The parent's parameters, with all pixels, and with more channels."""
    strides = {params.get("stride", False), False}
    for stride in sorted(strides):
        for factor in WIDTHS:
            width = channels if factor == 1.0 else round(4 * channels * factor) / 4
            yield {**params, "stride": stride, "width": width}


def _with(choose: Callable[[Any], Pipeline], params: Mapping[str, Any]) -> Candidate[Pipeline]:
    """What the space chooses with these parameters, where it has them, and without any other strategy.

    A longer run is asked more than its parent was. Other settings that it asks are drawn at random.
    """
    return candidate(choose, Draw(np.random.default_rng(0), None, {**dict.fromkeys(EVERYTHING, False), **params}))
