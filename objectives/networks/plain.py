"""Plain networks as plain data: `PlainArchitecture`, layers one behind the other, and their families. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from objectives.networks.architecture import HEAD, Architecture
from objectives.networks.layers import Layer

PoolingKind = Literal["max", "average"]
PLAIN = "plain"  # kind of architecture, in JSON
INPUTS = "inputs"  # label of the axis of the pixels that a dense first layer reads
LARGEST = 1 << 16  # pixels a side, or length of series: what `least_size` looks up to


def convolution_axis(number: int) -> str:
    """Label of a convolution, counted from 1, and of the axis of the channels that it puts out."""
    return f"conv{number}"


def dense_axis(number: int) -> str:
    """Label of a dense layer, counted from 1, and of the axis of the values that it puts out."""
    return f"dense{number}"


@dataclass(frozen=True)
class PlainConvolution:
    """A convolution with what stands behind it: a batch norm or a bias, a ReLU, pooling.

    Raises:
        ValueError: a value is out of range.
    """

    channels: int  # that it puts out
    kernel: int  # pixels: side
    padding: int = 0  # pixels of zeros at each border
    stride: int = 1
    has_norm: bool = False  # else a bias
    pool: int = 1  # pixels: side of the squares, or length of the pieces, that become one; 1: none
    pooling: PoolingKind = "max"

    def __post_init__(self) -> None:
        if min(self.channels, self.kernel, self.stride, self.pool) < 1 or not 0 <= self.padding < self.kernel:
            raise ValueError(f"{self}: all from 1 on, and a padding smaller than the kernel")
        if self.pooling not in get_args(PoolingKind):
            raise ValueError(f"unknown pooling {self.pooling!r}: choose max or average")

    def side_out(self, side: int) -> int:
        """Pixels a side that it makes of so many; below 1 where there are too few."""
        if side < 1 or side + 2 * self.padding < self.kernel:
            return 0
        return ((side + 2 * self.padding - self.kernel) // self.stride + 1) // self.pool


@dataclass(frozen=True)
class PlainArchitecture:
    """Convolutions, then dense layers with biases and ReLUs, then a dense classifier.

    What it reads has one size: its first dense layer has a weight for every pixel and channel.

    Raises:
        ValueError: a width below 1, inputs in front of convolutions, or images that are too small for these layers.
    """

    in_channels: int
    n_classes: int
    size: int  # pixels: side of the square images that it takes, or length of series
    dims: Literal[1, 2] = 2  # of what it takes: series or images
    convolutions: tuple[PlainConvolution, ...] = ()
    dense: tuple[int, ...] = ()  # values that each dense layer before the classifier puts out
    inputs: int | None = None  # values of an image that a dense first layer reads; None: a convolution comes first

    def __post_init__(self) -> None:
        if self.dims not in (1, 2):
            raise ValueError(f"a plain network takes series or images, not {self.dims} dimensions")
        if min(self.in_channels, self.size, *self.dense, 1 if self.inputs is None else self.inputs) < 1:
            raise ValueError(f"a plain network has widths from 1 on: {self}")
        if (self.inputs is None) != bool(self.convolutions):
            raise ValueError("a plain network begins with convolutions, or says how many inputs it reads")
        if self.sides()[-1] < 1:
            what = "series of length" if self.dims == 1 else "images of"
            pixels = "" if self.dims == 1 else " pixels"
            raise ValueError(
                f"{what} {self.size}{pixels} are too small for {len(self.convolutions)} convolutions with their "
                f"pooling: this network needs {least_size(self.convolutions)} at least"
            )

    def sides(self) -> list[int]:
        """Pixels a side before the first convolution and behind each, its pooling included."""
        found = [self.size]
        for convolution in self.convolutions:
            found.append(convolution.side_out(found[-1]))
        return found

    def describe(self) -> str:
        """Widths by kind of layer, e.g. conv 6-16 dense 120-84; or inputs 784 dense 300-100."""
        named = (
            (INPUTS, () if self.inputs is None else (self.inputs,)),
            ("conv", tuple(convolution.channels for convolution in self.convolutions)),
            ("dense", self.dense),
        )
        return " ".join(f"{name} {'-'.join(map(str, widths))}" for name, widths in named if widths)

    def behind_stem_of(self, other: AnyArchitecture) -> PlainArchitecture:
        """This architecture: it has no stem that a strategy could have changed."""
        return self

    def axis_sizes(self) -> dict[str, int]:
        """Channels, or values, of every axis, by label."""
        sizes = {} if self.inputs is None else {INPUTS: self.inputs}
        sizes |= {convolution_axis(n): each.channels for n, each in enumerate(self.convolutions, 1)}
        return sizes | {dense_axis(n): width for n, width in enumerate(self.dense, 1)}

    def resized(self, sizes: Mapping[str, int]) -> PlainArchitecture:
        """This architecture with so many channels on these axes, by label; all others stay as they are."""
        return replace(
            self,
            convolutions=tuple(
                replace(each, channels=sizes.get(convolution_axis(n), each.channels))
                for n, each in enumerate(self.convolutions, 1)
            ),
            dense=tuple(sizes.get(dense_axis(n), width) for n, width in enumerate(self.dense, 1)),
            inputs=None if self.inputs is None else sizes.get(INPUTS, self.inputs),
        )

    def layers(self, size: int) -> list[Layer]:
        """Every layer, from the first to the classifier, which writes `HEAD`.

        Raises:
            ValueError: `size` is not that of this network.
        """
        if size != self.size:
            raise ValueError(f"{self.describe()} takes what has a size of {self.size}, not {size}")
        found, n_in, reads = [], self.in_channels, None
        sides = self.sides()
        for number, each in enumerate(self.convolutions, 1):
            padding = None if each.padding == each.kernel // 2 else each.padding
            writes = convolution_axis(number)
            layer = Layer(each.kernel, each.stride, n_in, each.channels, sides[number - 1], reads, writes)
            found.append(replace(layer, padding=padding, dims=self.dims))
            n_in, reads = each.channels, writes
        side = sides[-1] if self.convolutions else 1
        if self.inputs is not None:
            n_in, reads = self.inputs, INPUTS
        widths = [(dense_axis(n), width) for n, width in enumerate(self.dense, 1)]
        for writes, width in (*widths, (HEAD, self.n_classes)):
            found.append(Layer(side, 1, n_in, width, side, reads, writes, padding=0, dims=self.dims, is_dense=True))
            n_in, reads, side = width, writes, 1
        return found

    def shape(self, size: int) -> tuple[int, int, int]:
        """[channels, height, width] of what it takes: series have a height of 1."""
        return self.in_channels, 1 if self.dims == 1 else size, size

    def activations(self, size: int) -> int:
        """Values per image that layers put out: what a training step must remember."""
        return sum(layer.outputs for layer in self.layers(size))

    def fewest_values(self, size: int) -> int | None:
        """Values of a channel and an image that some batch norm averages over, the fewest; None: there is no norm."""
        convolutions = zip(self.convolutions, self.layers(size), strict=False)
        return min((layer.side_out**self.dims for each, layer in convolutions if each.has_norm), default=None)

    def to_json(self) -> dict[str, object]:
        """This architecture as plain JSON data; `from_json` is the inverse."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        convolutions = [asdict(each) for each in self.convolutions]
        return {"kind": PLAIN, **plain, "convolutions": convolutions, "dense": list(self.dense)}

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> PlainArchitecture:
        """The architecture that `to_json` wrote.

        Raises:
            ValueError: the data does not describe an architecture.
        """
        try:
            values: dict[str, Any] = {key: value for key, value in plain.items() if key != "kind"}
            convolutions = cast("Sequence[Mapping[str, Any]]", values.pop("convolutions"))
            dense = tuple(int(width) for width in values.pop("dense"))
            return cls(convolutions=tuple(PlainConvolution(**each) for each in convolutions), dense=dense, **values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture: {error!r}") from error


AnyArchitecture = Architecture | PlainArchitecture


def residual(architecture: AnyArchitecture) -> Architecture:
    """A residual architecture as what it is.

    Raises:
        ValueError: it is a plain one.
    """
    if isinstance(architecture, Architecture):
        return architecture
    raise ValueError(f"{architecture.describe()} has no residual blocks: choose another method, or another family")


def sections(architecture: AnyArchitecture) -> tuple[str, ...]:
    """The modules before the head, by name, from the first to the last: stem and stages, or layers."""
    if isinstance(architecture, Architecture):
        return ("stem", *(f"stages.{number}" for number in range(len(architecture.stages))))
    convolutions = (convolution_axis(number) for number, _ in enumerate(architecture.convolutions, 1))
    return (*convolutions, *(dense_axis(number) for number, _ in enumerate(architecture.dense, 1)))


def least_size(convolutions: Sequence[PlainConvolution]) -> int:
    """Pixels a side of the smallest images, or length of the shortest series, that leave something to the last one."""
    for size in range(1, LARGEST):
        side = size
        for each in convolutions:
            side = each.side_out(side)
        if side >= 1:
            return size
    raise ValueError(f"no size up to {LARGEST} leaves anything behind these convolutions")


@dataclass(frozen=True)
class PlainFamily:
    """Plain networks that differ in a multiplier of their widths only. Their depth is part of the family."""

    convolutions: tuple[PlainConvolution, ...]  # at multiplier 1
    dense: tuple[int, ...]  # likewise
    dims: Literal[1, 2] = 2


def has_norms(family: PlainFamily) -> bool:
    """Whether some layer of the family's networks has a batch norm."""
    return any(each.has_norm for each in family.convolutions)


def _vgg(channels: int, pool: int = 1) -> PlainConvolution:
    return PlainConvolution(channels, 3, 1, has_norm=True, pool=pool)


PLAIN_FAMILIES: dict[str, PlainFamily] = {
    "lenet300": PlainFamily((), (300, 100)),  # LeNet-300-100 (LeCun et al. 1998, section III.C), with ReLUs
    "lenet5": PlainFamily(  # LeNet-5 as it is built today: with ReLUs, max-pooling, all maps read by all
        (PlainConvolution(6, 5, 2, pool=2), PlainConvolution(16, 5, pool=2)), (120, 84)
    ),
    # VGG (Simonyan & Zisserman 2015) for images of about 32 pixels, with batch norms
    "vgg": PlainFamily((_vgg(64), _vgg(64, 2), _vgg(128), _vgg(128, 2), _vgg(256), _vgg(256, 2)), (256,)),
    # The network for human activities of Viehmann 2020, whose layers have 96, 992, 5152, 34680, 129720, 96100, 10100
    # and 606 parameters: these are the only kernels and widths, for 3 channels, 6 classes and a length of 128, that do.
    # Where its four poolings stand the counts do not say: here behind all convolutions but the last.
    "cnn1d": PlainFamily(
        (
            PlainConvolution(6, 5, 2, pool=2),
            PlainConvolution(32, 5, 2, pool=2),
            PlainConvolution(32, 5, 2, pool=2),
            PlainConvolution(120, 9, 4, pool=2),
            PlainConvolution(120, 9, 4),
        ),
        (100, 100),
        dims=1,
    ),
}


def build_plain(family: str, *, width: float, in_channels: int, n_classes: int, size: int) -> PlainArchitecture:
    """The family's architecture, its widths times `width`, for images of `size` pixels a side or series as long.

    Raises:
        ValueError: an unknown family, or a size too small for it.
    """
    if family not in PLAIN_FAMILIES:
        raise ValueError(f"unknown family {family!r}: choose one of {', '.join(PLAIN_FAMILIES)}")
    known = PLAIN_FAMILIES[family]
    if size < (least := least_size(known.convolutions)):
        what = f"series of length {size} are" if known.dims == 1 else f"images of {size} pixels are"
        raise ValueError(f"{what} too small for the family {family}: it needs {least} at least")
    return PlainArchitecture(
        in_channels,
        n_classes,
        size,
        known.dims,
        tuple(replace(each, channels=_scaled(each.channels, width)) for each in known.convolutions),
        tuple(_scaled(each, width) for each in known.dense),
        None if known.convolutions else in_channels * size**known.dims,
    )


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))
