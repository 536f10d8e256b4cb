"""Low precision first, then fp32: the number format changes in mid-run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState


@dataclass(frozen=True)
class SwitchFormat(Strategy):
    """Trains in the pipeline's number format, or an emulated one, up to a share of the run, and in fp32 from then on.

    After Buehler's idea that the first epochs need no precision; Gupta et al. (2015, section 4) went over to more bits
    for the last epochs. Weights and momentum go on as they are.

    Raises:
        ValueError: a share outside its range.
    """

    at: float = 0.5  # share of the run after which it computes in fp32, in (0, 1]; 1 never switches
    has_switched: bool = learned(False)

    def __post_init__(self) -> None:
        if not 0 < self.at <= 1:
            raise ValueError(f"{self!r}: at must lie in (0, 1]")

    def describe(self) -> str:
        return f"fp32 from {self.at:.0%} of the run"

    def idle(self, outline: Outline) -> str | None:
        if self.at == 1:
            return "it never switches"
        return None if outline.epochs > 1 else "there is no boundary in one epoch"

    def first_epoch(self, epochs: int) -> int:
        """How many epochs of a run pass before it computes in fp32."""
        return max(1, min(epochs - 1, ceil(self.at * epochs - 1e-9))) if self.at < 1 and epochs > 1 else epochs

    def last_format(self, number_format: str, epochs: int) -> str:
        return "fp32" if self.at < 1 and epochs > 1 else number_format

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.at == 1 or self._leaves(state):
            return state
        return state.with_event("SwitchFormat does nothing in this run: it is in fp32 from the start")

    def between_epochs(self, state: TrainState) -> TrainState:
        if self.at == 1 or self.has_switched or not state.is_due(self.at) or not self._leaves(state):
            return state
        left = self._leaves(state)
        state = state.with_strategy(self, self.having_learned(has_switched=True))
        state = replace(state, pipeline=replace(state.pipeline, number_format="fp32"))
        return state.with_event(f"{' and '.join(left)} until epoch {state.epoch}, fp32 from here on")

    @staticmethod
    def _leaves(state: TrainState) -> list[str]:
        """The formats that the training is in, but for fp32."""
        own = state.pipeline.number_format
        emulated = [strategy.describe() for strategy in state.pipeline.strategies if strategy.emulated]
        return [*([] if own == "fp32" else [own]), *emulated]
