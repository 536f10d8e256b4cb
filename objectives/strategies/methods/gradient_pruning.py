"""Stochastic pruning of gradients on their way back: Ye et al. 2020, section 3."""

from __future__ import annotations

from math import pi, sqrt
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor


def multiple(share: float) -> float:
    """What a threshold below which a `share` in [0, 1) of normal numbers of mean 0 lies is of their mean magnitude."""
    return NormalDist().inv_cdf((1 + share) / 2) * sqrt(pi / 2)


def pruned(gradient: Tensor, multiple: float) -> Tensor:
    """The gradient whose entries below a threshold are 0 or at the threshold, at random, so that their mean stays.

    The threshold is a `multiple` of the mean magnitude. An entry g below it becomes sign(g) threshold with probability
    |g| / threshold, else 0.
    """
    size = gradient.abs().to(torch.promote_types(gradient.dtype, torch.float32))
    threshold = multiple * size.mean()
    is_kept = torch.rand_like(size) * threshold < size
    # What has overflowed in fp16 stays what it is, so that the step is skipped: NaN and infinity are below nothing.
    return torch.where(size < threshold, gradient.sign() * threshold * is_kept, gradient).to(gradient.dtype)


class PrunedGradient(torch.autograd.Function):
    """The identity, whose gradient is `pruned`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, multiple: float) -> Tensor:
        ctx.multiple = multiple
        return x.detach()  # no view, so that what follows may change it in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return pruned(gradient, ctx.multiple), None
