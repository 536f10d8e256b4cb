"""Muon: the steps of convolutions are made orthogonal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.strategies.base import Outline, Strategy
from objectives.strategies.prune_train import PruneTrain

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState


@dataclass(frozen=True)
class Muon(Strategy):
    """Updates convolutions by momentum orthogonalised with Newton-Schulz (Jordan et al. 2024); see `muon.MuonSGD`.

    The stem and all that is no convolution stay with the pipeline's SGD: the first layer's matrix has no equal
    directions to learn at one speed, and a whitening one must keep its scales. `lr` follows the batch size by the
    pipeline's `lr_rule`, and the schedule, as the pipeline's own learning rate does; where that is 0 nothing is
    trained.

    airbench94_muon sets the norm of every weight to the root of its outputs. Here it stays what it was at the start,
    which is as good behind a batch norm and fits networks that change their width.

    Raises:
        ValueError: a parameter outside its range.
    """

    # Its proximal step is scaled for weights that follow the gradient, and its lambda weighs the loss against the
    # lasso: a step that forgets the size of the gradient minimises no such sum.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (PruneTrain,)

    lr: float = 0.24  # peak learning rate of the convolutions for a batch of 256, in [0, 10]; 0 leaves them to SGD
    momentum: float = 0.6  # of the convolutions, in [0, 1)
    steps: int = 5  # of Newton-Schulz, 1 to 10
    keep_norm: bool = True  # a convolution's weight keeps its norm; else only the pipeline's weight decay limits it

    def __post_init__(self) -> None:
        if not 0 <= self.lr <= 10 or not 0 <= self.momentum < 1 or not 1 <= self.steps <= 10:
            raise ValueError(f"{self!r}: lr must lie in [0, 10], momentum in [0, 1), steps in 1 to 10")

    def describe(self) -> str:
        return f"Muon lr {self.lr:.2g} momentum {self.momentum:.2g}"

    def idle(self, outline: Outline) -> str | None:
        if self.lr == 0:
            return "its learning rate is 0"
        n = sum(not layer.is_dense for layer in outline.full.layers(outline.size))
        return None if n > 1 else "the network has no convolution behind the first"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.lr == 0:
            return state
        from objectives.strategies.methods.muon import with_muon

        trainee, lr = state.trainee, state.pipeline.lr
        optimizer = with_muon(
            trainee.optimizer,
            [layer.weight for layer in trainee.model.convolutions()[1:]],
            factor=self.lr / lr if lr > 0 else 0.0,
            momentum=self.momentum,
            steps=self.steps,
            keep_norm=self.keep_norm,
        )
        return replace(state, trainee=replace(trainee, optimizer=optimizer))
