"""Identity initialisation: convolutions begin by passing on what they receive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.plain import AnyArchitecture
    from objectives.state import TrainState


@dataclass(frozen=True)
class IdentityInit(Strategy):
    """Starts 3x3 convolutions as (part of) the identity (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.3).

    As there, it is every 3x3 convolution behind the stem, and of each the first min(inputs, outputs) filters; filters
    beyond the inputs keep their random start. That matters most where nothing else passes the image on: the transitions
    of the fast family, a convolution and a pooling. In the branch of a residual block it makes the branch begin as a
    second, rectified copy of the shortcut instead of noise. The stem is left out, since it maps pixels to features,
    and so are 1x1 projections, which are no part of the published method.

    Put it before strategies that average weights: they begin with the weights that they find.

    Raises:
        ValueError: a share outside its range.
    """

    share: float = 1.0  # of the identity in those filters, in [0, 1]; the rest is their random start. 0 changes nothing

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of an identity initialisation is {self.share!r}: it must lie in [0, 1]")

    def describe(self) -> str:
        return "identity init" if self.share == 1 else f"identity init {self.share:.0%}"

    def idle(self, outline: Outline) -> str | None:
        if self.share == 0:
            return "its share is 0"
        has_any = _has_3x3_behind_first(outline.full, outline.size)
        return None if has_any else "the network has no 3x3 convolution behind the first"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.share == 0:
            return state
        import torch

        from objectives.networks import surgery

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        with torch.no_grad():
            for layer in trainee.model.convolutions()[1:]:
                if layer.kernel_size == (3, 3):
                    filters = layer.weight[: layer.in_channels]
                    identity = torch.nn.init.dirac_(torch.empty_like(filters))
                    filters.lerp_(identity, self.share)
        return replace(state, trainee=trainee)


@lru_cache(maxsize=256)  # asked of every pipeline that a space draws
def _has_3x3_behind_first(full: AnyArchitecture, size: int) -> bool:
    return any(layer.kernel == 3 and layer.dims == 2 and not layer.is_dense for layer in full.layers(size)[1:])
