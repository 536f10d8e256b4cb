"""MorphNet's arithmetic (Gordon et al., CVPR 2018): what channels cost, how strong they are, which widths fit a budget.

The cost of a network is bilinear in its widths: a layer that reads A channels and writes B costs C A B, with C = 2 k^2
of its pixels in FLOPs and k^2 in parameters, and 2 or 1 for each class in the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Literal

import torch
from torch import Tensor

from objectives.networks.architecture import Architecture, Stage, interior_axis, stage_axis
from objectives.networks.network import Network

Of = Literal["flops", "size"]


@dataclass(frozen=True)
class Cost:
    """What a network costs by the channels of its axes A: A^T pairs A / 2 + single A."""

    axes: tuple[str, ...]
    pairs: Tensor  # [axes, axes] symmetric, of the layers between two axes
    single: Tensor  # [axes] of the stem and the classifier, whose other end is fixed

    def at(self, sizes: Mapping[str, int]) -> float:
        """Of a network with so many channels on each axis; 0 where a branch is gone."""
        alive = torch.tensor([sizes[axis] for axis in self.axes]).to(self.pairs)
        return float(alive @ self.pairs @ alive / 2 + self.single @ alive)


def cost_of(architecture: Architecture, size: int, of: Of, device: torch.device | None = None) -> Cost:
    """Of an inference on an image of `size` pixels a side in FLOPs, or of the network in parameters of its layers."""
    axes = tuple(architecture.axis_sizes())
    place = {axis: number for number, axis in enumerate(axes)}
    pairs, single = torch.zeros(len(axes), len(axes)), torch.zeros(len(axes))
    for layer in architecture.layers(size):
        pixels = 2 * layer.outputs / layer.n_out if of == "flops" else 1
        each = layer.kernel**2 * pixels
        if layer.reads is None:
            single[place[layer.writes]] += each * layer.n_in
        else:
            at = place[layer.reads], place[layer.writes]
            pairs[at] += each
            pairs[at[::-1]] += each
    last = place[stage_axis(len(architecture.stages) - 1)]
    single[last] += architecture.n_classes * (2 if of == "flops" else 1)
    return Cost(axes, pairs.to(device), single.to(device))


def gammas(model: Network, axes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The names of the scales of batch norms on each axis: the stem, all blocks and the shortcut share a stage's."""
    found: dict[str | None, list[str]] = {}
    for name, labels in model.axes().items():
        if len(labels) == 1 and name.endswith(".weight"):
            found.setdefault(labels[0], []).append(name)
    return tuple(tuple(found[axis]) for axis in axes)


def strengths(model: Network, names: Sequence[Sequence[str]]) -> list[Tensor]:
    """[channels] of each axis: the largest magnitude among the scales that share a channel."""
    return [torch.stack([model.get_parameter(name).abs() for name in tied]).amax(0) for tied in names]


def regulariser(found: Sequence[Tensor], cost: Cost, threshold: float) -> Tensor:
    """G, a scalar: what the strengths cost, each times the alive channels at the other end of its layers.

    Alive are channels stronger than `threshold`. Their number is a constant to the gradient.
    """
    alive = torch.stack([(strength.detach() > threshold).sum() for strength in found]).to(cost.pairs)
    each = cost.pairs @ alive + cost.single
    result: Tensor = each @ torch.stack([strength.sum() for strength in found]).to(each)
    return result


def widest(alive: Mapping[str, int], cost: Cost, budget: float) -> tuple[float, dict[str, int]]:
    """(omega, channels by axis): the largest common factor on the alive channels whose network costs at most `budget`.

    An axis without alive channels stays without; all others keep one at least, whatever that costs.
    """
    cost = replace(cost, pairs=cost.pairs.cpu().double(), single=cost.single.cpu().double())

    def scaled(omega: float) -> dict[str, int]:
        return {axis: max(1, floor(omega * n + 0.5)) if n else 0 for axis, n in alive.items()}

    low, high = 0.0, 1.0
    while cost.at(scaled(high)) <= budget and high < 1e6:
        low, high = high, 2 * high
    most = max(alive.values(), default=1)
    while (high - low) * most > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if cost.at(scaled(middle)) <= budget else (low, middle)
    return low, scaled(low)


def resized(architecture: Architecture, sizes: Mapping[str, int]) -> Architecture:
    """The architecture with so many channels on each axis: a block without any is gone, a transition is a shortcut."""
    stages = []
    for s, stage in enumerate(architecture.stages):
        widths = [sizes.get(interior_axis(s, b), 0) for b in range(len(stage.interiors))]
        kept = tuple(width for b, width in enumerate(widths) if width or (s > 0 and b == 0))
        stages.append(Stage(sizes[stage_axis(s)], kept))
    return replace(architecture, stages=tuple(stages))
