"""Weight normalisation: filters have a direction and a length, and no statistics of batches stand behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.prune_train import PruneTrain

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.networks.plain import AnyArchitecture
    from objectives.state import TrainState

# Of the median deviation of a layer's channels: one that varies less is taken to vary so. Without it a filter that was
# all but dead on a batch of 50 became 38 long, and the run was lost (digits, mean-only, stride 4, accuracy 17 to 57 %).
LEAST = 0.25


@dataclass(frozen=True)
class WeightNorm(Strategy):
    """Normalises the weights of every convolution instead of what it puts out (Salimans & Kingma, NIPS 2016).

    A filter is g v / |v|, with its length g and its direction v as parameters; a bias stands in the place of the batch
    norm. `mean_only` keeps one half of that: the mean of the batch is taken away, its variance is not (section 3).
    Before the first step lengths and biases are such that what each norm puts out has mean 0 and variance 1 on the
    first batch (section 2.2).

    Three departures. Branches begin with a length of 0 at their end: without batch norms activations would grow from
    block to block (Fixup, Zhang et al. 2019). The head stays as it is; in the paper every layer is normalised. And
    a channel that hardly varies on the first batch is not made to vary as others do.

    Learning rates that suit batch norms may be too high. Ghost batches have an effect with `mean_only` alone. Put it
    after strategies that set initial weights, and before those that average weights.

    Raises:
        ValueError: an unknown norm.
    """

    needs_blocks: ClassVar[bool] = True
    # What a channel weighs is its length g, which these do not look at: a lasso on v changes nothing but the length of
    # v, which plays no part; MorphNet reads the scales of batch norms; magnitudes of v cannot be compared between
    # filters, and factors have no direction.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (PruneTrain, MorphNet, LotteryTicket, LowRank)

    norm: Literal["weight", "mean_only", "batch"] = "weight"  # batch changes nothing

    def __post_init__(self) -> None:
        if self.norm not in ("weight", "mean_only", "batch"):
            raise ValueError(f"{self!r}: norm is weight, mean_only or batch")

    def describe(self) -> str:
        words = {"weight": "weight norm", "mean_only": "weight norm with mean-only batch norm", "batch": "batch norm"}
        return words[self.norm]

    def idle(self, outline: Outline) -> str | None:
        return "batch norms stay batch norms" if self.norm == "batch" else None

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return architecture if self.norm == "batch" else replace(residual(architecture), norm=self.norm)

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.norm == "batch":
            return state
        from objectives.networks import surgery

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        _calibrate_(trainee.model, x)
        return replace(state, trainee=trainee)


def _calibrate_(model: Network, x: Tensor) -> None:
    """Gives convolutions lengths, and norms biases, with which the norms put out mean 0 and variance 1 of a batch.

    One pass, from the first to the last; ends of branches, whose length is 0, keep it. In place.
    """
    import torch

    from objectives.networks.norms.slots import MeanNorm, Shift
    from objectives.networks.resnet import ResNet

    assert isinstance(model, ResNet)
    gains = {norm: layer.gain for layer, norm in model.normed()}

    def calibrate(norm: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert isinstance(norm, Shift)
        (read,), gain = inputs, gains[norm]
        assert gain is not None
        variance, mean = torch.var_mean(read, (0, 2, 3), correction=0)
        deviation = variance.sqrt()
        deviation = deviation.clamp(min=LEAST * float(deviation.median()))
        scale = torch.where(deviation > 0, 1 / deviation, 1.0)
        gain.mul_(scale)
        if isinstance(norm, MeanNorm):
            norm.running_mean.copy_(mean * scale)
        else:
            norm.bias.copy_(-mean * scale)
        return (read * scale.view(1, -1, 1, 1),)

    handles = [norm.register_forward_pre_hook(calibrate) for norm in gains]
    with torch.no_grad():
        model.train()(x)
    for handle in handles:
        handle.remove()
