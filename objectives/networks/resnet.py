"""`ResNet`: the network of an `Architecture`, with its channel axes labelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.networks.architecture import (
    HEAD,
    WEIGHT_NORMED,
    Architecture,
    Downsampling,
    NormKind,
    factor_axes,
    interior_axis,
    layer_label,
    stage_axis,
)
from objectives.networks.base import Labels, Network
from objectives.networks.layers import Kind
from objectives.networks.norms.slots import Norm, norm_of, normalised
from objectives.networks.pooling import haar, halving, stem_pooling


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
    Where its weights are normalised, `weight` are the directions of its filters and `gain` their lengths.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        dims: int = 2,
        is_normalised: bool = False,
    ) -> None:
        border = kernel // 2 if padding is None else padding
        sides, borders = ((1, kernel), (0, border)) if dims == 1 else ((kernel, kernel), (border, border))
        super().__init__(n_in, n_out, sides, stride, padding=borders, bias=False)
        self.dims = dims
        self.gain = nn.Parameter(torch.ones(n_out)) if is_normalised else None  # [out]
        self.compute: Callable[[Tensor], Tensor] | None = None  # in place of the plain convolution, in training only
        self.multiply: Callable[[Tensor, Tensor], Tensor] | None = None  # within it: likewise of input and weight

    def forward(self, x: Tensor) -> Tensor:
        if self.compute is not None and self.training:
            return self.compute(x)
        return self.plainly(x)

    def plainly(self, x: Tensor) -> Tensor:
        """What it computes without what wraps it."""
        if self.multiply is not None and self.training:
            return self.multiply(x, self.filters)
        return self.multiplied(x, self.filters)

    def multiplied(self, x: Tensor, weight: Tensor) -> Tensor:
        """x convolved with a weight as this layer does it."""
        return convolve(x, weight, self.stride[0], self.borders)

    @property
    def filters(self) -> Tensor:
        """The weights that it computes with: [out, in, kernel, kernel]."""
        return self.weight if self.gain is None else normalised(self.weight, self.gain)

    @torch.no_grad()
    def reset_gain(self) -> None:
        """Lets it compute with its very weights."""
        if self.gain is not None:
            self.gain.copy_(torch.linalg.vector_norm(self.weight, dim=(1, 2, 3)))

    @property
    def borders(self) -> tuple[int, ...]:
        """Pixels of padding above and below, and on either side."""
        return cast("tuple[int, ...]", self.padding)

    def kind(self, side: int) -> Kind:
        """What decides which pixels meet which taps; see `layers.Layer.kind`."""
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
        norm: NormKind = "batch",
        downsampling: Downsampling | None = None,
    ) -> None:
        super().__init__()
        self.has_branch = interior > 0
        self.pools = pools  # the shortcut is a 3x3 convolution and a max-pooling
        is_normalised = norm in WEIGHT_NORMED
        self.downsampling = downsampling if transition else None
        self._halves = self.downsampling is not None and not pools  # what shortcut and branch read
        self._is_behind = self.downsampling is not None and self.downsampling.behind  # of its first convolution
        stride = 1 if self._halves else stride
        if self.has_branch:
            self.conv1 = _convolution(n_in, interior, stride, factors[0], is_normalised)
            self.bn1 = norm_of(norm, interior, ghost)
            self.conv2 = _convolution(interior, n_out, 1, factors[1], is_normalised)
            self.bn2 = norm_of(norm, n_out, ghost)
        self.offset = None if self.has_branch or transition else nn.Parameter(torch.zeros(n_out))
        self.shortcut: nn.Sequential | None = None
        if transition:
            kernel, stride = (3, 1) if pools else (1, stride)
            convolution = Convolution(n_in, n_out, kernel, stride, is_normalised=is_normalised)
            self.shortcut = nn.Sequential(convolution, norm_of(norm, n_out, ghost))

    @property
    def last_scale(self) -> nn.Parameter:
        """What each channel of the branch is multiplied by at its end: at 0 the block passes on what it reads."""
        gain = self.conv2.gain if isinstance(self.conv2, Convolution) else None
        return self.bn2.get_parameter("weight") if gain is None else gain

    def forward(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        halve, read = self._halving(x), x
        if halve is not None:
            x = halve(x)
            read = read if self._is_behind else x
        out = x if self.shortcut is None else self._shortcut(x, seen)
        if self.has_branch:
            inside: Tensor = F.relu_(self.bn1(_noted(self.conv1(read), seen)))
            if halve is not None and self._is_behind:
                inside = halve(inside)
            branch: Tensor = self.bn2(_noted(self.conv2(inside), seen))
            out = branch.add_(out)
        elif self.offset is not None:
            out = out + self.offset.view(1, -1, 1, 1)
        return F.relu_(out)

    def _shortcut(self, x: Tensor, seen: list[Tensor] | None) -> Tensor:
        convolution, norm = cast("nn.Sequential", self.shortcut)
        out: Tensor = convolution(x)
        if self.pools and self.downsampling is not None:
            out = halving(self.downsampling, out, training=self.training)(out)
        elif self.pools:
            out = F.max_pool2d(out, 2, ceil_mode=True)
        result: Tensor = norm(_noted(out, seen))
        return result

    def _halving(self, x: Tensor) -> Callable[[Tensor], Tensor] | None:
        """What halves the maps that the block reads, or their like; None where nothing but strides does."""
        if self.downsampling is None or not self._halves:
            return None
        return halving(self.downsampling, x, training=self.training)


def _convolution(
    n_in: int, n_out: int, stride: int, ranks: tuple[int, ...] | None, is_normalised: bool
) -> Convolution | FactorisedConvolution:
    """A 3x3 convolution, plain or factorised."""
    if ranks is None:
        return Convolution(n_in, n_out, 3, stride, is_normalised=is_normalised)
    return FactorisedConvolution(n_in, n_out, 3, stride, ranks)


def _noted(x: Tensor, seen: list[Tensor] | None) -> Tensor:
    """What a norm reads, noted where somebody asks for it."""
    if seen is not None:
        seen.append(x)
    return x


class ResNet(Network):
    """The network of `architecture`, in channels_last. Maps [batch, in_channels, height, width] to [batch, n_classes].

    Convolutions start He-normal over the fan-out, biases at 0, batch norms at (1, 0). Without batch norms, which keep
    activations from growing from block to block, branches start at 0 (as in Fixup, Zhang et al. 2019), and without any
    norm convolutions start over the fan-in, so that activations have a variance of about 1.
    """

    counter: ClassVar[str] = "stem.1.num_batches_tracked"

    def __init__(self, architecture: Architecture, ghost: int = 0) -> None:
        super().__init__()
        self.fan_in = architecture.norm == "none"
        self.architecture: Architecture = architecture
        self.ghost = ghost
        width = architecture.stages[0].width
        n_in = architecture.in_channels * (4 if architecture.stem == "haar" else 1)
        norm = architecture.norm
        kernel, stride, is_normalised = architecture.stem_kernel, architecture.stem_stride, norm in WEIGHT_NORMED
        stem = Convolution(n_in, width, kernel, stride, is_normalised=is_normalised)
        self.stem = nn.Sequential(stem, norm_of(norm, width, ghost))
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
                    norm=norm,
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
        return self._computed(x, None)

    def recorded(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        seen: list[Tensor] = []
        return self._computed(x, seen), seen

    def _computed(self, x: Tensor, seen: list[Tensor] | None) -> Tensor:
        x = self._begun(x, seen)
        for blocks in self.stages:
            for block in cast("nn.ModuleList", blocks):
                x = block(x, seen)
        return self._told(x)

    def parts(self) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        blocks = [
            (f"stages.{s}.{b}", cast("Callable[[Tensor], Tensor]", block))
            for s, blocks in enumerate(self.stages)
            for b, block in enumerate(cast("nn.ModuleList", blocks))
        ]
        return [("stem", self._begun), *blocks, ("head", self._told)]

    def _begun(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """What the first block reads."""
        convolution, norm = self.stem
        x = convolution(haar(x) if self.architecture.stem == "haar" else x)
        x = F.relu_(norm(_noted(x, seen)))
        return stem_pooling(x) if self.architecture.stem_pool else x

    def _told(self, x: Tensor) -> Tensor:
        """The logits of what the last block puts out."""
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits

    def normed(self) -> list[tuple[Convolution, Norm]]:
        """Every convolution with the norm behind it, from stem to head; a factorised one with its last part."""
        found: list[tuple[Convolution, Norm]] = []
        before: Convolution | None = None
        for module in self.modules():
            before = module if isinstance(module, Convolution) else before
            if isinstance(module, Norm):
                assert before is not None
                found.append((before, module))
        return found

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
                nn.init.kaiming_normal_(module.weight, mode=self.mode, nonlinearity="relu")
                module.reset_gain()
            elif isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Block) and module.has_branch and self.architecture.norm != "batch":
                nn.init.zeros_(module.last_scale)
