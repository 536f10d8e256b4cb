"""Standardization loss: a penalty asks of activations what batch norms would make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.weight_norm import WeightNorm

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.plain import AnyArchitecture


@dataclass(frozen=True)
class StandardizationLoss(Strategy):
    """Leaves batch norms out and adds to the loss how far activations are from mean 0 and variance 1.

    Collins, Balle & Shlens 2019 (arXiv 1903.00925). For every channel that a batch norm would have read, it is the
    divergence of a normal distribution of its mean and variance, over the batch and its pixels, from the standard one;
    the mean over the channels, the sum over the layers. A scale and a bias for each channel stay in the norm's place.
    Nothing of it is left in evaluation.

    Branches begin with a scale of 0 at their end: without batch norms activations would grow from block to block. A
    channel that is the same everywhere is dead, and not counted.

    Raises:
        ValueError: an alpha outside its range.
    """

    needs_blocks: ClassVar[bool] = True
    # there is one norm; the others are meant for networks whose batch norms make up for what they do
    excludes: ClassVar[tuple[type[Strategy], ...]] = (WeightNorm, MorphNet, LotteryTicket, LowRank)

    alpha: float = 1e-2  # of the loss, in [0, 10]; 0 changes nothing, and batch norms stay

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 10:
            raise ValueError(f"{self!r}: alpha must lie in [0, 10]")

    def describe(self) -> str:
        return f"standardization loss {self.alpha:.2g}"

    def idle(self, outline: Outline) -> str | None:
        return "its alpha is 0" if self.alpha == 0 else None

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return architecture if self.alpha == 0 else replace(residual(architecture), norm="none")

    @property
    def reads_activations(self) -> bool:
        return self.alpha > 0

    def activation_penalty(self, activations: Sequence[Tensor]) -> Tensor | None:
        if self.alpha == 0:
            return None
        import torch

        return self.alpha * torch.stack([divergence(each) for each in activations]).sum()


def divergence(x: Tensor) -> Tensor:
    """The mean over channels of KL(N(mean, variance) || N(0, 1)) of x: [batch, channels, height, width], a scalar.

    (mean^2 + variance - ln variance - 1) / 2, which is 0 where mean is 0 and variance 1, and nowhere else. In single
    precision at least; channels without variance are left out.
    """
    import torch

    variance, mean = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), (0, 2, 3), correction=0)
    is_alive = variance.detach() > 0
    variance = torch.where(is_alive, variance, 1.0)
    each = (mean.square() + variance - variance.log() - 1) / 2
    return torch.where(is_alive, each, 0.0).sum() / is_alive.sum().clamp(min=1)
