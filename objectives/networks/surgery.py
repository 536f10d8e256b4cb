"""Networks that change size while they train: `reindex`, `insert_block`, `drop_block`. Pure: Trainee -> Trainee.

Shrinking and growing are one gather. Channel j of an axis copies old channel `index[j]`: a subset prunes, repeats
widen. Copies of a channel share its weight towards their consumers (divided along dim 1), so that the function stays
the same; dually they share its gradient towards their producer (divided along dim 0), and momentum and first moments
travel as gradients do, second moments with the square of the share. Channels that copy none begin as in a new network,
unread by anyone. The old trainee is untouched: keeping it is the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from inspect import signature
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from objectives.networks.architecture import Architecture, Stage, interior_axis, stage_axis
from objectives.networks.resnet import Block, Labels, ResNet
from objectives.networks.trainee import Shadow, Trainee

NEW = -1  # in an index: a channel that copies none
Index = Mapping[str, Tensor]  # axis label -> [new channels] int64, the old channel that each new one copies, or NEW
Travel = Literal["weight", "gradient", "square", "mask"]  # how a tensor follows the channels that it belongs to
Source = Callable[[str], str | None]  # new tensor name -> old tensor name; None: it is new

# how the optimizer state of a parameter travels; scalars such as Adam's `step` are copied
STATE_TRAVEL: dict[str, Travel] = {
    "momentum_buffer": "gradient",
    "exp_avg": "gradient",
    "exp_avg_sq": "square",
    "max_exp_avg_sq": "square",
}


def reindex(trainee: Trainee, index: Index, epoch: int = 0) -> Trainee:
    """The trainee whose channel j of each axis copies old channel `index[axis][j]`; axes left out stay as they are.

    A subset of channels computes the same function where the others were dead; repeats always do (Net2WiderNet, Chen et
    al. 2016), and so do channels that are `NEW`: He-normal filters, batch norms at (1, 0), and weights of 0 towards old
    consumers, in all averages too. They, and the second and later copies of a channel, are born at `epoch`.

    Raises:
        ValueError: an unknown axis, an empty one, or a channel that does not exist.
    """
    architecture, sizes = trainee.model.architecture, axis_sizes(trainee.model)
    for label, channels in index.items():
        if label not in sizes:
            raise ValueError(f"there is no axis {label!r}: the network has {', '.join(sizes)}")
        if not len(channels) or int(channels.min()) < NEW or not 0 <= int(channels.max()) < sizes[label]:
            raise ValueError(f"axis {label} has channels 0 to {sizes[label] - 1}: {channels.tolist()} cannot be kept")
    stages = tuple(
        Stage(
            len(index.get(stage_axis(s), range(stage.width))),
            tuple(len(index.get(interior_axis(s, b), range(width))) for b, width in enumerate(stage.interiors)),
        )
        for s, stage in enumerate(architecture.stages)
    )
    rebuilt = _rebuilt(trainee, replace(architecture, stages=stages), lambda name: name, index)
    born = dict(rebuilt.born)
    for label, channels in index.items():
        before = born.get(label, torch.zeros(sizes[label], device=channels.device))
        first = {channel: j for j, channel in reversed(list(enumerate(channels.tolist())))}
        young = [channel == NEW or first[channel] != j for j, channel in enumerate(channels.tolist())]
        born[label] = before[channels].masked_fill(torch.tensor(young, device=channels.device), float(epoch))
    return replace(rebuilt, born=born)


def insert_block(trainee: Trainee, stage: int, position: int, interior: int, epoch: int = 0) -> Trainee:
    """The trainee with a new basic block at `position` of a stage, which computes the identity to begin with.

    Its last batch norm has gamma 0 (Goyal et al. 2017), so that relu(x + 0) = x; Net2DeeperNet for
    residual networks. Its convolutions are He-normal.

    Raises:
        ValueError: no such stage or position, or no channels.
    """
    architecture = trainee.model.architecture
    first = 0 if stage == 0 else 1  # a later stage begins with its transition block
    if not 0 <= stage < len(architecture.stages) or interior < 1:
        raise ValueError(f"a block of {interior} channels cannot be inserted into stage {stage}")
    old = architecture.stages[stage].interiors
    if not first <= position <= len(old):
        raise ValueError(f"stage {stage} takes a new block at positions {first} to {len(old)}, not at {position}")
    grown = _with_interiors(architecture, stage, (*old[:position], interior, *old[position:]))

    def earlier(block: int) -> int | None:
        return None if block == position else block - (block > position)

    rebuilt = _rebuilt(trainee, grown, _renamed(stage, earlier), {}, new_block=(stage, position))
    born = _shifted(rebuilt.born, stage, {b: b + (b >= position) for b in range(len(old))})
    device = next(rebuilt.model.parameters()).device
    born[interior_axis(stage, position)] = torch.full((interior,), float(epoch), device=device)
    return replace(rebuilt, born=born)


def drop_block(trainee: Trainee, stage: int, position: int) -> Trainee:
    """The trainee without the branch of a block, whose output must be constant: one of its convolutions is zero.

    What the branch adds is then the bias of its last batch norm. It goes into the bias of the projection shortcut; a
    basic block keeps it as an offset, and disappears where it is zero, in all averages too. Where the last convolution
    is zero, the function of a training step is preserved exactly; in evaluation as far as the running mean of the dead
    branch has decayed to 0. Where the first one is, the last one reads a constant, whose mean its batch norm takes
    away: what is lost is the pattern that the zero padding draws along the border, if the constant is not 0.

    Raises:
        ValueError: there is no such branch.
    """
    architecture = trainee.model.architecture
    old = architecture.stages[stage].interiors if 0 <= stage < len(architecture.stages) else ()
    if not 0 <= position < len(old) or not old[position]:
        raise ValueError(f"block {position} of stage {stage} has no branch")
    block = trainee.model.stages[stage][position]  # type: ignore[index]
    assert isinstance(block, Block)
    at, constant = f"stages.{stage}.{position}", f"stages.{stage}.{position}.bn2.bias"
    averages = [s.tensors[constant] for s in trainee.shadows.values() if s.travel == "weight" and constant in s.tensors]
    if block.shortcut is None and not any(bias.any() for bias in (block.bn2.bias, *averages)):
        shrunk = _with_interiors(architecture, stage, old[:position] + old[position + 1 :])
        source = _renamed(stage, lambda b: b + (b >= position))
        moved = {b: b - (b > position) for b in range(len(old)) if b != position}
        rebuilt = _rebuilt(trainee, shrunk, source, {})
        return replace(rebuilt, born=_shifted(rebuilt.born, stage, moved))
    shrunk = _with_interiors(architecture, stage, (*old[:position], 0, *old[position + 1 :]))
    rebuilt = _rebuilt(trainee, shrunk, lambda name: constant if name == f"{at}.offset" else name, {})
    if block.shortcut is not None:
        _add(rebuilt, f"{at}.shortcut.1.bias", trainee, constant)
    born = {label: epochs for label, epochs in rebuilt.born.items() if label != interior_axis(stage, position)}
    return replace(rebuilt, born=born)


def axis_sizes(model: ResNet) -> dict[str, int]:
    """Channels of every axis of a network, by label."""
    return model.architecture.axis_sizes()


def carried(tensor: Tensor, labels: Labels, index: Index, travel: Travel) -> Tensor:
    """A tensor gathered along its labelled dimensions, shared between the copies of a channel as `travel` says.

    Entries of channels that are `NEW` are whatever is to hand: see `_new_entries`.
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


def _new_entries(labels: Labels, index: Index) -> Tensor | None:
    """Where in a tensor a channel is `NEW`, as a mask that broadcasts over it; None where there is none."""
    found: Tensor | None = None
    for dim, label in enumerate(labels):
        if label in index and bool((index[label] == NEW).any()):  # type: ignore[index]
            mask = (index[label] == NEW).view([-1 if d == dim else 1 for d in range(len(labels))])  # type: ignore[index]
            found = mask if found is None else found | mask
    return found


def _as_new(name: str, tensor: Tensor, labels: Labels, index: Index) -> Tensor:
    """What a tensor of the model has in the entries of channels that are `NEW`; 0 in all others.

    A weight is He-normal over the fan-out where its output is new, whatever it reads, and 0 where only its input is.
    """
    begun = torch.zeros_like(tensor, requires_grad=False)
    if tensor.dim() == 1:
        return begun.fill_(float(name.endswith((".weight", ".running_var"))))
    if labels[0] in index:
        rows = index[labels[0]] == NEW  # type: ignore[index]
        fan_out = tensor[:, 0].numel()
        begun[rows] = torch.randn_like(begun[rows]) * (2 / fan_out) ** 0.5
    return begun


def _rebuilt(
    trainee: Trainee,
    architecture: Architecture,
    source: Source,
    index: Index,
    new_block: tuple[int, int] | None = None,
) -> Trainee:
    """A trainee of `architecture` with every tensor carried over from the one that `source` names."""
    old = trainee.model
    device = next(old.parameters()).device
    with torch.device("meta"):  # nothing is drawn, nothing is computed
        model = ResNet(architecture, old.ghost)
    model = model.to(next(old.parameters()).dtype).to_empty(device=device).train(old.training)
    if new_block is not None:
        _initialise(model.stages[new_block[0]][new_block[1]])  # type: ignore[index]
    labels, tensors = old.axes(), dict(old.state_dict(keep_vars=True))
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if (before := source(name)) in tensors and before is not None:
                tensor.copy_(carried(tensors[before], labels[before], index, "weight"))
                if (new := _new_entries(labels[before], index)) is not None:
                    tensor.copy_(torch.where(new, _as_new(name, tensor, labels[before], index), tensor))
                tensor.requires_grad_(tensors[before].requires_grad)
    shadows = {key: _shadow(shadow, model, labels, source, index) for key, shadow in trainee.shadows.items()}
    optimizer = _optimizer(trainee, model, labels, source, index)
    born = {label: epochs.clone() for label, epochs in trainee.born.items()}
    return replace(trainee, model=model, optimizer=optimizer, shadows=shadows, born=born)


def _shadow(shadow: Shadow, model: ResNet, labels: Mapping[str, Labels], source: Source, index: Index) -> Shadow:
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        before = source(name)
        if before in shadow.tensors and before is not None:
            kept = carried(shadow.tensors[before], labels[before], index, shadow.travel)
            if (new := _new_entries(labels[before], index)) is not None:
                begun = tensor.to(kept.dtype) if shadow.travel == "weight" else torch.ones_like(kept)
                kept = torch.where(new, begun, kept)
            tensors[name] = _laid_out(kept, tensor)
        elif before is None and (like := _has_role(name, shadow.tensors)):
            value = tensor if shadow.travel == "weight" else torch.ones_like(tensor)
            tensors[name] = _laid_out(value.to(shadow.tensors[like].dtype), tensor)
    return Shadow(tensors, shadow.travel)


def _optimizer(
    trainee: Trainee, model: ResNet, labels: Mapping[str, Labels], source: Source, index: Index
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
    if (new := _new_entries(labels, index)) is not None:
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
    """A known tensor that plays the same part in its block as `name` does, e.g. `bn2.bias`; else that of the stem."""
    _, layer, kind = name.rsplit(".", 2)
    in_stem = f"stem.{0 if layer.startswith('conv') else 1}.{kind}"
    return next((other for other in known if other.endswith(f".{layer}.{kind}")), in_stem if in_stem in known else None)


def _initialise(block: Block) -> None:
    """He-normal convolutions, batch norms as new, the last gamma 0."""
    for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        norm.reset_parameters()
    nn.init.zeros_(block.bn2.weight)


def _add(rebuilt: Trainee, name: str, trainee: Trainee, other: str) -> None:
    """Adds the old tensor `other` to the new one `name`, in the model and in every average of it."""
    with torch.no_grad():
        rebuilt.model.get_parameter(name).add_(trainee.model.get_parameter(other))
        for key, shadow in rebuilt.shadows.items():
            if shadow.travel == "weight" and name in shadow.tensors:
                shadow.tensors[name].add_(trainee.shadows[key].tensors[other])


def _with_interiors(architecture: Architecture, stage: int, interiors: tuple[int, ...]) -> Architecture:
    stages = list(architecture.stages)
    stages[stage] = replace(stages[stage], interiors=interiors)
    return replace(architecture, stages=tuple(stages))


def _renamed(stage: int, earlier: Callable[[int], int | None]) -> Source:
    """The names of tensors before the blocks of one stage moved; `earlier` gives a block's position before."""

    def source(name: str) -> str | None:
        parts = name.split(".")
        if parts[0] != "stages" or int(parts[1]) != stage:
            return name
        before = earlier(int(parts[2]))
        return None if before is None else ".".join([*parts[:2], str(before), *parts[3:]])

    return source


def _shifted(born: Mapping[str, Tensor], stage: int, moved: Mapping[int, int]) -> dict[str, Tensor]:
    """Epochs of birth by label after the blocks of one stage moved; blocks that `moved` leaves out are gone."""
    blocks = {interior_axis(stage, b): interior_axis(stage, after) for b, after in moved.items()}
    prefix = f"{stage_axis(stage)}.block"
    return {blocks.get(k, k): v for k, v in born.items() if not k.startswith(prefix) or k in blocks}
