"""`Trainee`: a network with all that follows it through surgery. Frozen; surgery returns new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from objectives.networks.network import Network

Travel = Literal["weight", "mask"]  # a weight is shared between the copies of a channel, a mask is copied


@dataclass(frozen=True)
class Shadow:
    """Memory shaped like the model: averages, masks, anchors."""

    tensors: Mapping[str, Tensor]  # by the name of the parameter or buffer that each is shaped like
    travel: Travel  # how it follows the model through surgery


@dataclass(frozen=True)
class Trainee:
    """All that surgery transforms and that a step may read."""

    model: Network
    optimizer: Optimizer
    shadows: Mapping[str, Shadow]
    born: Mapping[str, Tensor]  # axis label -> [channels], epoch of birth

    def with_shadow(self, name: str, shadow: Shadow) -> Trainee:
        """This trainee with one more shadow."""
        return replace(self, shadows={**self.shadows, name: shadow})
