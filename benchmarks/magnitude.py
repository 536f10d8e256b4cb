"""Pruning by magnitude alone, as rivals of SNARE do it: a network without a share of its channels.

`uniform` takes the same share of every layer, by L1 norms (Li et al. 2017). `across` has Torch-Pruning's magnitude
pruner choose (Fang et al. 2023): the norms of coupled layers, with all channels of the network in one order.
"""

from __future__ import annotations

from typing import cast

import torch
import torch_pruning
from torch import nn

from objectives.networks import surgery
from objectives.networks.architecture import HEAD
from objectives.networks.network import Network
from objectives.networks.plain import INPUTS
from objectives.networks.sequential import ConvolutionalLayer, Dense, PlainNetwork
from objectives.networks.trainee import Trainee
from objectives.reduction.attempts import cut
from objectives.reduction.terms import Terms

Named = dict[nn.Module, str]  # what a layer puts out: label of the axis


def uniform(model: Network, share: float, terms: Terms, seed: int) -> Network:
    """The network without the same share of every axis, at least one channel of each that has two."""
    for axis, size in model.architecture.axis_sizes().items():
        if axis != INPUTS and size > 1:
            model = cut(model, axis, size - max(1, round(share * size)), terms, seed)
    return model


def across(model: Network, share: float, terms: Terms, seed: int) -> Network:
    """The network without the weakest share of all channels together; the last channel of an axis stays."""
    network, named = standard(model)
    size = terms.dataset.size
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        torch.zeros(1, model.architecture.in_channels, size, size),
        importance=torch_pruning.importance.MagnitudeImportance(),
        global_pruning=True,
        pruning_ratio=share,
        ignored_layers=[each for each, axis in named.items() if axis == HEAD],
    )
    gone: dict[str, set[int]] = {}
    for group in pruner.step(interactive=True):
        dependency, indices = group[0]
        gone.setdefault(named[dependency.target.module], set()).update(indices)
    sizes = model.architecture.axis_sizes()
    kept = {axis: [n for n in range(sizes[axis]) if n not in each] or [0] for axis, each in gone.items()}
    trainee = Trainee(model, torch.optim.SGD(model.parameters(), lr=0.0), shadows={}, born={})
    return surgery.reindex(trainee, {axis: torch.tensor(each) for axis, each in kept.items()}).model.eval()


def standard(model: Network) -> tuple[nn.Module, Named]:
    """A copy that computes the same by layers that Torch-Pruning knows, and what each of them puts out."""
    if isinstance(model, PlainNetwork):
        return _sequence(model)
    copy = type(model)(model.architecture)  # type: ignore[call-arg]
    copy.load_state_dict(model.state_dict())
    known = [(name, each) for name, each in copy.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    return copy.eval(), {each: copy.axes()[f"{name}.weight"][0] or HEAD for name, each in known}


def _sequence(model: PlainNetwork) -> tuple[nn.Module, Named]:
    layers: list[nn.Module] = []
    named: Named = {}
    plain = iter(model.architecture.convolutions)
    for name, _ in model.parts():
        part = cast("ConvolutionalLayer | Dense", model.get_submodule(name))
        weight, bias = (p.detach().clone() for p in part.parameters())  # families with batch norms: not compared
        if isinstance(part, ConvolutionalLayer):
            each = next(plain)
            layer: nn.Module = nn.Conv2d(weight.shape[1], len(weight), each.kernel, each.stride, each.padding)
            pool = nn.AvgPool2d if each.pooling == "average" else nn.MaxPool2d
            layers += [layer, nn.ReLU(), pool(each.pool)]
        else:
            weight = weight.flatten(1)
            layer = nn.Linear(weight.shape[1], len(weight))
            layers += [nn.Flatten(), layer, *([] if name == HEAD else [nn.ReLU()])]
        layer.load_state_dict({"weight": weight, "bias": bias})
        named[layer] = name
    return nn.Sequential(*layers).eval(), named
