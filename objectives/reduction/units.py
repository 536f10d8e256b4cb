"""What can be made smaller in a network, what it holds and costs, and where a cut is worth most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from objectives.networks import flops
from objectives.networks.network import Network
from objectives.networks.plain import INPUTS


@dataclass(frozen=True)
class Unit:
    """A channel axis of a network: a layer's neurons, or those of all layers that share them, as in a residual stage.

    Parameters and FLOPs are those of the layers that produce it, norms included. What nobody produces, the inputs of a
    dense first layer, counts those of the layers that read it.
    """

    neurons: int
    parameters: int
    flops: float  # of an inference, per image


def units(model: Network, size: int, *, inputs: bool = False) -> dict[str, Unit]:
    """What can be made smaller in a network for images of `size` pixels a side, by label, in the network's order.

    With `inputs` also the pixels that a dense first layer reads. The classes are no axis.
    """
    labels, layers = model.axes(), model.architecture.layers(size)
    found = {}
    for axis, n in model.architecture.axis_sizes().items():
        if axis == INPUTS and not inputs:
            continue
        end = 1 if axis == INPUTS else 0
        held = sum(p.numel() for name, p in model.named_parameters() if labels[name][end : end + 1] == (axis,))
        work = sum(layer.flops for layer in layers if (layer.reads if end else layer.writes) == axis)
        found[axis] = Unit(n, held, work)
    return found


def whole(model: Network, size: int, *, inputs: bool = False) -> Unit:
    """All of a network: its neurons with the classes, its parameters, its FLOPs."""
    sizes = model.architecture.axis_sizes()
    neurons = sum(n for axis, n in sizes.items() if inputs or axis != INPUTS) + model.architecture.n_classes
    parameters = sum(p.numel() for p in model.parameters())
    return Unit(neurons, parameters, flops.count(model.architecture, size)[0])


def worth(parts: Mapping[str, Unit], total: Unit, beta: float, gamma: float) -> dict[str, float]:
    """The score of each axis: its share of the neurons + beta x of the parameters + gamma x of the FLOPs.

    Viehmann 2020, section 5.1. The FLOPs are those of the products; his code has another formula for convolutions.
    """
    return {
        axis: part.neurons / total.neurons
        + beta * part.parameters / total.parameters
        + gamma * part.flops / total.flops
        for axis, part in parts.items()
    }


def most_worthwhile(scores: Mapping[str, float], shares: Mapping[str, float]) -> str | None:
    """The axis with the largest product of score and operation size, the first of equals; None where there is none.

    The thesis prints arg min, which on LeNet-5 would begin with the layer that there is least to gain from; its code
    takes the largest.
    """
    return max(shares, key=lambda axis: scores[axis] * shares[axis], default=None)
