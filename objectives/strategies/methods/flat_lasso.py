"""The group lasso of `methods.lasso` over one flat vector: a fixed number of kernels, however many layers there are.

Thin networks on a GPU are bound by kernel launches, so this form is used there; whether it is the faster one was not
measured yet, and its sums there are not reproducible to the last bit. On a CPU the analytic form per layer is faster
(benchmarks/shapes.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.networks.network import Network
from objectives.strategies.methods import lasso
from objectives.strategies.methods.lasso import Exempt, Grouped

Side = tuple[Grouped, str | None, int]  # a weight, the axis along one of its dimensions, that dimension


class FlatGroups:
    """Every weight entry of a model with the number of its row group and of its column group.

    Group 0 collects what is in no group of that kind; like exempt groups it is never shrunk.
    """

    def __init__(self, model: Network, exempt: Exempt) -> None:
        self.model = model
        grouped = [group for group in lasso.grouped(model) if group.weight.requires_grad]
        self._weights = [group.weight for group in grouped]
        self._sides = [[(g, g.out_axis, 0) for g in grouped], [(g, g.in_axis, 1) for g in grouped]]
        self._rows, self._columns = ((self._numbered(s), self._counted(s, exempt)) for s in self._sides)

    def exempt_(self, exempt: Exempt) -> None:
        """Changes which groups are exempt, in place: what was captured of this goes on."""
        for side, (_, counted) in zip(self._sides, (self._rows, self._columns), strict=True):
            counted.copy_(self._counted(side, exempt))

    def shrink_(self, amount: Tensor) -> None:
        """The proximal step of `lasso.shrink_`, in place: rows, then columns."""
        with torch.no_grad():
            flat = torch.cat([_in_memory_order(weight) for weight in self._weights])
            squared, scale = flat.square(), torch.ones_like(flat)
            for number, counted in (self._rows, self._columns):
                norms = torch.zeros_like(counted).index_add_(0, number, squared)
                kept = torch.where(counted > 0, lasso.shrink_factor(norms, amount, None), 1.0)[number]
                squared, scale = squared * kept.square(), scale * kept
            sizes = [weight.numel() for weight in self._weights]
            torch._foreach_mul_([_in_memory_order(w) for w in self._weights], list(scale.split(sizes)))  # type: ignore[no-untyped-call]

    def penalty(self, scale: float) -> Tensor:
        """`scale` times the sum of the norms of all groups but those exempt, differentiable."""
        squared = torch.cat([_in_memory_order(weight) for weight in self._weights]).square()
        total = squared.new_zeros(())
        for number, counted in (self._rows, self._columns):
            norms = torch.zeros_like(counted).index_add(0, number, squared)
            total = total + ((norms + lasso.SMOOTHING).sqrt() * counted).sum()
        return total * scale

    def _numbered(self, side: list[Side]) -> Tensor:
        """[entries] int64 number of each entry's group."""
        numbers, n_groups = [], 1
        for group, axis, dim in side:
            weight = group.weight
            if axis is None:
                number = torch.zeros(weight.shape, dtype=torch.int64)
            else:
                size = weight.shape[dim]
                shape = [-1 if d == dim else 1 for d in range(weight.dim())]
                number = (n_groups + torch.arange(size)).view(shape).expand(weight.shape)
                n_groups += size
            numbers.append(_in_memory_order(number.contiguous(memory_format=_layout(weight))))
        return torch.cat(numbers).to(self._weights[0].device)

    def _counted(self, side: list[Side], exempt: Exempt) -> Tensor:
        """[groups] 1 where the group counts, else 0."""
        weight = self._weights[0]
        counts = [weight.new_zeros(1)]
        for group, axis, dim in side:
            if axis is not None:
                size = group.weight.shape[dim]
                counts.append(weight.new_ones(size) if axis not in exempt else (~exempt[axis]).to(weight))
        return torch.cat(counts).detach()


def _layout(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.dim() == 4 else torch.contiguous_format


def _in_memory_order(weight: Tensor) -> Tensor:
    """A flat view of a channels_last convolution weight or of a matrix: no kernel is launched."""
    ordered = weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight
    return ordered.view(-1)  # not reshape: a copy must not be written to
