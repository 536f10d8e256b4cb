"""Regime adaptation: a run with large batches lasts until it has made as many updates as one with small ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState


@dataclass(frozen=True)
class RegimeAdaptation(Strategy):
    """Lengthens a run with large batches, its schedule included (Hoffer, Hubara & Soudry 2017, section 5).

    The gap in accuracy behind large batches comes from fewer updates, they found: in as many it is gone. What is left
    of a large batch is the time of a step. Put it before strategies that look at where the run ends. A study that asks
    for epochs itself may find the same run without it.

    Raises:
        ValueError: a parameter outside its range.
    """

    reference: int = 128  # samples: with batches of so many the run would take the epochs that the settings say
    share: float = 1.0  # of the updates that are missing, in [0, 1]; 0 changes nothing

    def __post_init__(self) -> None:
        if self.reference < 1 or not 0 <= self.share <= 1:
            raise ValueError(f"{self!r}: reference must be at least 1, share must lie in [0, 1]")

    def describe(self) -> str:
        share = "as many updates" if self.share == 1 else f"{self.share:.0%} of the way to as many updates"
        return f"{share} as in batches of {self.reference}"

    def idle(self, outline: Outline) -> str | None:
        if self.share == 0:
            return "it makes up for none of the updates"
        is_small = outline.batch_size is not None and outline.batch_size <= self.reference
        return f"its batches are not larger than {self.reference}" if is_small else None

    def n_epochs(self, epochs: int, batch_size: int, n_train: int) -> int:
        n_small, n_large = (max(1, n_train // size) for size in (self.reference, batch_size))
        return round(epochs * (1 + self.share * max(0.0, n_small / n_large - 1)))

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        n, before, batch_size = len(state.data.y), state.pipeline.epochs, state.pipeline.batch_size
        epochs, n_large = self.n_epochs(before, batch_size, n), max(1, n // batch_size)
        if epochs == before:
            is_told = self.share == 0 or batch_size <= self.reference  # as `idle` does
            same = f"an epoch of {n_large} updates has as many in smaller batches"
            return state if is_told else state.with_event(f"RegimeAdaptation does nothing in this run: {same}")
        pipeline, schedule = replace(state.pipeline, epochs=epochs), replace(state.schedule, epochs=epochs)
        longer = replace(state, pipeline=pipeline, schedule=schedule, ends=epochs)
        return longer.with_event(f"{epochs} epochs instead of {before}, for {epochs * n_large} updates")
