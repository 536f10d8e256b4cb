"""`PlainNetwork`: the network of a `PlainArchitecture`, with its channel axes labelled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.networks.architecture import HEAD
from objectives.networks.base import Labels, Network
from objectives.networks.norms.slots import GhostBatchNorm
from objectives.networks.plain import INPUTS, PlainArchitecture, PlainConvolution, convolution_axis, dense_axis
from objectives.networks.resnet import Convolution


class Bias(nn.Module):
    """Adds a number to each channel: apart from the convolution, whose computation strategies wrap."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(1, -1, 1, 1)


class ConvolutionalLayer(nn.Module):
    """A convolution, its batch norm or bias, a ReLU, pooling: [batch, in, height, width] to [batch, out, ...]."""

    def __init__(self, n_in: int, plain: PlainConvolution, dims: int, ghost: int) -> None:
        super().__init__()
        self.convolution = Convolution(
            n_in, plain.channels, plain.kernel, plain.stride, padding=plain.padding, dims=dims
        )
        self.shift = GhostBatchNorm(plain.channels, ghost) if plain.has_norm else Bias(plain.channels)
        self._pool = (1, plain.pool) if dims == 1 else (plain.pool, plain.pool)
        self._averages = plain.pooling == "average"

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu_(self.shift(self.convolution(x)))
        if prod(self._pool) == 1:
            return out
        return F.avg_pool2d(out, self._pool) if self._averages else F.max_pool2d(out, self._pool)


class Dense(nn.Module):
    """A dense layer: values [batch, in], or channels [batch, in, height, width], to [batch, out].

    Behind a convolution its weight is [out, in, pixels]: the channels that it reads are a dimension of their own. Its
    product of input and weight can be wrapped by strategies, while it trains.
    """

    def __init__(self, n_in: int, n_out: int, pixels: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, *(() if pixels is None else (pixels,))))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.multiply: Callable[[Tensor, Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.multiply is not None and self.training:
            return self.multiply(x, self.weight)
        return self.multiplied(x, self.weight)

    def multiplied(self, x: Tensor, weight: Tensor) -> Tensor:
        """x times a weight, which may read fewer channels, and the bias."""
        return F.linear(x.flatten(1), weight.flatten(1), self.bias)


class PlainNetwork(Network):
    """The network of `architecture`, in channels_last.

    Weights start He-normal over the fan-in (He et al. 2015, section 2.2), biases at 0, batch norms at (1, 0).
    """

    counter: ClassVar[str] = "tally"
    fan_in = True

    def __init__(self, architecture: PlainArchitecture, ghost: int = 0) -> None:
        super().__init__()
        self.architecture: PlainArchitecture = architecture
        self.ghost = ghost
        self.register_buffer(self.counter, torch.zeros((), dtype=torch.int64))
        n_in, pixels = architecture.in_channels, None
        for number, each in enumerate(architecture.convolutions, 1):
            self.add_module(convolution_axis(number), ConvolutionalLayer(n_in, each, architecture.dims, ghost))
            n_in, pixels = each.channels, architecture.sides()[-1] ** architecture.dims
        if architecture.inputs is not None:
            n_in = architecture.inputs
            # which of an image's values are read: pixels of the first channel row by row, then those of the next one
            self.register_buffer(INPUTS, torch.arange(n_in))
        for number, width in enumerate(architecture.dense, 1):
            self.add_module(dense_axis(number), Dense(n_in, width, pixels))
            n_in, pixels = width, None
        self.head = Dense(n_in, architecture.n_classes, pixels)
        self._initialise()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        for _, compute in self.parts():
            x = compute(x)
        return x

    def parts(self) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        names = [convolution_axis(n) for n, _ in enumerate(self.architecture.convolutions, 1)]
        dense = [dense_axis(n) for n, _ in enumerate(self.architecture.dense, 1)]
        return [(name, partial(self._computed, name)) for name in (*names, *dense, HEAD)]

    def _computed(self, name: str, x: Tensor) -> Tensor:
        """What a layer makes of what is before it; the first dense one chooses among the values of an image."""
        layer = self.get_submodule(name)
        if self.architecture.inputs is not None and name == (dense_axis(1) if self.architecture.dense else HEAD):
            x = x.flatten(1).index_select(1, cast("Tensor", self.inputs))
        out: Tensor = layer(x)
        return out if name == HEAD or isinstance(layer, ConvolutionalLayer) else F.relu_(out)

    def convolutions(self) -> list[Convolution]:
        return [module for module in self.modules() if isinstance(module, Convolution)]

    def multiplying(self) -> list[Convolution | Dense]:
        dense = [module for module in self.children() if isinstance(module, Dense) and module is not self.head]
        return [*self.convolutions(), *dense]

    def axes(self) -> dict[str, Labels]:
        """The axis of every dimension of every parameter and buffer, by name.

        `conv{n}` and `dense{n}` are what a layer puts out, `inputs` the values of an image that a first dense layer
        reads. None marks what is no axis: pixels, kernel taps, classes, image channels.
        """
        labels: dict[str, Labels] = {self.counter: ()}
        reads: str | None = None
        if self.architecture.inputs is not None:
            labels[INPUTS], reads = (INPUTS,), INPUTS
        convolutions = [convolution_axis(n) for n, _ in enumerate(self.architecture.convolutions, 1)]
        for layer in (*convolutions, *(dense_axis(n) for n, _ in enumerate(self.architecture.dense, 1)), HEAD):
            writes = None if layer == HEAD else layer
            for name, tensor in self.get_submodule(layer).state_dict(keep_vars=True).items():
                ends = () if tensor.dim() == 0 else (writes,) if tensor.dim() == 1 else (writes, reads)
                labels[f"{layer}.{name}"] = ends + (None,) * (tensor.dim() - len(ends))
            reads = writes
        return labels

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (Convolution, Dense)):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
