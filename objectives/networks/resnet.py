"""`ResNet`: the network of an `Architecture`, with its channel axes labelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.networks.architecture import (
    HEAD,
    Architecture,
    Downsampling,
    Kind,
    factor_axes,
    interior_axis,
    layer_label,
    stage_axis,
)
from objectives.networks.base import Labels, Network
from objectives.networks.pooling import halving


def module_name(label: str) -> str:
    """The name in a `ResNet` of the layer of a label: see `architecture.layer_label`."""
    return label.replace("stage", "stages.").replace(".block", ".")


def convolve(x: Tensor, weight: Tensor, stride: int, padding: tuple[int, ...] | None = None) -> Tensor:
    """x: [batch, in, height, width] with weight: [out, in, kernel, kernel], padded by half the kernel or as it says."""
    kernel = weight.shape[-1]
    if kernel == 1 and stride > 1 and x.shape[1] < 16 and x.device.type == "cpu":
        # Of fewer than 16 channels in fp32 oneDNN writes beyond its memory: from about 48 pixels a side a process dies
        # of it (torch 2.13, AMD EPYC, 2026-11-26). The pixels that a stride leaves out are left out before instead;
        # with more channels that takes up to twice the time.
        x, stride = x[:, :, ::stride, ::stride], 1
    return F.conv2d(x, weight, None, stride, kernel // 2 if padding is None else padding)


class Convolution(nn.Conv2d):
    """A convolution without bias whose training computation can be wrapped by strategies.

    Padded by half the kernel where `padding` says nothing else; that of a series is one of images with a height of 1.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int = 1, *, padding: int | None = None, dims: int = 2
    ) -> None:
        border = kernel // 2 if padding is None else padding
        sides, borders = ((1, kernel), (0, border)) if dims == 1 else ((kernel, kernel), (border, border))
        super().__init__(n_in, n_out, sides, stride, padding=borders, bias=False)
        self.dims = dims
        self.compute: Callable[[Tensor], Tensor] | None = None  # in place of the plain convolution, in training only

    def forward(self, x: Tensor) -> Tensor:
        if self.compute is not None and self.training:
            return self.compute(x)
        return self.plainly(x)

    def plainly(self, x: Tensor) -> Tensor:
        """What it computes without what wraps it."""
        return convolve(x, self.weight, self.stride[0], self.borders)

    @property
    def borders(self) -> tuple[int, ...]:
        """Pixels of padding above and below, and on either side."""
        return cast("tuple[int, ...]", self.padding)

    def kind(self, side: int) -> Kind:
        """What decides which pixels meet which taps; see `architecture.Layer.kind`."""
        kernel, border = self.kernel_size[-1], self.borders[-1]
        plain = kernel, self.stride[0], side
        return plain if self.dims == 2 and border == kernel // 2 else (*plain, border, self.dims)


class FactorisedConvolution(nn.Module):
    """A convolution made of three: 1x1 to `ranks[0]` channels, the kernel to `ranks[1]`, 1x1 to all (Tucker-2).

    Kim et al. 2016 (arXiv 1511.06530). Without biases, so that padding by zeros is what it was.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, ranks: tuple[int, ...]) -> None:
        super().__init__()
        self.reduce = Convolution(n_in, ranks[0], 1)
        self.core = Convolution(ranks[0], ranks[1], kernel, stride)
        self.expand = Convolution(ranks[1], n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.expand(self.core(self.reduce(x)))
        return out


class FactorisedHead(nn.Module):
    """A classifier made of two: to `rank` values, and from those to the classes."""

    def __init__(self, n_in: int, n_classes: int, rank: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(n_in, rank, bias=False)
        self.expand = nn.Linear(rank, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.expand(self.reduce(x))
        return out


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over ghost batches of at most `ghost` samples (Hoffer et al. 2017).

    0 normalises over the whole batch. Running statistics decay per step as those of an ordinary batch norm do.
    """

    def __init__(self, channels: int, ghost: int = 0) -> None:
        super().__init__(channels)
        self.ghost = ghost

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.ghost == 0 or self.ghost >= len(x):
            # Not super().forward: it increments num_batches_tracked, one more kernel per layer and step.
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, _MOMENTUM, self.eps
            )
        # A chunk of samples stays contiguous in channels_last; folding ghosts into channels would copy the whole batch.
        # Chunks are as equal as can be: a last one of a single pixel would have no variance.
        chunks = x.tensor_split(-(-len(x) // self.ghost))
        momentum = 1 - (1 - _MOMENTUM) ** (1 / len(chunks))
        normed = [
            F.batch_norm(chunk, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps)
            for chunk in chunks
        ]
        return torch.cat(normed)


class Block(nn.Module):
    """A basic block; a transition block has a projection shortcut.

    With an interior of 0 there is no branch: a transition block is its shortcut, a basic block adds the constant that a
    dead branch left behind, relu(x + offset).
    """

    def __init__(
        self,
        n_in: int,
        interior: int,
        n_out: int,
        stride: int,
        ghost: int,
        *,
        transition: bool,
        pools: bool = False,
        factors: tuple[tuple[int, ...] | None, tuple[int, ...] | None] = (None, None),
        downsampling: Downsampling | None = None,
    ) -> None:
        super().__init__()
        self.has_branch = interior > 0
        self.pools = pools  # the shortcut is a 3x3 convolution and a max-pooling
        self.downsampling = downsampling if transition else None
        self._halves = self.downsampling is not None and not pools  # what shortcut and branch read
        self._is_behind = self.downsampling is not None and self.downsampling.behind  # of its first convolution
        stride = 1 if self._halves else stride
        if self.has_branch:
            self.conv1 = _convolution(n_in, interior, stride, factors[0])
            self.bn1 = GhostBatchNorm(interior, ghost)
            self.conv2 = _convolution(interior, n_out, 1, factors[1])
            self.bn2 = GhostBatchNorm(n_out, ghost)
        self.offset = None if self.has_branch or transition else nn.Parameter(torch.zeros(n_out))
        self.shortcut: nn.Sequential | None = None
        if transition:
            convolution = Convolution(n_in, n_out, 3) if pools else Convolution(n_in, n_out, 1, stride)
            self.shortcut = nn.Sequential(convolution, GhostBatchNorm(n_out, ghost))

    def forward(self, x: Tensor) -> Tensor:
        halve, read = self._halving(x), x
        if halve is not None:
            x = halve(x)
            read = read if self._is_behind else x
        out = x if self.shortcut is None else self._shortcut(x)
        if self.has_branch:
            inside: Tensor = F.relu_(self.bn1(self.conv1(read)))
            if halve is not None and self._is_behind:
                inside = halve(inside)
            branch: Tensor = self.bn2(self.conv2(inside))
            out = branch.add_(out)
        elif self.offset is not None:
            out = out + self.offset.view(1, -1, 1, 1)
        return F.relu_(out)

    def _shortcut(self, x: Tensor) -> Tensor:
        convolution, norm = cast("nn.Sequential", self.shortcut)
        out: Tensor = convolution(x)
        if self.pools and self.downsampling is not None:
            out = halving(self.downsampling, out, training=self.training)(out)
        elif self.pools:
            out = F.max_pool2d(out, 2, ceil_mode=True)
        result: Tensor = norm(out)
        return result

    def _halving(self, x: Tensor) -> Callable[[Tensor], Tensor] | None:
        """What halves the maps that the block reads, or their like; None where nothing but strides does."""
        if self.downsampling is None or not self._halves:
            return None
        return halving(self.downsampling, x, training=self.training)


def _convolution(n_in: int, n_out: int, stride: int, ranks: tuple[int, ...] | None) -> nn.Module:
    """A 3x3 convolution, plain or factorised."""
    return (
        Convolution(n_in, n_out, 3, stride) if ranks is None else FactorisedConvolution(n_in, n_out, 3, stride, ranks)
    )


def haar(x: Tensor) -> Tensor:
    """The Haar wavelet transform, [batch, channels, height, width] to [batch, 4 channels, height / 2, width / 2].

    Orthonormal, so nothing is lost; images with an odd side are padded by their border.
    """
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    top, bottom = x[:, :, ::2], x[:, :, 1::2]
    high, low = top - bottom, top + bottom
    parts = [sign * half[..., 1::2] + half[..., ::2] for half in (low, high) for sign in (1, -1)]
    return torch.cat(parts, 1).mul_(0.5).contiguous(memory_format=torch.channels_last)


class ResNet(Network):
    """The network of `architecture`, in channels_last. Maps [batch, in_channels, height, width] to [batch, n_classes].

    Convolutions start He-normal over the fan-out, biases at 0, batch norms at (1, 0).
    """

    counter: ClassVar[str] = "stem.1.num_batches_tracked"
    fan_in: ClassVar[bool] = False

    def __init__(self, architecture: Architecture, ghost: int = 0) -> None:
        super().__init__()
        self.architecture: Architecture = architecture
        self.ghost = ghost
        width = architecture.stages[0].width
        n_in = architecture.in_channels * (4 if architecture.stem == "haar" else 1)
        stem = Convolution(n_in, width, architecture.stem_kernel, architecture.stem_stride)
        self.stem = nn.Sequential(stem, GhostBatchNorm(width, ghost))
        factors = dict(architecture.factors)
        pools = architecture.transition == "pool"
        self.stages = nn.ModuleList()
        for number, stage in enumerate(architecture.stages):
            blocks = nn.ModuleList()
            for position, interior in enumerate(stage.interiors):
                transition = number > 0 and position == 0
                stride = 2 if transition else 1
                block = Block(
                    *(width, interior, stage.width, stride, ghost),
                    transition=transition,
                    pools=pools and transition,
                    factors=(
                        factors.get(layer_label(number, position, 1)),
                        factors.get(layer_label(number, position, 2)),
                    ),
                    downsampling=architecture.downsampling,
                )
                blocks.append(block)
                width = stage.width
            self.stages.append(blocks)
        n_classes, rank = architecture.n_classes, factors.get(HEAD)
        self.head = nn.Linear(width, n_classes) if rank is None else FactorisedHead(width, n_classes, *rank)
        self._initialise()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        x = self._begun(x)
        for blocks in self.stages:
            for block in cast("nn.ModuleList", blocks):
                x = block(x)
        return self._told(x)

    def parts(self) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        blocks = [
            (f"stages.{s}.{b}", cast("Callable[[Tensor], Tensor]", block))
            for s, blocks in enumerate(self.stages)
            for b, block in enumerate(cast("nn.ModuleList", blocks))
        ]
        return [("stem", self._begun), *blocks, ("head", self._told)]

    def _begun(self, x: Tensor) -> Tensor:
        """What the first block reads."""
        return F.relu_(self.stem(haar(x) if self.architecture.stem == "haar" else x))

    def _told(self, x: Tensor) -> Tensor:
        """The logits of what the last block puts out."""
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits

    def convolutions(self) -> list[Convolution]:
        """Every convolution, from stem to head."""
        return [module for module in self.modules() if isinstance(module, Convolution)]

    def axes(self) -> dict[str, Labels]:
        """The channel axis of every dimension of every parameter and buffer, by name.

        `stage{s}` is shared by all tensors of a stage (the stem's output belongs to the first one), `stage{s}.block{b}`
        is the interior of one block. None marks what is no channel axis: pixels, kernel taps, classes, image channels.
        """
        labels: dict[str, Labels] = {}
        factors = dict(self.architecture.factors)

        def label(module: str, outputs: str | None, inputs: str | None) -> None:
            for name, tensor in [
                *self.get_submodule(module).named_parameters(),
                *self.get_submodule(module).named_buffers(),
            ]:
                ends = () if tensor.dim() == 0 else (outputs,) if tensor.dim() == 1 else (outputs, inputs)
                labels[f"{module}.{name}"] = ends + (None,) * (tensor.dim() - len(ends))

        before = stage_axis(0)
        label("stem.0", before, None)
        label("stem.1", before, None)
        for s, blocks in enumerate(self.stages):
            here = stage_axis(s)
            for b, block in enumerate(cast("nn.ModuleList", blocks)):
                at, interior = f"stages.{s}.{b}", interior_axis(s, b)
                if block.has_branch:
                    for n, outputs, inputs in ((1, interior, before), (2, here, interior)):
                        name = layer_label(s, b, n)  # type: ignore[arg-type]
                        if name in factors:
                            inner, outer = factor_axes(name)
                            label(f"{at}.conv{n}.reduce", inner, inputs)
                            label(f"{at}.conv{n}.core", outer, inner)
                            label(f"{at}.conv{n}.expand", outputs, outer)
                        else:
                            label(f"{at}.conv{n}", outputs, inputs)
                        label(f"{at}.bn{n}", outputs, None)
                if block.offset is not None:
                    labels[f"{at}.offset"] = (here,)
                if block.shortcut is not None:
                    label(f"{at}.shortcut.0", here, before)
                    label(f"{at}.shortcut.1", here, None)
                before = here
        if HEAD in factors:
            (rank,) = factor_axes(HEAD)
            label("head.reduce", rank, before)
            label("head.expand", None, rank)
        else:
            label("head", None, before)
        return labels

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, Convolution):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


_MOMENTUM = 0.1  # of running statistics, torch's default
