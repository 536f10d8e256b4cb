"""Which pipelines cannot train on images of a size, and why. The one place for such rules; imports no torch."""

from __future__ import annotations

from objectives.networks import architecture
from objectives.pipeline import Pipeline
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.whitening import KERNEL, Whitening


def obstacle(pipeline: Pipeline, family: str, stem_stride: int, size: int, n_train: int) -> str | None:
    """Why a pipeline cannot train a family on `n_train` images of `size` pixels a side, in one line; None: it can."""
    network = architecture.build(
        family, depth=pipeline.depth, width=pipeline.width, in_channels=1, n_classes=2, stem_stride=stem_stride
    )
    smallest = size
    for strategy in pipeline.strategies:
        network = strategy.architecture(network)
        if isinstance(strategy, ProgressiveResolution):
            smallest = strategy.smallest(size)
    images = min(pipeline.batch_size, n_train)
    if 0 < pipeline.ghost_batch < images:
        images //= -(-images // pipeline.ghost_batch)  # in the smallest of the ghost batches
    if images * network.sides(smallest)[-1] ** 2 < 2:
        return (
            f"batches of {images} image of {smallest} pixels are a single value per channel in the last stage, "
            "which batch normalisation cannot use: take larger batches or larger images"
        )
    seen = -(-smallest // 2) if network.stem == "haar" else smallest
    if seen < KERNEL and any(
        isinstance(strategy, Whitening) and strategy.share > 0 for strategy in pipeline.strategies
    ):
        return (
            f"the stem sees {seen} pixels a side, whitening measures patches of {KERNEL}: "
            "leave out Whitening or HaarStem, or take larger images"
        )
    return None
