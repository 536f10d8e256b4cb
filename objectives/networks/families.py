"""Every family that studies start from, residual or plain, and architectures of either kind from JSON. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from objectives.networks import architecture
from objectives.networks.architecture import FAMILIES, Architecture
from objectives.networks.plain import (
    PLAIN,
    PLAIN_FAMILIES,
    AnyArchitecture,
    PlainArchitecture,
    build_plain,
    has_norms,
)

ALL = (*FAMILIES, *PLAIN_FAMILIES)
# Of the learning rates of networks with batch norms, whose best on Fashion-MNIST are 0.2 at a batch of 64 and 0.4 at
# 128: without norms 0.1, and 0.05 to 0.2; at 0.4 most runs are lost at either batch (benchmarks/ingredients.md). At a
# half, two of the five doublings of the rate that the default space offers would be lost at 64 and three at 128.
WITHOUT_NORMS = 1 / 4


@cache
def build(
    family: str, *, depth: int, width: float, in_channels: int, n_classes: int, size: int, stem_stride: int = 1
) -> AnyArchitecture:
    """The family's architecture for images of `size` pixels a side, or series as long.

    A plain family has the depth that it has: `depth` and `stem_stride` are 1.

    Raises:
        ValueError: an unknown family, or what it cannot be.
    """
    if family in FAMILIES:
        shape = {"in_channels": in_channels, "n_classes": n_classes, "stem_stride": stem_stride}
        return architecture.build(family, depth=depth, width=width, **shape)
    if family not in PLAIN_FAMILIES:
        raise ValueError(f"unknown family {family!r}: choose one of {', '.join(ALL)}")
    if depth != 1 or stem_stride != 1:
        raise ValueError(f"the family {family} has one depth and one stem: depth and stem_stride are 1")
    return build_plain(family, width=width, in_channels=in_channels, n_classes=n_classes, size=size)


def is_plain(family: str) -> bool:
    """Whether a family's networks are layers one behind the other, of one depth and for one size of images."""
    return family in PLAIN_FAMILIES


def takes_series(family: str) -> bool:
    """Whether a family's networks read series; all others read images."""
    return is_plain(family) and PLAIN_FAMILIES[family].dims == 1


def rate(family: str) -> float:
    """What learning rates that suit networks with batch norms are multiplied by for this family."""
    return WITHOUT_NORMS if is_plain(family) and not has_norms(PLAIN_FAMILIES[family]) else 1.0


def has_one_depth(family: str) -> bool:
    """Whether studies have networks of one depth unless they say otherwise: plain ones have no other, those of ImageNet
    are deep."""
    return is_plain(family) or is_of_imagenet(family)


def is_of_imagenet(family: str) -> bool:
    """Whether a family's networks have a stem for large images: that of torchvision's ResNets."""
    return family in FAMILIES and FAMILIES[family].stem_pool


def baseline_depth(family: str) -> int:
    """Blocks per stage of BASELINE."""
    return 1 if is_plain(family) else FAMILIES[family].baseline_depth


def architecture_of(plain: Mapping[str, object]) -> AnyArchitecture:
    """The architecture of either kind that `to_json` wrote; what says no kind is a residual one.

    Raises:
        ValueError: the data does not describe an architecture.
    """
    kind = plain.get("kind", architecture.RESIDUAL)
    if kind == PLAIN:
        return PlainArchitecture.from_json(plain)
    if kind != architecture.RESIDUAL:
        raise ValueError(f"not an architecture: its kind is {kind!r}")
    return Architecture.from_json(plain)
