"""Residual networks as plain data: `Architecture`, and the families that studies start from. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Stage:
    """Blocks that share one channel axis. The first block of every stage but the first is a transition block."""

    width: int  # channels of the stage's axis
    interiors: tuple[int, ...]  # channels inside each block; 0: its branch is gone, see `resnet.Block`


@dataclass(frozen=True)
class Architecture:
    """A CIFAR-style ResNet of basic blocks (He et al. 2016, section 4.2) with projection shortcuts.

    The stem and the first stage share an axis. Each later stage halves the image and begins with a transition block.

    Raises:
        ValueError: no stage, a width below 1, or a later stage without its transition block.
    """

    in_channels: int
    n_classes: int
    stages: tuple[Stage, ...]
    stem_stride: int = 1  # 2 quarters all later work: for small studies on a CPU

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("an architecture needs at least one stage")
        for number, stage in enumerate(self.stages):
            if stage.width < 1 or any(width < 0 for width in stage.interiors):
                raise ValueError(f"stage {number} has a width below 1 or an interior below 0: {stage}")
            if number > 0 and not stage.interiors:
                raise ValueError(f"stage {number} needs a transition block")

    def to_json(self) -> dict[str, object]:
        """This architecture as plain JSON data; `from_json` is the inverse."""
        return {
            "in_channels": self.in_channels,
            "n_classes": self.n_classes,
            "stem_stride": self.stem_stride,
            "stages": [{"width": stage.width, "interiors": list(stage.interiors)} for stage in self.stages],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Architecture:
        """The architecture that `to_json` wrote.

        Raises:
            ValueError: the data does not describe an architecture.
        """
        try:
            stages = cast("Sequence[Mapping[str, Any]]", plain["stages"])
            return cls(
                in_channels=int(cast("int", plain["in_channels"])),
                n_classes=int(cast("int", plain["n_classes"])),
                stem_stride=int(cast("int", plain["stem_stride"])),
                stages=tuple(Stage(int(s["width"]), tuple(int(w) for w in s["interiors"])) for s in stages),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture: {error!r}") from error


@dataclass(frozen=True)
class Family:
    """Networks that differ in depth and in a multiplier of their widths only."""

    widths: tuple[int, ...]  # channels per stage at multiplier 1
    baseline_depth: int  # blocks per stage of BASELINE


FAMILIES: dict[str, Family] = {
    "small": Family((16, 32), 1),  # for images of about 8x8
    "thin": Family((16, 32, 64), 3),  # depth 1 to 9: ResNet-8 to ResNet-56 (He et al. 2016)
    "wide": Family((64, 128, 256), 1),
}

WIDTH_STEP = 8  # widths are multiples of it: odd widths were 5-21 % slower per step on CPU than the wider multiple


def build(
    family: str, *, depth: int, width: float, in_channels: int, n_classes: int, stem_stride: int = 1
) -> Architecture:
    """The family's architecture with `depth` blocks per stage and widths times `width`, rounded to multiples of 8.

    Raises:
        ValueError: an unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: choose one of {', '.join(FAMILIES)}")
    rounded = [max(WIDTH_STEP, round(w * width / WIDTH_STEP) * WIDTH_STEP) for w in FAMILIES[family].widths]
    stages = tuple(Stage(w, (w,) * depth) for w in rounded)
    return Architecture(in_channels, n_classes, stages, stem_stride)
