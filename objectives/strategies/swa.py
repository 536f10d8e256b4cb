"""Stochastic weight averaging: the network that is deployed is the mean of those at the ends of the last epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, ClassVar

from objectives.strategies.base import Outline, Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.plateau import Plateau

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.state import TrainState

SHADOW = "swa"  # name of the shadow that holds the averages and the number of epochs in them


@dataclass(frozen=True)
class Swa(Strategy):
    """Averages the weights that it finds at the end of every epoch from `start` on (Izmailov et al. 2018).

    From then on the learning rate may stay at one share of its peak, so that the weights go on exploring; the paper
    first lowers it linearly to that share, here the schedule in force does what it does until `start`. The batch norms
    of the average get their statistics from a pass over training images, see `averaging.refresh_statistics`; the
    paper's is over all of them. Training sees nothing of the averages.

    An average of one epoch is the network itself, with its own statistics. Accuracies before that are the network's:
    they understate the final one, as those of any run do at a high learning rate, and count as settled.

    Raises:
        ValueError: a parameter outside its range.
    """

    # only one average can be deployed; a run whose length is open has no share at which averaging could start
    excludes: ClassVar[tuple[type[Strategy], ...]] = (Ema, Plateau)

    start: float = 0.75  # share of the run after which averaging begins, in [0, 1]; 1 changes nothing
    lr: float = 0.5  # share of the peak at which the learning rate stays from then on; 0: the schedule goes on
    images: int = 2000  # training images for the statistics of the average

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1 or not 0 <= self.lr <= 1 or self.images < 16:
            raise ValueError(f"{self!r}: start and lr must lie in [0, 1], images must be at least 16")

    def describe(self) -> str:
        held = f" at {self.lr:.0%} of the peak lr" if self.lr > 0 else ""
        return f"SWA from {self.start:.0%} of the run{held}"

    def idle(self, outline: Outline) -> str | None:
        n_due = outline.epochs - self._first(outline.epochs) + 1 if self.start < 1 else 0
        ends = "one epoch ends" if n_due == 1 else "none ends"
        return None if n_due > 1 else f"{ends} after {self.start:.0%} of it, and that makes no average"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self._n_due(state, state.ends) < 2:
            return state
        from objectives.strategies.methods import averaging

        state = replace(state, trainee=state.trainee.with_shadow(SHADOW, averaging.shadow_of(state.trainee)))
        if self.lr > 0:
            since = self.start * state.pipeline.epochs
            state = replace(state, schedule=averaging.HeldFrom(**vars(state.schedule), since=since, share=self.lr))
        return state

    def between_epochs(self, state: TrainState) -> TrainState:
        n = self._n_due(state, state.epoch)
        if n == 0 or SHADOW not in state.trainee.shadows:
            return state
        import torch

        from objectives.strategies.methods import averaging

        weights, averages = averaging.pairs(state.trainee, SHADOW)
        torch._foreach_lerp_(averages, weights, 1 / n)
        # in place, as a step would: the step itself does not know of the averages and need not be captured again
        averaging.counter(state.trainee, SHADOW).fill_(n)
        return state.with_event(f"averaging since epoch {state.epoch}") if n == 1 else state

    def deployed(self, model: Network, state: TrainState) -> Network:
        n = self._n_due(state, state.epoch)
        if n < 2:
            return model
        from copy import deepcopy

        import torch

        from objectives.strategies.methods import averaging

        averaged = deepcopy(model)
        weights, averages = averaging.pairs(state.trainee, SHADOW)
        # 0 where a boundary ended the run: its weights are in the average already
        newest = 1 / n if int(averaging.counter(state.trainee, SHADOW)) < n else 0.0
        with torch.no_grad():
            for parameter, weight, average in zip(averaged.parameters(), weights, averages, strict=True):
                parameter.copy_(average.lerp(weight, newest))
        averaging.refresh_statistics(averaged, state, self.images)
        return averaged

    def _n_due(self, state: TrainState, epoch: int) -> int:
        """Epochs whose weights belong to the average once `epoch` is finished."""
        if self.start == 1:
            return 0
        return max(0, epoch - self._first(state.pipeline.epochs) + 1)

    def _first(self, epochs: int) -> int:
        """The first epoch whose weights belong to the average."""
        return max(1, ceil(self.start * epochs - 1e-9))
