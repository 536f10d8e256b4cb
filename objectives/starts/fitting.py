"""A start as the network that is asked for: pruned, widened, shortened, deepened, of other classes and channels.

All by `networks.surgery`, so that what it computes is known. Channels that are copied and blocks that are added change
nothing; nor do image channels, as `adapted` says. What is pruned, and the last blocks of a stage, are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from objectives.networks import factors, surgery
from objectives.networks.architecture import HEAD, Architecture
from objectives.networks.network import Network
from objectives.networks.plain import INPUTS, AnyArchitecture, residual
from objectives.networks.rebuilding import rebuilt
from objectives.networks.resnet import Block, Convolution, module_name
from objectives.networks.trainee import Trainee
from objectives.starts.likeness import mismatch
from objectives.starts.start import Start
from objectives.strategies.methods import widening

LUMINANCE = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # of red, green, blue: as `data.dataset` makes colour grey


def fitted(start: Start, like: Network, classes: tuple[str, ...]) -> Network:
    """The start as a network of the architecture of `like`, on the CPU, in its own precision.

    Its classifier where it tells these classes, in this order, else that of `like`. What is new draws from the default
    generator.

    Raises:
        ValueError: the start does not fit, in one line.
    """
    asked = like.architecture
    if why := mismatch(start.network.architecture, asked):
        raise ValueError(f"{start.words}: {why}")
    network = deepcopy(start.network)
    trainee = _without_factors(Trainee(network, torch.optim.SGD(network.parameters(), lr=0.0), {}, {}))
    trainee = _of_widths(_of_blocks(trainee, asked), asked)
    trainee = _of_channels(_deepened(trainee, asked), start, asked.in_channels)
    if not start.classes or start.classes != classes:
        trainee = _with_head_of(trainee, like)
    found = trainee.model.architecture
    if found != asked:
        raise ValueError(f"{start.words}: no network can begin {asked.describe()} from {found.describe()}")
    return trainee.model.eval()


def strengths(model: Network) -> dict[str, Tensor]:
    """[channels] of every axis: the L1 norms of all filters that write it, together (Li et al. 2017)."""
    found: dict[str, Tensor] = {}
    axes = model.axes()
    for name, module in model.named_modules():
        axis = axes.get(f"{name}.weight", (None,))[0]
        filters = module.filters if isinstance(module, Convolution) else getattr(module, "weight", None)
        if axis is not None and isinstance(filters, Tensor) and filters.dim() > 1:
            norms = filters.detach().abs().flatten(1).sum(1)
            found[axis] = found[axis] + norms if axis in found else norms
    return found


def adapted(filters: Tensor, channels: int, std: tuple[float, ...]) -> Tensor:
    """Filters [out, in, height, width] for images of so many channels, `std` being what they were normalised by.

    Of colour on grey images the sum over the channels, each times its share in the mean deviation: the same outputs
    where the means of the channels are equal, but for rounding. Of grey on colour images the weights of luminance: the
    same outputs, but for the rounding of pixels to whole grey levels. Wavelets of a channel are treated alike.
    """
    n_out, n_in, height, width = filters.shape
    had = len(std)
    by_channel = filters.reshape(n_out, n_in // had, had, height, width)
    if channels == 1:
        shares = sum(std) / had / torch.tensor(std).to(filters)
        return (by_channel * shares.view(-1, 1, 1)).sum(2)
    shares = torch.tensor(LUMINANCE).to(filters)
    return (by_channel * shares.view(-1, 1, 1)).reshape(n_out, -1, height, width)


def _of_widths(trainee: Trainee, asked: AnyArchitecture) -> Trainee:
    """The trainee with as many channels as are asked: the strongest, or all and copies that will part."""
    have, want = trainee.model.architecture.axis_sizes(), asked.axis_sizes()
    found = strengths(trainee.model)
    due = {axis: n for axis, n in have.items() if want.get(axis, n) != n and axis != INPUTS}
    kept = {axis: found[axis].topk(want[axis]).indices.sort().values for axis, n in due.items() if want[axis] < n}
    device = next(trainee.model.parameters()).device
    copied = {
        axis: widening.sources("antisymmetric", n, want[axis] - n, device)
        for axis, n in due.items()
        if axis not in kept
    }
    if not due:
        return trainee
    after = surgery.reindex(trainee, {**kept, **copied})
    widening.part_(after, copied)
    return after


def _of_blocks(trainee: Trainee, asked: AnyArchitecture) -> Trainee:
    """The trainee without the last blocks of stages that are to have fewer, with branches where they are asked for."""
    if not isinstance(asked, Architecture):
        return trainee
    for s, wanted in enumerate(asked.stages):
        have = residual(trainee.model.architecture).stages[s].interiors
        for b in reversed(range(len(have))):
            want = wanted.interiors[b] if b < len(wanted.interiors) else 0
            if want and not have[b]:
                trainee = surgery.insert_branch(trainee, s, b, want)
            elif b >= len(wanted.interiors) or (have[b] and not want):
                trainee = _without_branch(trainee, s, b)
    return trainee


def _deepened(trainee: Trainee, asked: AnyArchitecture) -> Trainee:
    """The trainee with new blocks at the end of stages that are to have more."""
    if not isinstance(asked, Architecture):
        return trainee
    for s, wanted in enumerate(asked.stages):
        n = len(residual(trainee.model.architecture).stages[s].interiors)
        for b, interior in enumerate(wanted.interiors[n:], n):
            trainee = surgery.insert_block(trainee, s, b, max(1, interior))
    return trainee


def _without_branch(trainee: Trainee, stage: int, position: int) -> Trainee:
    """The trainee without what a block adds to its shortcut; a basic block is gone."""
    if not residual(trainee.model.architecture).stages[stage].interiors[position]:
        trainee = surgery.insert_branch(trainee, stage, position, 1)
    trainee = surgery.reindex(trainee, {})  # a copy: the old one stays as it is
    block = trainee.model.get_submodule(f"stages.{stage}.{position}")
    assert isinstance(block, Block)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if not name.startswith("shortcut"):
                parameter.zero_()
    return surgery.drop_block(trainee, stage, position)


def _without_factors(trainee: Trainee) -> Trainee:
    """The trainee whose layers are whole: each the product of the thinner ones that it was made of."""
    architecture = trainee.model.architecture
    if not isinstance(architecture, Architecture) or not architecture.factors:
        return trainee
    names = [module_name(label) for label, _ in architecture.factors]
    old = trainee.model

    def fill(model: Network) -> None:
        with torch.no_grad():
            for name in names:
                layer = old.get_submodule(name)
                parts = {part: child.get_parameter("weight") for part, child in layer.named_children()}
                model.get_parameter(f"{name}.weight").copy_(factors.product(parts))

    def source(name: str) -> str | None:
        if name == f"{HEAD}.bias" and HEAD in names:
            return f"{HEAD}.expand.bias"
        return None if name.rpartition(".")[0] in names else name

    return rebuilt(trainee, replace(architecture, factors=()), source, {}, fill)


def _of_channels(trainee: Trainee, start: Start, channels: int) -> Trainee:
    """The trainee for images of so many channels, which are normalised by `Start.pixels`."""
    architecture = trainee.model.architecture
    if architecture.in_channels == channels:
        return trainee
    if not start.origin.takes(channels):
        had = architecture.in_channels
        raise ValueError(
            f"{start.words}: it takes {had} channels, these have {channels}: take data, or a start, of as many"
        )
    stem = trainee.model.convolutions()[0]
    filters = adapted(stem.filters.detach(), channels, start.std)
    first = next(name for name, module in trainee.model.named_modules() if module is stem)

    def fill(model: Network) -> None:
        begun = model.convolutions()[0]
        with torch.no_grad():
            begun.weight.copy_(filters)
        begun.reset_gain()

    return _rebuilt(trainee, replace(architecture, in_channels=channels), first, fill)


def _with_head_of(trainee: Trainee, like: Network) -> Trainee:
    """The trainee with the classifier of another network."""

    def fill(model: Network) -> None:
        model.head.load_state_dict(like.head.state_dict())

    architecture = replace(trainee.model.architecture, n_classes=like.architecture.n_classes)
    return _rebuilt(trainee, architecture, HEAD, fill)


def _rebuilt(trainee: Trainee, architecture: AnyArchitecture, new: str, fill: Callable[[Network], None]) -> Trainee:
    """The trainee of another architecture; `fill` gives the module `new` its values."""
    return rebuilt(trainee, architecture, lambda name: None if name.startswith(f"{new}.") else name, {}, fill)
