"""Gradient clipping: gradients that are too long are shortened before the optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.prune_train import PruneTrain

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState


@dataclass(frozen=True)
class GradientClipping(Strategy):
    """Scales the gradient of loss and penalties down to a norm where it is longer (Pascanu, Mikolov & Bengio 2013).

    The norm is that of all parameters together. The recipe for large batches of Hoffer, Hubara & Soudry 2017 clips at
    5. In a run whose gradients are shorter than that it does nothing: the last boundary says how many steps it clipped.

    Raises:
        ValueError: a negative norm.
    """

    # Its proximal step weighs the lasso against whole gradients: beside shorter ones it kills channels that learn.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (PruneTrain,)

    norm: float = 5.0  # the longest that a gradient may be; 0 clips nothing
    counts: Tensor | None = learned(None)  # [2] steps taken, and those of them that were clipped; on the device

    def __post_init__(self) -> None:
        if not 0 <= self.norm < 1e9:
            raise ValueError(f"{self!r}: norm must lie in [0, 1e9)")

    def describe(self) -> str:
        return f"gradients clipped at {self.norm:.2g}"

    def idle(self, outline: Outline) -> str | None:
        return "it clips nothing" if self.norm == 0 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.norm == 0:
            return state
        import torch

        counts = torch.zeros(2, device=state.data.x.device)
        return state.with_strategy(self, self.having_learned(counts=counts))

    def gradients(self, trainee: Trainee, step: Step) -> None:
        if self.norm == 0:
            return
        import torch
        from torch.nn.utils import clip_grad_norm_

        assert self.counts is not None
        before = clip_grad_norm_(trainee.model.parameters(), self.norm)
        self.counts.add_(step.taken * torch.stack([torch.ones_like(step.taken), before > self.norm]))

    def between_epochs(self, state: TrainState) -> TrainState:
        if self.norm == 0 or state.epoch < state.ends - 1:
            return state
        assert self.counts is not None
        n_taken, n_clipped = self.counts.tolist()
        share = n_clipped / n_taken if n_taken else 0.0
        return state.with_event(f"gradients of {share:.1%} of the steps were longer than {self.norm:g}")
