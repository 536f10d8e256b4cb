"""What a pipeline asks of networks and images: the layers that it reaches, and whether it can train on images so small.

The one place for such rules: spaces offer by them, trainings refuse by them. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from objectives.networks.architecture import Architecture, Downsampling
from objectives.networks.families import build, takes_series
from objectives.networks.layers import Layer
from objectives.networks.plain import AnyArchitecture, residual
from objectives.pipeline import Pipeline
from objectives.strategies.base import Strategy
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.low_rank import LowRank
from objectives.strategies.progressive_resolution import SIZE_STEP, ProgressiveResolution
from objectives.strategies.strided_stem import StridedStem
from objectives.task import Task

ENOUGH_FOR_NORMS = 2  # values of a channel; an image has one at least
SMALLEST_SHARE = 0.4  # of the side of images, below which no space begins


def full_architecture(pipeline: Pipeline, task: Task, in_channels: int, n_classes: int, size: int) -> AnyArchitecture:
    """The architecture that a pipeline's settings ask for, for images of `size` pixels a side.

    Raises:
        ValueError: the family has none for such settings or such a size.
    """
    return build(
        task.family,
        depth=pipeline.depth,
        width=pipeline.width,
        in_channels=in_channels,
        n_classes=n_classes,
        size=size,
        stem_stride=task.stem_stride,
    )


def first_architecture(pipeline: Pipeline, full: AnyArchitecture) -> AnyArchitecture:
    """The architecture that a training starts with."""
    for strategy in pipeline.strategies:
        full = strategy.architecture(full)
    return full


def sides(pipeline: Pipeline, size: int) -> list[int]:
    """The sides in pixels that images of `size` have in the course of a run, ascending."""
    for strategy in pipeline.strategies:
        if isinstance(strategy, ProgressiveResolution):
            return strategy.sides(size)
    return [size]


def reshapes(kind: type[Strategy]) -> bool:
    """Whether strategies of a kind have a say in `obstacle`: by the network to start from, by the sides of images."""
    is_plain = kind.architecture is Strategy.architecture and not kind.needs_blocks
    return not is_plain or issubclass(kind, ProgressiveResolution)


def obstacle(pipeline: Pipeline, task: Task, size: int, n_train: int) -> str | None:
    """Why a pipeline cannot train on `n_train` images of `size` pixels a side, in one line, or None where it can."""
    if task.data.is_series != takes_series(task.family):
        takes, holds = ("images", "series") if task.data.is_series else ("series", "images")
        return f"the networks of family {task.family} take {takes}, and {task.data.name} holds {holds}"
    try:
        full = full_architecture(pipeline, task, 1, 2, size)
    except ValueError as error:
        return str(error)
    if not isinstance(full, Architecture):
        refused = [type(strategy).__name__ for strategy in pipeline.strategies if strategy.needs_blocks]
        if refused:
            return f"{refused[0]} needs a residual network, {task.family} is a plain one: leave it out"
    try:
        network = first_architecture(pipeline, full)
    except ValueError as error:  # a start of another shape
        return str(error)
    smallest = sides(pipeline, size)[0]
    images = min(pipeline.batch_size, n_train)
    if 0 < pipeline.ghost_batch < images:
        images //= -(-images // pipeline.ghost_batch)  # in the smallest of the ghost batches
    values = network.fewest_values(smallest)
    if values is not None and images * values < ENOUGH_FOR_NORMS:
        return (
            f"batches of one image of {smallest} pixels hold a single value per channel in the last stage, "
            "which batch normalisation cannot use: take larger batches or larger images"
        )
    return None


def layers(pipeline: Pipeline, task: Task, size: int, in_channels: int) -> list[Layer]:
    """The convolutions of a training before anything is pruned, of all kinds and for images of all sides it reaches."""
    full = full_architecture(pipeline, task, in_channels, 2, size)
    first = first_architecture(pipeline, full)
    grown = full.behind_stem_of(first)
    reached = [strategy.reached(network) for strategy in pipeline.strategies for network in (first, grown)]
    networks = dict.fromkeys((first, grown, *reached))
    found = [layer for side in sides(pipeline, size) for network in networks for layer in network.layers(side)]
    return [layer for layer in found if not layer.is_dense]


def reachable(task: Task, size: int, in_channels: int) -> list[Layer]:
    """The convolutions that any pipeline of the task may reach, with images of every side.

    Those with wavelets or a stride in the stem, with poolings in the place of strides, factorised ones and the stem's
    larger kernels are among them.
    """
    plain = full_architecture(Pipeline(), task, in_channels, 2, size)
    if not isinstance(plain, Architecture):
        return [layer for layer in plain.layers(size) if not layer.is_dense]
    smaller = range(SIZE_STEP, size, SIZE_STEP)
    found = [side for side in smaller if side + SIZE_STEP / 2 >= SMALLEST_SHARE * size]
    small = KernelRescaling()  # what the stem begins with; it ends with kernels of 5, or those of the family
    changing = (LowRank(), small, KernelRescaling(kernel=plain.stem_kernel))
    halved = [None, Downsampling("average"), Downsampling("average", behind=True)]  # the others have the same layers
    stems = [plain, *(residual(strategy.architecture(plain)) for strategy in (HaarStem(), StridedStem()))]
    stems += [residual(small.architecture(network)) for network in stems]
    begun = dict.fromkeys(replace(n, downsampling=how) for n in stems for how in halved)
    networks = [(n, *(strategy.reached(n) for strategy in changing)) for n in begun]
    return [layer for side in (*found, size) for network in chain(*networks) for layer in network.layers(side)]
