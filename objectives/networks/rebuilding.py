"""How all that belongs to a network follows it into one of another shape: weights, averages, masks, optimizer.

Channel j of an axis copies old channel `index[j]`: a subset prunes, repeats widen. Copies of a channel share its weight
towards their consumers (divided along dim 1), so that the function stays the same; dually they share its gradient
towards their producer (divided along dim 0), and momentum and first moments travel as gradients do, second moments with
the square of the share. Channels that copy none begin as in a new network, unread by anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from inspect import signature
from itertools import takewhile
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from objectives.networks.network import Labels, Network, build
from objectives.networks.plain import AnyArchitecture
from objectives.networks.trainee import Shadow, Trainee

NEW = -1  # in an index: a channel that copies none
Index = Mapping[str, Tensor]  # axis label -> [new channels] int64, the old channel that each new one copies, or NEW
Travel = Literal["weight", "gradient", "square", "mask"]  # how a tensor follows the channels that it belongs to
Source = Callable[[str], str | None]  # new tensor name -> old tensor name; None: it is new
Fill = Callable[[Network], None]

# how the optimizer state of a parameter travels; scalars such as Adam's `step` are copied
STATE_TRAVEL: dict[str, Travel] = {
    "momentum_buffer": "gradient",
    "exp_avg": "gradient",
    "exp_avg_sq": "square",
    "max_exp_avg_sq": "square",
}


def rebuilt(
    trainee: Trainee,
    architecture: AnyArchitecture,
    source: Source,
    index: Index,
    fill: Fill | None = None,
) -> Trainee:
    """A trainee of `architecture` with every tensor carried over from the one that `source` names.

    `fill` gives values to those that it names none for, in place; averages begin with them, and the optimizer treats
    them as what plays the same part.
    """
    old = trainee.model
    device = next(old.parameters()).device
    with torch.device("meta"):  # nothing is drawn, nothing is computed
        model = build(architecture, old.ghost)
    model = model.to(next(old.parameters()).dtype).to_empty(device=device)
    if fill is not None:
        fill(model)
    labels, tensors = old.axes(), dict(old.state_dict(keep_vars=True))
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if (before := source(name)) in tensors and before is not None:
                tensor.copy_(carried(tensors[before], labels[before], index, "weight"))
                if (new := new_entries(labels[before], index)) is not None:
                    tensor.copy_(torch.where(new, _as_new(name, tensor, labels[before], index, model.fan_in), tensor))
                tensor.requires_grad_(tensors[before].requires_grad)
    model.still = old.still
    model.train(old.training)
    shadows = {key: _shadow(shadow, model, labels, source, index) for key, shadow in trainee.shadows.items()}
    optimizer = _optimizer(trainee, model, labels, source, index)
    born = {label: epochs.clone() for label, epochs in trainee.born.items()}
    return replace(trainee, model=model, optimizer=optimizer, shadows=shadows, born=born)


def carried(tensor: Tensor, labels: Labels, index: Index, travel: Travel) -> Tensor:
    """A tensor gathered along its labelled dimensions, shared between the copies of a channel as `travel` says.

    Entries of channels that are `NEW` are whatever is to hand: see `new_entries`.
    """
    shared_dim = {"weight": 1, "gradient": 0, "square": 0, "mask": None}[travel]
    for dim, label in enumerate(labels):
        if label is None or label not in index:
            continue
        channels = index[label].clamp(min=0)
        tensor = tensor.index_select(dim, channels)
        if dim == shared_dim:
            copies = index[label][index[label] != NEW].bincount(minlength=int(channels.max()) + 1)
            share = copies.clamp(min=1)[channels].to(tensor.dtype)
            share = share.square() if travel == "square" else share
            tensor = tensor / share.view([-1 if d == dim else 1 for d in range(tensor.dim())])
    return tensor


def new_entries(labels: Labels, index: Index) -> Tensor | None:
    """Where in a tensor a channel is `NEW`, as a mask that broadcasts over it; None where there is none."""
    found: Tensor | None = None
    for dim, label in enumerate(labels):
        if label in index and bool((index[label] == NEW).any()):  # type: ignore[index]
            mask = (index[label] == NEW).view([-1 if d == dim else 1 for d in range(len(labels))])  # type: ignore[index]
            found = mask if found is None else found | mask
    return found


def _as_new(name: str, tensor: Tensor, labels: Labels, index: Index, fan_in: bool) -> Tensor:
    """What a tensor of the model has in the entries of channels that are `NEW`; 0 in all others.

    A weight is He-normal, as in a new network, where its output is new, whatever it reads, and 0 where only its input
    is.
    """
    begun = torch.zeros_like(tensor, requires_grad=False)
    if tensor.dim() == 1:
        return begun.fill_(float(name.endswith((".weight", ".running_var"))))
    if labels[0] in index:
        rows = index[labels[0]] == NEW  # type: ignore[index]
        fan = tensor[0].numel() if fan_in else tensor[:, 0].numel()
        begun[rows] = torch.randn_like(begun[rows]) * (2 / fan) ** 0.5
    return begun


def _shadow(shadow: Shadow, model: Network, labels: Mapping[str, Labels], source: Source, index: Index) -> Shadow:
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        before = source(name)
        if before in shadow.tensors and before is not None:
            kept = carried(shadow.tensors[before], labels[before], index, shadow.travel)
            if (new := new_entries(labels[before], index)) is not None:
                begun = tensor.to(kept.dtype) if shadow.travel == "weight" else torch.ones_like(kept)
                kept = torch.where(new, begun, kept)
            tensors[name] = _laid_out(kept, tensor)
        elif before is None and (like := _has_role(name, shadow.tensors)):
            value = tensor if shadow.travel == "weight" else torch.ones_like(tensor)
            tensors[name] = _laid_out(value.to(shadow.tensors[like].dtype), tensor)
    return Shadow(tensors, shadow.travel)


def _optimizer(
    trainee: Trainee, model: Network, labels: Mapping[str, Labels], source: Source, index: Index
) -> Optimizer:
    """An optimizer of the same kind over the new parameters, each in the group and with the state of its source."""
    old = trainee.optimizer
    names = {parameter: name for name, parameter in trainee.model.named_parameters()}
    group_of = {names[p]: number for number, group in enumerate(old.param_groups) for p in group["params"]}
    groups: list[dict[str, object]] = [
        {key: [] if key == "params" else deepcopy(value) for key, value in group.items()} for group in old.param_groups
    ]
    state: dict[Tensor, dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        before = source(name)
        like = _has_role(name, group_of) if before is None else before
        if like not in group_of or like is None:
            continue  # the optimizer does not train it
        groups[group_of[like]]["params"].append(parameter)  # type: ignore[attr-defined]
        old_state = old.state.get(trainee.model.get_parameter(like), {})
        if like == before:
            state[parameter] = {
                key: _state(key, value, labels[like], index, parameter) for key, value in old_state.items()
            }
        else:
            state[parameter] = {key: _fresh(value, parameter) for key, value in old_state.items()}
    kept = [group for group in groups if group["params"]]
    accepted = signature(type(old)).parameters  # AdamW has a default that it does not take as an argument
    optimizer = type(old)(kept, **{key: value for key, value in old.defaults.items() if key in accepted})
    optimizer.state.update(state)
    return optimizer


def _state(key: str, value: object, labels: Labels, index: Index, parameter: nn.Parameter) -> object:
    """One entry of an optimizer's state after surgery."""
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 0:
        return value.clone()
    if key not in STATE_TRAVEL:
        raise ValueError(f"optimizer state {key!r} is not known to surgery: say in STATE_TRAVEL how it travels")
    kept = carried(value, labels, index, STATE_TRAVEL[key])
    if (new := new_entries(labels, index)) is not None:
        # Of second moments the mean: from 0, at the step count of the rest, Adam's first steps would be three times
        # as long as any later one.
        begun = value.mean() if STATE_TRAVEL[key] == "square" else value.new_zeros(())
        kept = torch.where(new, begun, kept)
    return _laid_out(kept, parameter)


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """A copy of `value` in the memory layout of `like`.

    A gather returns contiguous memory; fused optimizers walk a channels_last parameter and its state side by side.
    """
    return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)


def _fresh(value: object, parameter: nn.Parameter) -> object:
    """The state that a new parameter begins with: zero where an old one of its role has `value`, `step` included."""
    if not isinstance(value, Tensor):
        return value
    return torch.zeros_like(parameter, requires_grad=False) if value.dim() else torch.zeros_like(value)


def _has_role(name: str, known: Mapping[str, object]) -> str | None:
    """A known tensor that plays the same part in its block as `name` does, e.g. `bn2.bias`; else that of the stem.

    One of the same stage, where there is any.
    """
    if name in known:
        return name
    layer, kind = _role(name)
    in_stem = f"stem.{0 if layer.startswith('conv') else 1}.{kind}"
    alike = [other for other in known if _role(other) == (layer, kind)]
    nearest = max(alike, key=lambda other: _n_alike(name, other), default=in_stem)
    return nearest if nearest in known else None


def _n_alike(name: str, other: str) -> int:
    """How many parts two names begin with alike."""
    pairs = zip(name.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _role(name: str) -> tuple[str, str]:
    """The layer of a tensor within its block, and what it is there; a part of a factorised layer is that layer's."""
    *_, layer, kind = ["", *(part for part in name.split(".") if part not in ("reduce", "core", "expand"))]
    return layer, kind
