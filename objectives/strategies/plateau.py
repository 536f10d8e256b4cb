"""Plateau: training goes on until one more epoch brings nothing, then cools down and ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState


@dataclass(frozen=True)
class Plateau(Strategy):
    """Holds the peak learning rate until the training loss stalls; then it falls linearly to 0, and the run ends.

    Warm-up, hold and linear fall as in Hu et al. 2024 (MiniCPM) and Haegele et al. 2024, who let it fall over a fifth
    of the run; here the length of the hold follows from the loss, so that `pipeline.epochs` is only the latest end. The
    loss is the mean of an epoch, which costs nothing; validation images are not looked at. Epochs in which another
    strategy is not settled (small images, few images, a small network) neither stall nor count as the best.

    Put it before strategies that act on the last boundary, such as PruneTrain: they see the end that it sets.

    Raises:
        ValueError: a parameter outside its range.
    """

    gain: float = 0.02  # an epoch whose loss is not this share below the best before it stalls; 0 changes nothing
    cooldown: float = 0.25  # length of the fall as a share of the epochs done by then; at least one epoch

    def __post_init__(self) -> None:
        if not 0 <= self.gain < 1 or not 0 <= self.cooldown <= 1:
            raise ValueError(f"{self!r}: gain must lie in [0, 1), cooldown in [0, 1]")

    def describe(self) -> str:
        return f"until an epoch gains less than {self.gain:.2%}"

    def idle(self, outline: Outline) -> str | None:
        if self.gain == 0:
            return "its gain is 0"
        return None if outline.epochs > 1 else "a run of one epoch cannot end sooner"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.gain == 0 or self._is_latest(state):
            return state
        return replace(state, schedule=replace(state.schedule, held=True))

    def between_epochs(self, state: TrainState) -> TrainState:
        if not state.schedule.held:
            return state
        stalls = self._stalls(state)
        if not stalls and not self._is_latest(state):
            return state
        epoch, ends, share = state.epoch, state.ends, state.schedule(state.epoch)
        if stalls:
            ends = min(ends, epoch + self._n_cooldown(epoch))
        schedule = replace(state.schedule, held=False, restart=epoch, restart_share=share, epochs=ends)
        losses = f"loss {state.loss:.3g}, best before {self._best(state):.3g}"
        return replace(state, schedule=schedule, ends=ends).with_event(f"{losses}: cools down to epoch {ends}")

    def settled(self, state: TrainState) -> bool:
        """Only in the fall: accuracy at the peak learning rate says little, and the length of the run is not known."""
        if self.gain == 0 or state.schedule.restart is None:
            return not state.schedule.held
        return not state.schedule.held and state.epoch > state.schedule.restart

    def _n_cooldown(self, epoch: int) -> int:
        """Epochs in which the learning rate falls when that begins at `epoch`."""
        return max(1, round(self.cooldown * epoch))

    def _is_latest(self, state: TrainState) -> bool:
        """Whether a fall that began an epoch later would not end in time."""
        return state.epoch + 1 + self._n_cooldown(state.epoch + 1) > state.ends

    def _stalls(self, state: TrainState) -> bool:
        """Whether the epoch that ended brought too little; never the first settled one, nor one without a loss."""
        return self._is_comparable(state) and state.loss >= self._best(state) * (1 - self.gain)

    def _best(self, state: TrainState) -> float:
        """The lowest loss of the settled epochs before the last one; infinite where there is none."""
        reports = [r for r in state.history if self._is_comparable(replace(state, epoch=r.epoch))]
        return min((r.loss for r in reports if r.loss < inf), default=inf)

    def _is_comparable(self, state: TrainState) -> bool:
        """Whether every other strategy is settled."""
        return all(strategy is self or strategy.settled(state) for strategy in state.pipeline.strategies)
