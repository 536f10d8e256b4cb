"""Group lasso over channels (Wen et al. 2016), with scope and strength as in PruneTrain (Lym et al. 2019).

Groups are the output channels of every convolution, the input channels of every convolution but the first, and the
input channels of the head: for every weight exactly its dimensions that lie on a channel axis. In plain networks dense
layers are treated as convolutions are, and pixels are no groups. Each weight of a convolution is in two groups. Batch
norms and biases are in none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from objectives.networks.network import Network
from objectives.networks.plain import INPUTS

SMOOTHING = 1e-8  # under the root of a norm: without it plain gradient descent oscillates around zero

Exempt = Mapping[str, Tensor]  # axis label -> [channels] bool: channels whose groups are left in peace


@dataclass(frozen=True)
class Grouped:
    """A weight with its groups."""

    name: str
    weight: Tensor  # [out, in, ...]
    out_axis: str | None  # label of dim 0, None: its rows are no groups (classes)
    in_axis: str | None  # label of dim 1, None: its columns are no groups (image channels)


def grouped(model: Network) -> list[Grouped]:
    """Every weight that has groups, from stem to head."""
    axes = model.axes()
    weights = [(name, weight, axes[name]) for name, weight in model.named_parameters() if weight.dim() >= 2]
    found = [Grouped(name, weight, labels[0], labels[1]) for name, weight, labels in weights]
    found = [replace(group, in_axis=None) if group.in_axis == INPUTS else group for group in found]
    return [group for group in found if group.out_axis is not None or group.in_axis is not None]


def squares(weight: Tensor) -> Tensor:
    """[out, in] sums of squares over the kernel: both kinds of group norms follow from it."""
    return weight.detach().square().flatten(2).sum(2) if weight.dim() > 2 else weight.detach().square()


def value(model: Network) -> Tensor:
    """Sum of the norms of all groups but frozen ones, a scalar; the gradient is not recorded."""
    return torch.stack([_norms(squares(g.weight), g, {})[0] for g in _trained(model)]).sum()


def strength(ratio: float, loss: float, penalty: float) -> float:
    """The lambda at which the penalty makes up `ratio` of the whole loss: ratio * CE / ((1 - ratio) * GL)."""
    return ratio * loss / ((1 - ratio) * penalty)


class _Penalty(torch.autograd.Function):
    """The scaled sum of norms with its gradient in closed form: half the time of autograd's on a CPU."""

    @staticmethod
    def forward(ctx: Any, groups: list[Grouped], scale: float, exempt: Exempt, *weights: Tensor) -> Tensor:
        totals, factors = [], []
        for group in groups:
            total, factor = _norms(squares(group.weight), group, exempt)
            totals.append(total)
            factors.append(factor * scale)
        ctx.save_for_backward(*weights, *factors)
        return torch.stack(totals).sum() * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        half = len(saved) // 2
        pairs = zip(saved[:half], saved[half:], strict=True)
        return None, None, None, *(w * _spread(f * gradient, w) for w, f in pairs)


def penalty(model: Network, scale: float, exempt: Exempt) -> Tensor:
    """`scale` times the sum of the norms of all groups but those exempt and frozen ones, differentiable."""
    groups = _trained(model)
    result: Tensor = _Penalty.apply(groups, scale, exempt, *(g.weight for g in groups))  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def shrink_(model: Network, amount: Tensor, exempt: Exempt) -> None:
    """The proximal step: every group's norm falls by `amount` (scalar tensor), to zero at most; rows, then columns.

    In place, one pass over each weight: the norms of the columns after the rows have shrunk follow from the same
    squares. Frozen weights stay as they are.
    """
    for group in _trained(model):
        squared = squares(group.weight)
        scale: Tensor | None = None
        if group.out_axis is not None:
            rows = shrink_factor(squared.sum(1), amount, exempt.get(group.out_axis))
            squared, scale = squared * rows.square()[:, None], rows[:, None]
        if group.in_axis is not None:
            columns = shrink_factor(squared.sum(0), amount, exempt.get(group.in_axis))[None, :]
            scale = columns if scale is None else scale * columns
        assert scale is not None
        group.weight.mul_(_spread(scale, group.weight))


@torch.no_grad()
def dense_channels(model: Network, threshold: float) -> dict[str, Tensor]:
    """The channels of every axis in which some group has a weight of at least `threshold`: [channels] bool by label.

    The union over all producers and consumers of the axis: what is left out is dead at both ends, for the whole stage.
    A frozen producer, such as a whitening stem, can never die and has no say: what nobody reads is dead.
    """
    dense: dict[str, Tensor] = {}
    for group in grouped(model):
        alive = group.weight.detach().abs()
        largest = alive.flatten(2).amax(2) if alive.dim() > 2 else alive
        for axis, dim in ((group.out_axis, 1), (group.in_axis, 0)):
            if axis is not None and (dim == 0 or group.weight.requires_grad):
                mask = largest.amax(dim) >= threshold
                dense[axis] = dense[axis] | mask if axis in dense else mask
    return dense


def _trained(model: Network) -> list[Grouped]:
    """Every weight that has groups and is not frozen."""
    return [group for group in grouped(model) if group.weight.requires_grad]


def _norms(squared: Tensor, group: Grouped, exempt: Exempt) -> tuple[Tensor, Tensor]:
    """(sum of the norms of a weight's groups, [out, in] sum of the inverse norms that each entry is divided by)."""
    total = squared.new_zeros(())
    inverse = torch.zeros_like(squared)
    for axis, dim in ((group.out_axis, 1), (group.in_axis, 0)):
        if axis is None:
            continue
        norms = (squared.sum(dim) + SMOOTHING).sqrt()
        counted = torch.ones_like(norms) if axis not in exempt else (~exempt[axis]).to(norms.dtype)
        total = total + (norms * counted).sum()
        inverse = inverse + (counted / norms).unsqueeze(dim)
    return total, inverse


def shrink_factor(squared_norms: Tensor, amount: Tensor, exempt: Tensor | None) -> Tensor:
    """The factor that shrinks each group by `amount`, in [0, 1]."""
    factor = (1 - amount / squared_norms.clamp_min(torch.finfo(squared_norms.dtype).tiny).sqrt()).clamp_min_(0)
    return factor if exempt is None else factor.masked_fill(exempt, 1.0)


def _spread(scale: Tensor, weight: Tensor) -> Tensor:
    """[out or 1, in or 1] with the kernel's dimensions added."""
    return scale.view(*scale.shape, *([1] * (weight.dim() - 2)))
