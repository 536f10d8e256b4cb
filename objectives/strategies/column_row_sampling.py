"""Column-row sampling: layers read a part of their channels while they train, and multiply as much less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from objectives.networks.architecture import HEAD
from objectives.strategies.base import Multiply, Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.resnet import Convolution
    from objectives.networks.sequential import Dense
    from objectives.state import TrainState

Choice = Literal["largest", "drawn"]
EVEN = 0.1  # share of the probabilities of draws that all channels have alike, as in the authors' code


@dataclass(frozen=True)
class ColumnRowSampling(Strategy):
    """Approximates the products of layers by those of some of their channels (Adelman et al. 2021, arXiv 1805.08079).

    What a layer puts out is a sum over the channels that it reads; of these the `share` with the
    largest ||x_c|| ||w_c|| is taken, norms over the batch and over the filters, as it is: the authors found it better
    than drawing channels with those probabilities and scaling them, which is unbiased. Gradients flow through the
    channels taken only, so that forward pass and both gradients multiply less, by the same share. Draws are stratified:
    their expectation is that of independent ones, their variance is smaller.

    Exact stay 1x1 convolutions, the classifier, and layers that read few channels, an image's among them, though not
    the twelve of a colour image's wavelets; so does every evaluation. A batch norm sees less variance in training than
    then: from `until` on all layers are exact, and the statistics become so with them.

    Gathering the channels takes a pass over what a layer reads: it pays for wide layers only.

    Raises:
        ValueError: a parameter outside its range.
    """

    saves_work: ClassVar[bool] = True

    share: float = 0.5  # of the channels that a layer reads, in (0, 1]; 1: all of them, exactly
    least: int = 10  # channels: no layer reads fewer of what it has
    choice: Choice = "largest"
    until: float = 0.8  # share of the run from which on layers are exact, in (0, 1]
    since: int | None = learned(None)  # epoch after which they are

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.least < 1 or not 0 < self.until <= 1:
            raise ValueError(f"{self!r}: share and until must lie in (0, 1], least from 1 on")
        if self.choice not in get_args(Choice):
            raise ValueError(f"{self!r}: choice is largest or drawn")

    def describe(self) -> str:
        until = "" if self.until == 1 else f" until {self.until:.0%} of the run"
        which = "the largest" if self.choice == "largest" else "a drawn"
        return f"products of {which} {self.share:.0%} of the channels{until}"

    def idle(self, outline: Outline) -> str | None:
        if self.share == 1:
            return "its share is all channels"
        layers = outline.full.layers(outline.size)
        if any((x.kernel > 1 or x.is_dense) and x.writes != HEAD and self._taken(x.n_in) < x.n_in for x in layers):
            return None
        return f"no layer reads more than {self.least} channels"

    def between_epochs(self, state: TrainState) -> TrainState:
        if self.share == 1 or self.until == 1 or self.since is not None or not state.is_due(self.until):
            return state
        state = state.with_strategy(self, self.having_learned(since=state.epoch))
        return state.with_event("layers read all of their channels from here on")

    def settled(self, state: TrainState) -> bool:
        """Only where layers have been exact for an epoch, if they ever are."""
        if self.share == 1 or self.until == 1 or state.pipeline.epochs == 1:
            return True
        return self.since is not None and state.epoch > self.since

    def product(self, layer: Convolution | Dense, multiply: Multiply) -> Multiply:
        n, taps = layer.weight.shape[1], layer.weight[0, 0].numel()
        if self._taken(n) == n or self.since is not None or (taps == 1 and layer.weight.dim() == 4):
            return multiply

        def sampled(x: Tensor, weight: Tensor) -> Tensor:
            taken = self._taken(weight.shape[1])  # a strategy around this one may have left some out already
            sizes = _sizes(x.detach(), weight.detach())
            if self.choice == "largest":
                channels = sizes.topk(taken).indices.sort().values
                return multiply(_some(x, channels), _some(weight, channels))
            channels, scales = _drawn(sizes, taken)
            some = _some(weight, channels)
            return multiply(_some(x, channels), some * scales.to(some.dtype).view(-1, *[1] * (some.dim() - 2)))

        return sampled

    def _taken(self, n: int) -> int:
        """Of so many channels."""
        return min(n, max(self.least, round(self.share * n)))


def _sizes(x: Tensor, weight: Tensor) -> Tensor:
    """[in] ||x_c|| ||w_c|| of each channel of x: [batch, in, ...] and weight: [out, in, ...], in fp32 at least."""
    import torch

    def norms(of: Tensor) -> Tensor:
        exact = of.float() if of.dtype in (torch.float16, torch.bfloat16) else of  # squares would overflow
        found: Tensor = torch.linalg.vector_norm(exact, dim=[dim for dim in range(of.dim()) if dim != 1])
        return found

    return norms(x) * norms(weight)


def _drawn(sizes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """([k] channels, ascending, perhaps repeated; [k] what each is to be multiplied by), drawn at random.

    With probabilities as the sizes, of least variance, but for a tenth that is even, so that no scale is too large.
    Each k-th of the probability has one draw. The sum over channels drawn, times their scales, has the sum over all as
    its expectation.
    """
    import torch

    n, total = len(sizes), sizes.sum()
    shares = torch.where(total > 0, sizes / total, 1 / n)
    probabilities = (1 - EVEN) * shares + EVEN / n
    at = (torch.arange(k, device=sizes.device) + torch.rand(k, device=sizes.device)) / k
    channels = torch.searchsorted(probabilities.cumsum(0), at.to(sizes.dtype)).clamp(max=n - 1)
    return channels, 1 / (k * probabilities[channels])


def _some(tensor: Tensor, channels: Tensor) -> Tensor:
    """Some channels, along dim 1. In channels_last: index_select along dim 1 would leave that layout."""
    return tensor.movedim(1, -1).index_select(-1, channels).movedim(-1, 1)
