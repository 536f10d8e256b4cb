"""Residual networks as plain data: `Architecture`, and the families that studies start from. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from objectives.networks.layers import Layer

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture

StemKind = Literal["conv", "haar"]
TransitionKind = Literal["projection", "pool"]
# What stands behind a convolution: a batch norm; nothing but a bias, or mean-only batch norm, where its weights are
# normalised (Salimans & Kingma 2016); a scale and a bias.
NormKind = Literal["batch", "weight", "mean_only", "none"]
WEIGHT_NORMED: tuple[NormKind, ...] = ("weight", "mean_only")
PoolingMethod = Literal["average", "stochastic", "s3"]
_CONVOLUTIONS: tuple[Literal[1, 2], ...] = (1, 2)  # of a block
STEM = "stem.0.weight"  # name of the weight of the stem's convolution
HEAD = "head"  # label of the classifier
RESIDUAL = "residual"  # kind of architecture, in JSON


def stage_axis(stage: int) -> str:
    """Label of the channel axis that a stage's tensors share."""
    return f"stage{stage}"


def interior_axis(stage: int, block: int) -> str:
    """Label of the channel axis inside one block."""
    return f"stage{stage}.block{block}"


def layer_label(stage: int, block: int, number: Literal[1, 2]) -> str:
    """Label of the first or the second convolution of a block."""
    return f"{interior_axis(stage, block)}.conv{number}"


def factor_axes(label: str) -> tuple[str, ...]:
    """Labels of the channel axes inside a factorised layer, from its inputs to its outputs."""
    return (f"{label}.rank",) if label == HEAD else (f"{label}.in", f"{label}.out")


@dataclass(frozen=True)
class Stage:
    """Blocks that share one channel axis. The first block of every stage but the first is a transition block."""

    width: int  # channels of the stage's axis
    interiors: tuple[int, ...]  # channels inside each block; 0: its branch is gone, see `resnet.Block`


@dataclass(frozen=True)
class Downsampling:
    """What halves images in transition blocks in the place of strides, or of a max-pooling; see `networks.pooling`.

    Raises:
        ValueError: an unknown method, or no strip.
    """

    method: PoolingMethod
    strips: int = 1  # a side, of each of which s3 samples half of the rows or columns: fewer and wider distort more
    # with a projection: behind the first convolution of a block, which has four times its work then, not before it
    behind: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(PoolingMethod) or self.strips < 1:
            raise ValueError(f"there is no pooling {self.method!r} of {self.strips} strips a side")


@dataclass(frozen=True)
class Architecture:
    """A CIFAR-style ResNet of basic blocks (He et al. 2016, section 4.2).

    The stem and the first stage share an axis; a `stem_pool` halves the image between them. Each later stage halves it
    and begins with a transition block: with `projection`, a basic block of stride 2 beside a 1x1 projection; with
    `pool`, a 3x3 convolution and a 2x2 max-pooling in the place of that projection, as in ResNet-9 (Page 2018), where
    the branch is left out (interior 0). A `downsampling` takes the place of the two strides, or of the max-pooling.

    Raises:
        ValueError: no stage, a width below 1, a later stage without its transition block, or an unknown kind.
    """

    in_channels: int
    n_classes: int
    stages: tuple[Stage, ...]
    stem_stride: int = 1  # 2 quarters all later work: for small studies on a CPU
    stem: StemKind = "conv"  # haar: a wavelet transform halves the image first and loses nothing
    transition: TransitionKind = "projection"
    stem_kernel: int = 3  # pixels: side, odd
    stem_pool: bool = False  # a 3x3 max-pooling of stride 2 behind the stem: with kernels of 7, that of He et al. 2016
    norm: NormKind = "batch"
    downsampling: Downsampling | None = None  # how transitions halve images; None: as above
    # Layers made of several thinner ones, each with the channels in between: those of a block are named by
    # `layer_label` and have two (Tucker-2), the `HEAD` has one. All others are plain. In the order of their names.
    factors: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("an architecture needs at least one stage")
        if self.stem not in get_args(StemKind) or self.transition not in get_args(TransitionKind):
            raise ValueError(f"unknown stem {self.stem!r} or transition {self.transition!r}")
        if self.stem_kernel < 1 or self.stem_kernel % 2 == 0:
            raise ValueError(f"a stem kernel of {self.stem_kernel} pixels has no middle: its side must be odd")
        for number, stage in enumerate(self.stages):
            if stage.width < 1 or any(width < 0 for width in stage.interiors):
                raise ValueError(f"stage {number} has a width below 1 or an interior below 0: {stage}")
            if number > 0 and not stage.interiors:
                raise ValueError(f"stage {number} needs a transition block")
        if self.norm not in get_args(NormKind) or (self.factors and self.norm in WEIGHT_NORMED):
            raise ValueError(f"no such norm, or none of factorised layers: {self.norm!r}")
        known = self.factorisable() if self.factors else {}
        for label, channels in self.factors:
            if label not in known or len(channels) != len(known[label]) or min(channels) < 1:
                raise ValueError(f"there is no layer {label!r} that could be factorised into {channels}")

    def describe(self) -> str:
        """Stage widths, each with the interiors of its blocks, e.g. 16[16 16]-32[24 32]."""
        return "-".join(f"{stage.width}[{' '.join(map(str, stage.interiors))}]" for stage in self.stages)

    def factorisable(self) -> dict[str, tuple[int, ...]]:
        """Every layer that can be factorised, by label: the channels that it reads, and those that it writes.

        The head writes classes, which are no channels.
        """
        found: dict[str, tuple[int, ...]] = {}
        width = self.stages[0].width
        for s, stage in enumerate(self.stages):
            for b, interior in enumerate(stage.interiors):
                if interior:
                    found[layer_label(s, b, 1)] = width, interior
                    found[layer_label(s, b, 2)] = interior, stage.width
                width = stage.width
        return {**found, HEAD: (width,)}

    def behind_stem_of(self, other: AnyArchitecture) -> Architecture:
        """This architecture behind the stem of another one, with its halving and norms."""
        if not isinstance(other, Architecture):
            raise ValueError(f"{other.describe()} has no stem that residual blocks could stand behind")
        behind = ("stem", "stem_stride", "stem_kernel", "stem_pool", "downsampling", "norm")
        return replace(self, **{name: getattr(other, name) for name in behind})

    def axis_sizes(self) -> dict[str, int]:
        """Channels of every axis, by label."""
        sizes: dict[str, int] = {}
        for s, stage in enumerate(self.stages):
            sizes[stage_axis(s)] = stage.width
            sizes |= {interior_axis(s, b): width for b, width in enumerate(stage.interiors) if width}
        for label, channels in self.factors:
            sizes |= dict(zip(factor_axes(label), channels, strict=True))
        return sizes

    def resized(self, sizes: Mapping[str, int]) -> Architecture:
        """This architecture with so many channels on these axes, by label; all others stay as they are."""
        stages = tuple(
            Stage(
                sizes.get(stage_axis(s), stage.width),
                tuple(sizes.get(interior_axis(s, b), width) for b, width in enumerate(stage.interiors)),
            )
            for s, stage in enumerate(self.stages)
        )
        factors = tuple(
            (label, tuple(sizes.get(axis, n) for axis, n in zip(factor_axes(label), channels, strict=True)))
            for label, channels in self.factors
        )
        return replace(self, stages=stages, factors=factors)

    def fewest_values(self, size: int) -> int | None:
        """Values of a channel and an image of `size` pixels a side that the last batch norm averages over, if any."""
        if self.norm not in ("batch", "mean_only"):
            return None
        side = self.sides(size)[-1]
        return side * side

    def shape(self, size: int) -> tuple[int, int, int]:
        """[channels, height, width] of an image of `size` pixels a side."""
        return self.in_channels, size, size

    def sides(self, size: int) -> list[int]:
        """Pixels a side of what each stage puts out for images of `size` pixels a side."""
        seen = -(-size // 2) if self.stem == "haar" else size
        first = -(-seen // self.stem_stride)
        sides = [-(-first // 2) if self.stem_pool else first]
        for _ in self.stages[1:]:
            sides.append(-(-sides[-1] // 2))
        return sides

    def layers(self, size: int) -> list[Layer]:
        """Every convolution, from stem to head, for images of `size` pixels a side."""
        haar, sides = self.stem == "haar", self.sides(size)
        width, axis = self.stages[0].width, stage_axis(0)
        n_in, seen = self.in_channels * (4 if haar else 1), -(-size // 2) if haar else size
        stem = Layer(self.stem_kernel, self.stem_stride, n_in, width, seen, None, axis, is_pooled=self.stem_pool)
        found = [stem]
        pooled = self.downsampling if self.transition == "projection" else None
        for number, stage in enumerate(self.stages):
            here = stage_axis(number)
            for block, interior in enumerate(stage.interiors):
                transition = number > 0 and block == 0
                side, stride = (sides[number - 1], 2) if transition else (sides[number], 1)
                if transition and pooled:
                    side, stride = sides[number - 1 if pooled.behind else number], 1
                if interior:
                    inside = interior_axis(number, block)
                    first = Layer(3, stride, width, interior, side, axis, inside)
                    second = Layer(3, 1, interior, stage.width, sides[number], inside, here)
                    for n, layer in zip(_CONVOLUTIONS, (first, second), strict=True):
                        found += self._factorised(layer, layer_label(number, block, n))
                if transition:
                    kernel, stride = (1, stride) if self.transition == "projection" else (3, 1)
                    seen = sides[number] if pooled else side
                    found.append(Layer(kernel, stride, width, stage.width, seen, axis, here))
                width, axis = stage.width, here
        return found

    def _factorised(self, layer: Layer, label: str) -> list[Layer]:
        """The layers that stand in the place of one: 1x1 to fewer channels, the kernel between those, 1x1 back."""
        channels = dict(self.factors).get(label)
        if channels is None:
            return [layer]
        (n_in, n_out), (inner, outer) = channels, factor_axes(label)
        after = -(-layer.side // layer.stride)
        return [
            Layer(1, 1, layer.n_in, n_in, layer.side, layer.reads, inner),
            Layer(layer.kernel, layer.stride, n_in, n_out, layer.side, inner, outer),
            Layer(1, 1, n_out, layer.n_out, after, outer, layer.writes),
        ]

    def activations(self, size: int) -> int:
        """Values per image of `size` pixels a side that convolutions put out: what a training step must remember.

        So it must what poolings that draw read, between stages: within 10 % as much (thin and wide, 32 pixels). The one
        behind the stem remembers what it puts out and where that was, in 8 bytes; an output of a convolution counts for
        two values, its own and what its norm makes of it.
        """
        layers = self.layers(size)
        pooled = sum(layer.pooled for layer in layers) * 3 // 2
        return sum(layer.outputs for layer in layers) + pooled + self._drawn_from(size)

    def _drawn_from(self, size: int) -> int:
        """Values per image of `size` pixels a side that poolings draw from, but in the place of a max-pooling."""
        how, found = self.downsampling, 0
        if how is None or how.method == "average" or self.transition == "pool":
            return 0
        for side, before, stage in zip(self.sides(size), self.stages, self.stages[1:], strict=False):
            found += (before.width + how.behind * stage.interiors[0]) * side * side
        return found

    def to_json(self) -> dict[str, object]:
        """This architecture as plain JSON data; `from_json` is the inverse."""
        return {
            "kind": RESIDUAL,
            "in_channels": self.in_channels,
            "n_classes": self.n_classes,
            "stem_stride": self.stem_stride,
            "stem": self.stem,
            "transition": self.transition,
            "stem_kernel": self.stem_kernel,
            "stem_pool": self.stem_pool,
            "norm": self.norm,
            "downsampling": None if self.downsampling is None else asdict(self.downsampling),
            "factors": {label: list(channels) for label, channels in self.factors},
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
            factors = cast("Mapping[str, Sequence[int]]", plain.get("factors", {}))
            downsampling = cast("Mapping[str, Any] | None", plain.get("downsampling"))
            return cls(
                in_channels=int(cast("int", plain["in_channels"])),
                n_classes=int(cast("int", plain["n_classes"])),
                stem_stride=int(cast("int", plain["stem_stride"])),
                stem=cast("StemKind", plain.get("stem", "conv")),
                transition=cast("TransitionKind", plain.get("transition", "projection")),
                stem_kernel=int(cast("int", plain.get("stem_kernel", 3))),
                stem_pool=bool(plain.get("stem_pool", False)),
                norm=cast("NormKind", plain.get("norm", "batch")),
                downsampling=None if downsampling is None else Downsampling(**downsampling),
                factors=tuple((label, tuple(map(int, factors[label]))) for label in sorted(factors)),
                stages=tuple(Stage(int(s["width"]), tuple(int(w) for w in s["interiors"])) for s in stages),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture: {error!r}") from error


def described(words: str) -> tuple[Stage, ...]:
    """The stages that `Architecture.describe` put into words."""
    found = re.findall(r"(\d+)\[([\d ]*)\]", words)
    return tuple(Stage(int(width), tuple(map(int, interiors.split()))) for width, interiors in found)


def widths_in(words: str) -> tuple[int, ...]:
    """The widths that `describe` of an architecture of either kind put into words: of stages, or of plain layers."""
    return tuple(stage.width for stage in described(words)) or tuple(map(int, re.findall(r"\d+", words)))


@dataclass(frozen=True)
class Family:
    """Networks that differ in depth and in a multiplier of their widths only."""

    widths: tuple[int, ...]  # channels per stage at multiplier 1
    baseline_depth: int  # of BASELINE
    blocks: tuple[int, ...] = (1, 1, 1)  # per stage at depth 1
    transition: TransitionKind = "projection"
    stem_stride: int = 1  # times that of the study
    stem_kernel: int = 3
    stem_pool: bool = False


FAMILIES: dict[str, Family] = {
    "small": Family((16, 32), 1, (1, 1)),  # for images of about 8x8
    "thin": Family((16, 32, 64), 3),  # depth 1 to 9: ResNet-8 to ResNet-56 (He et al. 2016)
    "wide": Family((64, 128, 256), 1),
    "fast": Family((64, 128, 256, 512), 1, (0, 1, 0, 1), "pool"),  # depth 1: ResNet-9 (Page 2018); few kernels a step
    # for images of 64 to 224 pixels; depth 1: torchvision's ResNet-18 and 34 (He et al. 2016, table 1)
    "imagenet18": Family((64, 128, 256, 512), 1, (2, 2, 2, 2), stem_stride=2, stem_kernel=7, stem_pool=True),
    "imagenet34": Family((64, 128, 256, 512), 1, (3, 4, 6, 3), stem_stride=2, stem_kernel=7, stem_pool=True),
}

WIDTH_STEP = (
    8  # widths are multiples of it, as tensor cores want them; on a CPU odd ones cost nothing (benchmarks/shapes.md)
)


def rounded(channels: float) -> int:
    """The multiple of 8 nearest to a number of channels, at least 8."""
    return max(WIDTH_STEP, round(channels / WIDTH_STEP) * WIDTH_STEP)


def narrowed(channels: int, share: float) -> int:
    """A share, in (0, 1], of a number of channels: in multiples of 8, and never more than there are."""
    return channels if share == 1 else min(channels, rounded(channels * share))


@lru_cache(maxsize=1024)  # spaces ask for the same few thousands of times
def build(
    family: str, *, depth: int, width: float, in_channels: int, n_classes: int, stem_stride: int = 1
) -> Architecture:
    """The family's architecture, its blocks per stage times `depth` and its widths times `width`, in multiples of 8.

    Raises:
        ValueError: an unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: choose one of {', '.join(FAMILIES)}")
    known = FAMILIES[family]
    stages = []
    for number, (channels, n_blocks) in enumerate(zip(known.widths, known.blocks, strict=True)):
        stage_width = rounded(channels * width)
        pooled = (0,) if known.transition == "pool" and number > 0 else ()
        stages.append(Stage(stage_width, pooled + (stage_width,) * (depth * n_blocks)))
    return Architecture(
        in_channels,
        n_classes,
        tuple(stages),
        stem_stride=known.stem_stride * stem_stride,
        stem_kernel=known.stem_kernel,
        stem_pool=known.stem_pool,
        transition=known.transition,
    )
