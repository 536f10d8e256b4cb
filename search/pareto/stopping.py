"""What a rule of early stopping is asked, and when: pure functions over learning curves, without Optuna.

Optuna has no pruning for studies with more than one direction. Here the asymmetry of the two objectives does the
work: the final time of a trial is known within a few percent after its first epochs, only its accuracy is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from search.pareto.curves import Curve
from search.pareto.front import Box, Outcome

StopReason = Literal["dominated", "below_floor", "unpromising"]


class Past(Protocol):
    """What was known when a trial began."""

    @property
    def curves(self) -> Sequence[Curve]:
        """Of the trials that ran to their end."""

    @property
    def stopped(self) -> Sequence[Curve]:
        """Of the trials that were stopped."""

    @property
    def front(self) -> Sequence[Outcome]:
        """The Pareto front of the finished trials."""

    @property
    def floor(self) -> float:
        """The accuracy below which a result counts for nothing."""

    @property
    def box(self) -> Box | None:
        """The region of interest; None for a study of a version that had none."""

    @property
    def growth(self) -> float:
        """Share of the box that proposals added lately, per second that they took."""


class Stopping(Protocol):
    """Decides after a report whether its trial goes on."""

    def decide(self, curve: Curve, past: Past) -> StopReason | None:
        """Why the trial stops here, or None: it goes on. `curve`: its reports so far, at least one."""


class NoStopping:
    """Every trial runs to its end."""

    def decide(self, curve: Curve, past: Past) -> StopReason | None:
        """None."""
        return None


def check_rungs(rungs: Sequence[float], n_startup: int) -> None:
    """What all rules want of their parameters.

    Raises:
        ValueError: one is outside its range.
    """
    if not all(0.0 < each < 1.0 for each in rungs):
        raise ValueError(f"rungs are {rungs}: each must lie between 0 and 1, both excluded")
    if n_startup < 0:
        raise ValueError(f"n_startup is {n_startup}: it must be at least 0")


def rung(curve: Curve, rungs: Sequence[float]) -> float | None:
    """The highest rung, a share of the schedule, at or past which the last report is the first settled one.

    None where it is no such report, or the end of the run.
    """
    if not curve[-1].settled or curve[-1].epoch >= curve[-1].epochs:
        return None
    decided = max((point.fraction for point in curve[:-1] if point.settled), default=0.0)
    return max((each for each in rungs if decided < each <= curve[-1].fraction), default=None)
