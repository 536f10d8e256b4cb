"""Learning curves of trainings: pure functions, without Optuna."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from operator import attrgetter


@dataclass(frozen=True)
class Point:
    """One report of a trial, as far as stopping it is concerned.

    Raises:
        ValueError: a value is not finite or out of range.
    """

    epoch: int  # epochs finished
    epochs: int  # epochs in the run
    train_seconds: float  # charged so far
    accuracy: float  # validation, in [0, 1]
    settled: bool = True  # False in the epochs after surgery, until accuracy has recovered: nothing is decided there

    def __post_init__(self) -> None:
        if not 1 <= self.epoch <= self.epochs:
            raise ValueError(f"epoch {self.epoch} of {self.epochs}: epochs count from 1 to the length of the run")
        if not 0.0 <= self.train_seconds < math.inf:  # also refuses NaN
            raise ValueError(
                f"epoch {self.epoch} ended after {self.train_seconds} s: seconds must be finite, at least 0"
            )
        if not 0.0 <= self.accuracy <= 1.0:
            raise ValueError(f"epoch {self.epoch} has accuracy {self.accuracy}: it must lie between 0 and 1")

    @property
    def fraction(self) -> float:
        """Share of the schedule that is done, in (0, 1]."""
        return self.epoch / self.epochs


Curve = tuple[Point, ...]  # the reports of one trial, by rising epoch
_FRACTION = attrgetter("fraction")


@dataclass(frozen=True)
class Standing:
    """Where a run stands at a share of its schedule."""

    seconds: float  # charged so far
    accuracy: float  # the best so far


def standing(curve: Curve, fraction: float) -> Standing | None:
    """Where a run stood at a share of its schedule, interpolated; None where the first report is later, or none comes.

    Validation accuracy jumps from epoch to epoch (and dips at surgery), and a dip would pass for a gain to come: hence
    the best so far. Between epochs a learning curve lies above its chords, so that interpolation errs downwards.
    """
    if not curve or not curve[0].fraction <= fraction <= curve[-1].fraction:
        return None
    after = bisect_left(curve, fraction, key=_FRACTION)  # equal shares are equal floats, whatever their epochs
    early, late = curve[max(after - 1, 0)], curve[after]
    share = (fraction - early.fraction) / (late.fraction - early.fraction) if after else 1.0
    best = max(point.accuracy for point in curve[: max(after, 1)])
    return Standing(
        early.train_seconds * (1.0 - share) + late.train_seconds * share,
        best * (1.0 - share) + max(best, late.accuracy) * share,
    )


def gain_ratio(curve: Curve, fraction: float) -> float | None:
    """Share of the error at `fraction` of a finished curve that is left at its end: (1 - a(1)) / (1 - a(fraction)).

    a(fraction) is the best accuracy so far. None where the first report is later, or where no error was left.
    """
    then = standing(curve, fraction)
    return None if then is None or then.accuracy >= 1.0 else (1.0 - curve[-1].accuracy) / (1.0 - then.accuracy)
