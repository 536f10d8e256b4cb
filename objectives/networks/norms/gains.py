"""Weight normalisation under surgery: filters are g v / |v|, so the gain g must follow what becomes of the length of v.

Where the inputs of a filter are copied, or left out, v changes its length by a factor r. The gain times r keeps the
filter what it was. The gradient to the gain is then 1 / r of what it was, and that to v, which is orthogonal to it,
turns with it: with <dw, v> = dg |v|, by g dg (v / |v|^2 - v' / |v'|^2), where v is gathered, v' shared between copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from objectives.networks.architecture import WEIGHT_NORMED, Architecture
from objectives.networks.base import Labels, Network
from objectives.networks.network import build
from objectives.networks.norms.slots import MeanNorm
from objectives.networks.rebuilding import STATE_TRAVEL, Index, carried, new_entries
from objectives.networks.resnet import Convolution, ResNet
from objectives.networks.trainee import Trainee


def lengths(weight: Tensor) -> Tensor:
    """[out] of filters [out, in, kernel, kernel], summed in the same order whatever their layout in memory."""
    found: Tensor = torch.linalg.vector_norm(weight.detach().contiguous().flatten(1), dim=1)
    return found


def pairs(model: Network) -> list[tuple[str, str]]:
    """The names of the directions and the gain of every layer whose weights are normalised."""
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, Convolution)]
    return [(f"{name}.weight", f"{name}.gain") for name, module in named if module.gain is not None]


@torch.no_grad()
def keep_(gain: Tensor, before: Tensor, after: Tensor) -> None:
    """Lets filters be what they were though the length of their directions is no longer `before` but `after`. In place.

    All [out]; filters that were dead keep their gain.
    """
    gain.mul_(torch.where(before > 0, after / before, 1.0))


@torch.no_grad()
def follow_(before: Trainee, after: Trainee, index: Index) -> None:
    """Brings gains, their averages and the optimizer's state up to date after `reindex`. In place.

    New filters begin with their own length.
    """
    axes = before.model.axes()
    old, new = (dict(trainee.model.named_parameters()) for trainee in (before, after))
    for weight, gain in pairs(after.model):
        labels = axes[weight]
        if not any(label in index for label in labels):
            continue
        _state_follows_(before, after, (weight, gain), labels, index)
        _gain_follows_(old, new, (weight, gain), labels, index)
        for key, shadow in after.shadows.items():
            if shadow.travel == "weight" and {weight, gain} <= shadow.tensors.keys():
                _gain_follows_(before.shadows[key].tensors, shadow.tensors, (weight, gain), labels, index)


def _gain_follows_(
    old: Mapping[str, Tensor], new: Mapping[str, Tensor], names: tuple[str, str], labels: Labels, index: Index
) -> None:
    weight, gain = names
    length, is_new = lengths(new[weight]), _is_new(labels, index)
    keep_(new[gain], lengths(_rows(old[weight], labels, index)), length)
    if is_new is not None:
        new[gain].copy_(torch.where(is_new, length, new[gain]))


def _state_follows_(before: Trainee, after: Trainee, names: tuple[str, str], labels: Labels, index: Index) -> None:
    """See above; momentum is a sum of gradients."""
    (v, g), (new_v, new_g) = ([t.model.get_parameter(name) for name in names] for t in (before, after))
    states, gain_states = (after.optimizer.state.get(parameter, {}) for parameter in (new_v, new_g))
    length, new_length = lengths(_rows(v, labels, index)), lengths(new_v)
    is_kept = (length > 0) & (new_length > 0)
    if (is_new := _is_new(labels, index)) is not None:
        is_kept &= ~is_new
    ratio = torch.where(is_kept, new_length / length, 1.0)
    for key, value in gain_states.items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            continue
        if STATE_TRAVEL[key] == "gradient" and isinstance(states.get(key), Tensor):
            gathered = carried(v.detach(), labels, index, "mask")
            if (fresh := new_entries(labels, index)) is not None:
                gathered = gathered.masked_fill(fresh, 0.0)
            turned = gathered / _spread(length.square()) - new_v / _spread(new_length.square())
            amount = torch.where(is_kept, _rows(g.detach(), labels, index) * value, 0.0)
            states[key].add_(torch.where(_spread(is_kept), turned * _spread(amount), 0.0))
        value.div_(ratio if STATE_TRAVEL[key] == "gradient" else ratio.square())


def _rows(tensor: Tensor, labels: Labels, index: Index) -> Tensor:
    """A tensor gathered along its first dimension only."""
    return carried(tensor.detach(), (labels[0], *(None for _ in range(tensor.dim() - 1))), index, "mask")


def _is_new(labels: Labels, index: Index) -> Tensor | None:
    """Which filters copy none, [out]; None where all do."""
    return new_entries(labels[:1], index)


def _spread(rows: Tensor) -> Tensor:
    return rows.view(-1, 1, 1, 1)


@torch.no_grad()
def folded(model: Network) -> Network:
    """A network that computes the same in evaluation, its weights normalised once and for all; itself where none are.

    Its `norm` is "none", of scale 1, and what a mean-only batch norm takes away is in the biases.
    """
    architecture = model.architecture
    if not isinstance(model, ResNet) or not isinstance(architecture, Architecture):
        return model
    if architecture.norm not in WEIGHT_NORMED:
        return model
    like = next(model.parameters())
    with torch.device("meta"):
        made = build(replace(architecture, norm="none"), model.ghost)
    made = made.to(like.dtype).to_empty(device=like.device).train(model.training)
    known = dict(model.state_dict())
    names = {module: name for name, module in model.named_modules()}
    for layer, norm in model.normed():
        known[f"{names[layer]}.weight"] = layer.filters
        known[f"{names[norm]}.weight"] = torch.ones_like(norm.bias)
        if isinstance(norm, MeanNorm):
            known[f"{names[norm]}.bias"] = norm.bias - norm.running_mean
    made.load_state_dict({name: known[name] for name in made.state_dict()})
    return made
