"""What stands behind the convolutions of residual networks, by the `norm` of their architecture; weight norm itself.

All are called as a batch norm is: its `weight` is a scale, its `bias` what is added, [channels] each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.networks.architecture import NormKind

MOMENTUM = 0.1  # of running statistics, torch's default
SHORTEST = 1e-12  # length of a filter: a dead one, all 0, has no direction and computes 0


def normalised(weight: Tensor, gain: Tensor) -> Tensor:
    """Filters of the lengths `gain` [out] in the directions of `weight` [out, in, kernel, kernel]: g v / |v|.

    Weight normalisation (Salimans & Kingma 2016, equation 2). Its gradient to `weight` is orthogonal to it (equation
    3), so that only weight decay makes it shorter.
    """
    length = torch.linalg.vector_norm(weight, dim=(1, 2, 3))
    filters: Tensor = weight * (gain / length.clamp(min=SHORTEST)).view(-1, 1, 1, 1)
    return filters


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over ghost batches of at most `ghost` samples (Hoffer et al. 2017).

    0 normalises over the whole batch. Running statistics decay per step as those of an ordinary batch norm do.
    """

    def __init__(self, channels: int, ghost: int = 0) -> None:
        super().__init__(channels)
        self.ghost = ghost

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.ghost == 0 or self.ghost >= len(x):
            # Not super().forward: it increments num_batches_tracked, one more kernel per layer and step.
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, MOMENTUM, self.eps
            )
        # A chunk of samples stays contiguous in channels_last; folding ghosts into channels would copy the whole batch.
        # Chunks are as equal as can be: a last one of a single pixel would have no variance.
        chunks = x.tensor_split(-(-len(x) // self.ghost))
        momentum = 1 - (1 - MOMENTUM) ** (1 / len(chunks))
        normed = [
            F.batch_norm(chunk, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps)
            for chunk in chunks
        ]
        return torch.cat(normed)


class Shift(nn.Module):
    """Adds a number to each channel and normalises nothing: behind a convolution whose weights are normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        # nothing counts here: batch norms have it, and `ResNet.counter` is its name in the stem
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self._shifted(x, self.bias)

    def _shifted(self, x: Tensor, by: Tensor) -> Tensor:
        return x + by.view(1, -1, 1, 1).to(x.dtype)  # in the precision of x, as batch norms put it out

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Makes all as in a new network, also where memory was never written."""
        for name, tensor in self.state_dict().items():
            tensor.fill_(1 if name == "weight" else 0)


class Affine(Shift):
    """Scales each channel and adds a number to it: a batch norm that does not normalise."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(channels))

    def _shifted(self, x: Tensor, by: Tensor) -> Tensor:
        scale = self.weight.view(1, -1, 1, 1).to(x.dtype)
        return torch.addcmul(by.view(1, -1, 1, 1).to(x.dtype), x, scale)


class MeanNorm(Shift):
    """Mean-only batch normalisation (Salimans & Kingma 2016, section 3): takes the mean of a batch away, adds a bias.

    In evaluation the running mean. Over ghost batches as `GhostBatchNorm` is.
    """

    def __init__(self, channels: int, ghost: int = 0) -> None:
        super().__init__(channels)
        self.ghost = ghost
        self.running_mean: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self._shifted(x, self.bias - self.running_mean)
        n = -(-len(x) // self.ghost) if 0 < self.ghost < len(x) else 1
        momentum = 1 - (1 - MOMENTUM) ** (1 / n)
        parts = []
        for chunk in x.tensor_split(n):
            mean = chunk.mean((0, 2, 3), dtype=torch.promote_types(x.dtype, torch.float32))
            self.running_mean.lerp_(mean.detach(), momentum)
            parts.append(self._shifted(chunk, self.bias - mean))
        return torch.cat(parts) if n > 1 else parts[0]


Norm = GhostBatchNorm | Shift


def norm_of(kind: NormKind, channels: int, ghost: int) -> Norm:
    """What stands behind a convolution of so many channels."""
    match kind:
        case "batch":
            return GhostBatchNorm(channels, ghost)
        case "weight":
            return Shift(channels)
        case "mean_only":
            return MeanNorm(channels, ghost)
        case "none":
            return Affine(channels)
