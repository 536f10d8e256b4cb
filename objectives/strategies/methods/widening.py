"""New channels for a network that grows: which old ones they copy, and how they become different ones.

Exact copies would receive equal gradients for ever. Whichever way they are told apart, the function stays exactly the
same, but for `add_noise_`, which moves it a little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from objectives.networks import surgery
from objectives.networks.norms import gains
from objectives.networks.surgery import Index
from objectives.networks.trainee import Trainee
from objectives.strategies.methods import lasso

Kind = Literal["fresh", "antisymmetric", "copies"]


def sources(kind: Kind, n_old: int, n_new: int, device: torch.device) -> Tensor:
    """[n_old + n_new] the old channel that each channel of a grown axis copies; see `surgery.reindex`."""
    if kind == "fresh":
        added = torch.full((n_new,), surgery.NEW, device=device)
    elif kind == "copies":  # as published: at random, so that some have several copies and some have none
        added = torch.randint(n_old, (n_new,), device=device)
    else:  # each as often as any other: two copies that push against each other part soonest
        added = torch.randperm(n_old, device=device).repeat(-(-n_new // n_old))[:n_new]
    return torch.cat([torch.arange(n_old, device=device), added])


def can_learn(kind: Kind, trainee: Trainee, axis: str) -> bool:
    """Whether new channels of an axis can become different ones and be read: fresh filters need no training."""
    trained = [group for group in lasso.grouped(trainee.model) if group.weight.requires_grad]
    is_read, is_produced = (any(axis == getattr(g, side) for g in trained) for side in ("in_axis", "out_axis"))
    return is_read and (is_produced or kind == "fresh")


@torch.no_grad()
def add_noise_(trainee: Trainee, n_old: Mapping[str, int], noise: float) -> None:
    """Adds `noise` deviations of a weight to the filters of new channels, those beyond `n_old` of their axis."""
    for group in lasso.grouped(trainee.model):
        if noise > 0 and (old := n_old.get(group.out_axis or "")) is not None:
            copies = group.weight[old:]
            copies.add_(torch.randn_like(copies), alpha=float(noise * group.weight.std()))


@torch.no_grad()
def part_(trainee: Trainee, index: Index) -> None:
    """Lets consumers read the copies of a channel with weights that differ, and whose sum stays what it was.

    Two copies get V/2 + D and V/2 - D, with D as large as V: from the first step on their filters receive different
    gradients. Averages of the weights, whose copies are equal too, get the same D.
    """
    named = {name: parameter.detach() for name, parameter in trainee.model.named_parameters()}
    averages = [shadow.tensors for shadow in trainee.shadows.values() if shadow.travel == "weight"]
    for group in lasso.grouped(trainee.model):
        if group.in_axis is None or group.in_axis not in index:
            continue
        channels = index[group.in_axis]
        shape = [1, -1] + [1] * (group.weight.dim() - 2)
        copies = channels.bincount()[channels].to(group.weight.dtype).view(shape)
        apart = torch.randn_like(group.weight)
        sums = torch.zeros_like(group.weight).index_add_(1, channels, apart).index_select(1, channels)
        # of variance 1 again; a channel without a copy has nothing to part from
        apart = (apart - sums / copies) * (copies / (copies - 1).clamp(min=1)).sqrt() * (copies > 1)
        apart *= (group.weight * copies).std()
        for tensors in (named, *averages):
            if group.name in tensors:
                _add_(tensors, group.name, apart)


def _add_(tensors: Mapping[str, Tensor], name: str, amount: Tensor) -> None:
    """Adds to a weight; the gain of one that is normalised follows the length of its filters."""
    weight, gain = tensors[name], tensors.get(f"{name.removesuffix('weight')}gain")
    before = None if gain is None else gains.lengths(weight)
    weight.add_(amount)
    if gain is not None and before is not None:
        gains.keep_(gain, before, gains.lengths(weight))
