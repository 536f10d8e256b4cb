"""Networks that change while they train. Pure: Trainee -> Trainee. The old one is untouched: it is the way back.

`reindex` shrinks and widens, `insert_block`, `insert_branch` and `drop_block` change the depth, `factorise` makes
layers of several thinner ones, `resize_stem` resamples the kernels of the stem, `begun_anew` starts from scratch with
another network. `rebuilding` says how weights, averages and the optimizer follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from objectives.networks import factors as factorisation
from objectives.networks.architecture import HEAD, STEM, Architecture, NormKind, interior_axis, stage_axis
from objectives.networks.network import Network, build
from objectives.networks.norms import gains
from objectives.networks.norms.slots import normalised
from objectives.networks.plain import AnyArchitecture, residual
from objectives.networks.rebuilding import NEW, Index, Source, rebuilt
from objectives.networks.resnet import Block, Convolution, module_name
from objectives.networks.trainee import Trainee

__all__ = [
    "NEW",
    "Index",
    "axis_sizes",
    "begun_anew",
    "drop_block",
    "factorise",
    "insert_block",
    "insert_branch",
    "reindex",
    "resize_stem",
]

T = TypeVar("T")
GAIN = "stem.0.gain"  # name of the gain of the stem's convolution, where weights are normalised


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
    after = rebuilt(
        trainee, architecture.resized({axis: len(new) for axis, new in index.items()}), lambda name: name, index
    )
    gains.follow_(trainee, after, index)
    born = dict(after.born)
    for label, channels in index.items():
        before = born.get(label, torch.zeros(sizes[label], device=channels.device))
        first = {channel: j for j, channel in reversed(list(enumerate(channels.tolist())))}
        young = [channel == NEW or first[channel] != j for j, channel in enumerate(channels.tolist())]
        born[label] = before[channels].masked_fill(torch.tensor(young, device=channels.device), float(epoch))
    return replace(after, born=born)


def insert_block(trainee: Trainee, stage: int, position: int, interior: int, epoch: int = 0) -> Trainee:
    """The trainee with a new basic block at `position` of a stage, which computes the identity to begin with.

    Its last scale, gamma or gain, is 0 (Goyal et al. 2017), so that relu(x + 0) = x; Net2DeeperNet for residual
    networks. Its convolutions are He-normal.

    Raises:
        ValueError: no such stage or position, or no channels.
    """
    architecture = residual(trainee.model.architecture)
    first = 0 if stage == 0 else 1  # a later stage begins with its transition block
    if not 0 <= stage < len(architecture.stages) or interior < 1:
        raise ValueError(f"a block of {interior} channels cannot be inserted into stage {stage}")
    old = architecture.stages[stage].interiors
    if not first <= position <= len(old):
        raise ValueError(f"stage {stage} takes a new block at positions {first} to {len(old)}, not at {position}")
    moved = {b: b + (b >= position) for b in range(len(old))}
    grown = _with_interiors(architecture, stage, (*old[:position], interior, *old[position:]), moved)

    def earlier(block: int) -> int | None:
        return None if block == position else block - (block > position)

    def fill(model: Network) -> None:
        _initialise(model, f"stages.{stage}.{position}")

    after = rebuilt(trainee, grown, _renamed(stage, earlier), {}, fill)
    born = _relabelled(after.born, stage, moved)
    device = next(after.model.parameters()).device
    born[interior_axis(stage, position)] = torch.full((interior,), float(epoch), device=device)
    return replace(after, born=born)


def drop_block(trainee: Trainee, stage: int, position: int) -> Trainee:
    """The trainee without the branch of a block, whose output must be constant: one of its convolutions is zero.

    What the branch adds is then the bias of its last norm, and what its last convolution makes of a constant that no
    batch norm takes away. It goes into the bias of the projection shortcut; a
    basic block keeps it as an offset, and disappears where it is zero, in all averages too. Where the last convolution
    is zero, the function of a training step is preserved exactly; in evaluation as far as the running mean of the dead
    branch has decayed to 0. Where the first one is, the last one reads a constant, whose mean its batch norm takes
    away: what is lost is the pattern that the zero padding draws along the border, if the constant is not 0.

    Raises:
        ValueError: there is no such branch.
    """
    architecture = residual(trainee.model.architecture)
    old = architecture.stages[stage].interiors if 0 <= stage < len(architecture.stages) else ()
    if not 0 <= position < len(old) or not old[position]:
        raise ValueError(f"block {position} of stage {stage} has no branch")
    block = trainee.model.get_submodule(f"stages.{stage}.{position}")
    assert isinstance(block, Block)
    at = f"stages.{stage}.{position}"
    bias, constants = f"{at}.bn2.bias", _constants(trainee, at)
    moved = {b: b for b in range(len(old)) if b != position}
    if block.shortcut is None and not any(constant.any() for constant in constants.values()):
        moved = {b: b - (b > position) for b in moved}
        shrunk = _with_interiors(architecture, stage, old[:position] + old[position + 1 :], moved)
        after = rebuilt(trainee, shrunk, _renamed(stage, lambda b: b + (b >= position)), {})
        return replace(after, born=_relabelled(after.born, stage, moved))
    shrunk = _with_interiors(architecture, stage, (*old[:position], 0, *old[position + 1 :]), moved)
    after = rebuilt(trainee, shrunk, lambda name: bias if name == f"{at}.offset" else name, {})
    _add(after, f"{at}.offset" if block.shortcut is None else f"{at}.shortcut.1.bias", constants)
    return replace(after, born=_relabelled(after.born, stage, moved))


def insert_branch(trainee: Trainee, stage: int, position: int, interior: int, epoch: int = 0) -> Trainee:
    """The trainee with a branch in a block that has none: `drop_block` backwards. The function stays the same.

    The branch adds what stood in its place: its last scale is 0, its last bias the offset. Its convolutions are
    He-normal.

    Raises:
        ValueError: no such block, one that has a branch, or no channels.
    """
    architecture = residual(trainee.model.architecture)
    old = architecture.stages[stage].interiors if 0 <= stage < len(architecture.stages) else ()
    if not 0 <= position < len(old) or old[position] or interior < 1:
        raise ValueError(f"block {position} of stage {stage} takes no branch of {interior} channels")
    at, moved = f"stages.{stage}.{position}", {b: b for b in range(len(old))}
    grown = _with_interiors(architecture, stage, (*old[:position], interior, *old[position + 1 :]), moved)

    def source(name: str) -> str | None:
        if not name.startswith(f"{at}.") or name.startswith(f"{at}.shortcut"):
            return name
        return f"{at}.offset" if name == f"{at}.bn2.bias" and not (stage and position == 0) else None

    def fill(model: Network) -> None:
        _initialise(model, at)

    after = rebuilt(trainee, grown, source, {}, fill)
    device = next(after.model.parameters()).device
    born = {interior_axis(stage, position): torch.full((interior,), float(epoch), device=device)}
    return replace(after, born={**after.born, **born})


def factorise(trainee: Trainee, ranks: Mapping[str, tuple[int, ...]]) -> Trainee:
    """The trainee whose layers of these labels are made of thinner ones, with so many channels in between.

    Convolutions of blocks by Tucker-2, the head by its singular values: see `factors`. At full ranks the function stays
    the same, in all averages too: an average keeps its own weight as far as the new layers can express it.

    Raises:
        ValueError: there is no such layer, it is factorised already, or the ranks do not fit it.
    """
    architecture, model = residual(trainee.model.architecture), trainee.model
    made = dict(architecture.factors)
    for label in ranks:
        if label in made:
            raise ValueError(f"layer {label!r} is factorised already")
    after = replace(architecture, factors=tuple(sorted({**made, **ranks}.items())))
    names = {label: module_name(label) for label in ranks}
    parts = {
        label: factorisation.of(model.get_parameter(f"{name}.weight").detach(), ranks[label])
        for label, name in names.items()
    }
    bias = f"{names[HEAD]}.bias" if HEAD in names else None

    def source(name: str) -> str | None:
        if bias is not None and name == f"{HEAD}.expand.bias":
            return bias
        return None if any(name.startswith(f"{of}.") for of in names.values()) else name

    def fill(new: Network) -> None:
        with torch.no_grad():
            for label, name in names.items():
                for part, value in parts[label].items():
                    new.get_parameter(f"{name}.{part}.weight").copy_(value)

    result = rebuilt(trainee, after, source, {}, fill)
    for key, shadow in result.shadows.items():
        known = trainee.shadows[key].tensors
        for label, name in names.items():
            if shadow.travel == "weight" and f"{name}.weight" in known:
                for part, value in factorisation.like(known[f"{name}.weight"], parts[label]).items():
                    shadow.tensors[f"{name}.{part}.weight"].copy_(value)
    return result


def resize_stem(trainee: Trainee, kernel: int) -> Trainee:
    """The trainee whose stem has kernels of another side in pixels: resampled, so that they see larger images alike.

    Each tap keeps its place in what the kernel covers and is shared between the pixels beside it. On an enlarged image
    that is linear over a kernel the same numbers come out; the factor of the scaling law, one over the square of the
    stretch, is in that (Porto Buarque de Gusmao et al. 2016, arXiv 1610.03623). Momentum begins at 0.

    Raises:
        ValueError: the side is even.
    """
    old = trainee.model.get_parameter(STEM)
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"a kernel of {kernel} pixels has no middle: its side must be odd")
    before = old.shape[-1]
    at = (torch.arange(before, dtype=torch.float64) - (before - 1) / 2) * (kernel / before) + (kernel - 1) / 2
    pixels = torch.arange(kernel)
    shares = (1 - (at.clamp(0, kernel - 1)[:, None] - pixels).abs()).clamp(min=0)  # [taps, pixels]

    def resampled(weight: Tensor) -> Tensor:
        each = shares.to(weight.device)  # in double: TF32, which a number format may switch on, would round the weights
        return torch.einsum("oikl,kp,lq->oipq", weight.detach().double(), each, each).to(weight.dtype)

    def fill(model: Network) -> None:
        with torch.no_grad():
            model.get_parameter(STEM).copy_(resampled(old)).requires_grad_(old.requires_grad)

    architecture = replace(residual(trainee.model.architecture), stem_kernel=kernel)
    result = rebuilt(trainee, architecture, lambda name: None if name == STEM else name, {}, fill)
    new = dict(result.model.named_parameters())
    for key, shadow in result.shadows.items():
        if shadow.travel == "weight" and STEM in shadow.tensors:
            average = trainee.shadows[key].tensors[STEM]
            shadow.tensors[STEM].copy_(resampled(average))
            if GAIN in shadow.tensors:
                gains.keep_(shadow.tensors[GAIN], gains.lengths(average), gains.lengths(shadow.tensors[STEM]))
    if GAIN in new:
        gains.keep_(new[GAIN], gains.lengths(old), gains.lengths(new[STEM]))
    return result


def begun_anew(trainee: Trainee, architecture: AnyArchitecture) -> Trainee:
    """A trainee of another architecture before its first step: new weights, drawn on the CPU, and nothing remembered.

    The optimizer keeps its options, by the part that a tensor plays in its block.
    """

    def fill(model: Network) -> None:
        model.load_state_dict(build(architecture, model.ghost).state_dict())

    after = replace(rebuilt(trainee, architecture, lambda name: None, {}, fill), born={})
    after.model.still = 0  # what it computes is no longer what was worth keeping
    return after


def axis_sizes(model: Network) -> dict[str, int]:
    """Channels of every axis of a network, by label."""
    return model.architecture.axis_sizes()


def _initialise(model: Network, name: str) -> None:
    """He-normal convolutions of a block, norms as new, the last scale 0."""
    block = model.get_submodule(name)
    assert isinstance(block, Block)
    for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        assert isinstance(convolution, Convolution)
        nn.init.kaiming_normal_(convolution.weight, mode=model.mode, nonlinearity="relu")
        convolution.reset_gain()
        norm.reset_parameters()
    nn.init.zeros_(block.last_scale)


def _constants(trainee: Trainee, at: str) -> dict[str | None, Tensor]:
    """What a dead branch adds to every pixel, [channels], by the name of the average; None: the model's own."""
    takes_away = residual(trainee.model.architecture).norm in _TAKE_AWAY
    averages = [(key, shadow.tensors) for key, shadow in trainee.shadows.items() if shadow.travel == "weight"]
    copies: list[tuple[str | None, Mapping[str, Tensor]]] = [(None, trainee.model.state_dict()), *averages]
    found: dict[str | None, Tensor] = {}
    for key, every in copies:
        known = {name.removeprefix(f"{at}."): tensor for name, tensor in every.items() if name.startswith(f"{at}.")}
        if "bn2.bias" not in known:
            continue
        found[key] = known["bn2.bias"]
        if not takes_away and known["conv1.weight"].abs().max() < known["conv2.weight"].abs().max():  # it is dead
            filters = known["conv2.weight"]
            filters = normalised(filters, known["conv2.gain"]) if "conv2.gain" in known else filters
            read = filters.sum((2, 3)) @ known["bn1.bias"].relu()
            found[key] = known["bn2.bias"] + known.get("bn2.weight", 1.0) * read
    return found


_TAKE_AWAY: tuple[NormKind, ...] = ("batch", "mean_only")  # a constant that a convolution puts out


def _add(after: Trainee, name: str, constants: Mapping[str | None, Tensor]) -> None:
    """Adds to the tensor `name` in the model, and in every average of it; an offset becomes what is added."""
    with torch.no_grad():
        for key, constant in constants.items():
            tensor = after.model.get_parameter(name) if key is None else after.shadows[key].tensors.get(name)
            if tensor is not None:
                tensor.copy_(constant if name.endswith(".offset") else tensor + constant)


def _with_interiors(
    architecture: Architecture, stage: int, interiors: tuple[int, ...], moved: Mapping[int, int]
) -> Architecture:
    """The architecture with other blocks in one stage; `moved` says where those went that are still there."""
    stages = list(architecture.stages)
    stages[stage] = replace(stages[stage], interiors=interiors)
    factors = _relabelled(dict(architecture.factors), stage, moved)
    return replace(architecture, stages=tuple(stages), factors=tuple(sorted(factors.items())))


def _renamed(stage: int, earlier: Callable[[int], int | None]) -> Source:
    """The names of tensors before the blocks of one stage moved; `earlier` gives a block's position before."""

    def source(name: str) -> str | None:
        parts = name.split(".")
        if parts[0] != "stages" or int(parts[1]) != stage:
            return name
        before = earlier(int(parts[2]))
        return None if before is None else ".".join([*parts[:2], str(before), *parts[3:]])

    return source


def _relabelled(known: Mapping[str, T], stage: int, moved: Mapping[int, int]) -> dict[str, T]:
    """What is known by labels of axes or layers, after the blocks of a stage moved; what `moved` leaves out is gone."""
    prefix = f"{stage_axis(stage)}.block"
    found: dict[str, T] = {}
    for label, value in known.items():
        if not label.startswith(prefix):
            found[label] = value
            continue
        block, dot, rest = label.removeprefix(prefix).partition(".")
        if int(block) in moved:
            found[f"{interior_axis(stage, moved[int(block)])}{dot}{rest}"] = value
    return found
