"""Stopping by the value of going on: a trial ends where its seconds are worth more to another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from search.pareto.bound import FrontStopping
from search.pareto.curves import Curve
from search.pareto.forecast import forecast
from search.pareto.front import Box, Outcome, error_rate
from search.pareto.improvement import expected_improvement
from search.pareto.stopping import Past, StopReason, check_rungs, rung

SECONDS_SPREAD = 0.02  # decades: of forecast seconds


@dataclass(frozen=True)
class ValueStopping:
    """Stops what `FrontStopping` stops, and what is `unpromising`: worth less than a new trial would be.

    At a rung the end of the trial is forecast, with a spread that the finished trials tell. What going on is worth is
    the share of the box that the end is expected to add to the front, per second still to pay. It is set against what
    proposals added lately, per second that they took: a new one is not expected to do better. Where proposals added
    nothing lately, nothing is stopped for that.

    Live, under a sampler that learns, it found less of the box than `FrontStopping` in 4 of 4 studies; on pipelines at
    random it found more (benchmarks/search.md).

    Raises:
        ValueError: a parameter is outside its range.
    """

    # Shares of the schedule at which a trial is judged, once each. What else was tried, on 167 recorded trainings in 30
    # random orders (benchmarks/search.md): share of the box found in half of the seconds, share of stopped trials that
    # would have joined the front. These: .998, 3.7 %; without the first rung: .996, 4.1 %.
    rungs: tuple[float, ...] = (0.2, 0.33, 0.5, 0.75)
    n_startup: int = 8  # finished trials before any is stopped. 12, without the first rung: .995, 3.4 %
    share: float = 1.0  # of what a new trial adds per second, that going on must add. 0.5 with 12: .987, 2.9 %
    bound: FrontStopping = field(default_factory=FrontStopping)

    def __post_init__(self) -> None:
        check_rungs(self.rungs, self.n_startup)
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share is {self.share}: it must be at least 0 and at most 1")

    def decide(self, curve: Curve, past: Past) -> StopReason | None:
        """Why the trial stops here, or None: it goes on."""
        if (reason := self.bound.decide(curve, past)) is not None:
            return reason
        if past.box is None or len(past.curves) < self.n_startup or rung(curve, self.rungs) is None:
            return None
        worth = worth_of_going_on(curve, past, past.box)
        return "unpromising" if worth < self.share * past.growth else None


def worth_of_going_on(curve: Curve, past: Past, box: Box) -> float:
    """Share of the box that a trial is expected to add, per second that it still takes."""
    ahead = forecast(curve, past.curves, box.n_images)
    seconds = 10**ahead.log_seconds
    errors = [math.log10(error_rate(accuracy, box.n_images)) for accuracy in (box.useful, 1.0)]
    quality = (errors[0] - ahead.log_error) / (errors[0] - errors[1])
    spread = (
        SECONDS_SPREAD / math.log10(box.slowest / box.fastest),
        ahead.error_spread / (errors[0] - errors[1]),
    )
    gain = expected_improvement(
        np.array([[box.speed(seconds), quality]]), np.array([spread]), np.array(_shares(past.front, box))
    )
    return float(gain[0]) / (seconds - curve[-1].train_seconds)


def _shares(front: Sequence[Outcome], box: Box) -> list[tuple[float, float]]:
    """Where the points of a front lie in the box; [(0, 0)], which dominates nothing, without any."""
    return [(box.speed(each.cost), box.quality(each.accuracy)) for each in front] or [(0.0, 0.0)]
