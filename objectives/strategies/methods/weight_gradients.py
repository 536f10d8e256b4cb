"""Gradients of a convolution's weight from a part of the samples: `sampled`. And what of a network goes without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from objectives.networks.base import Network
from objectives.networks.resnet import Convolution, ResNet
from objectives.strategies.base import Multiply


@dataclass
class Lot:
    """Whether the step at hand leaves gradients out. The one thing here that changes."""

    leaves_out: bool = False


@dataclass(frozen=True)
class Chosen:
    """What an approximation acts on in a network."""

    model: Network
    layers: frozenset[Convolution]  # whose weight gets a gradient from a part of the sum, or now and then
    entries: frozenset[Convolution]  # that read what lies below: where the backward pass may end
    names: frozenset[str]  # of the parameters that go without a gradient, wholly or in part
    lot: Lot = field(default_factory=Lot)


def of_weights(model: Network) -> Chosen:
    """All convolutions behind the first that train, but for those of one tap: they are cheap."""
    layers = {
        f"{name}.weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, Convolution) and layer.kernel_size[-1] > 1 and layer.weight.requires_grad
    }
    first = model.convolutions()[0] if layers else None
    layers = {name: layer for name, layer in layers.items() if layer is not first}
    gains = {f"{name.removesuffix('weight')}gain" for name, layer in layers.items() if layer.gain is not None}
    return Chosen(model, frozenset(layers.values()), frozenset(), frozenset(layers) | gains)


def of_early_parts(model: Network) -> Chosen:
    """All that lies below the last stage, and the convolutions through which that stage reads it.

    In a plain network: below the second half of its convolutions. Nothing where there is no such place.
    """
    parts = [name for name, _ in model.parts()]
    if isinstance(model, ResNet):
        last = len(model.stages) - 1
        above = f"stages.{last}.0" if last > 0 else None
        inner = {f"{above}.conv1", f"{above}.conv1.reduce", f"{above}.shortcut.0"}
    else:
        n = len(model.convolutions())
        above = parts[n // 2] if n > 1 else None
        inner = {f"{above}.convolution"}
    if above is None:
        return Chosen(model, frozenset(), frozenset(), frozenset())
    below = tuple(f"{name}." for name in parts[: parts.index(above)])
    entries = {m for name, m in model.named_modules() if name in inner and isinstance(m, Convolution)}
    names = {name for name, p in model.named_parameters() if name.startswith(below) and p.requires_grad}
    return Chosen(model, frozenset(), frozenset(entries), frozenset(names))


def sampled(layer: Convolution, multiply: Multiply, share: float) -> Multiply:
    """The product of a layer whose weight's gradient comes from a share of the samples, and is divided by it.

    The first ones of the batch count, which are drawn with the order of the images: in the mean over all orders that is
    the gradient itself. That of the input stays exact.
    """

    def product(x: Tensor, weight: Tensor) -> Tensor:
        plain = multiply(x, weight.detach())
        seen = x[: max(1, round(share * len(x)))].detach().to(plain.dtype)
        result: Tensor = _Sampled.apply(plain, seen, weight, layer.stride[0], layer.borders)  # type: ignore[no-untyped-call]
        return result

    return product


class _Sampled(torch.autograd.Function):
    """What a convolution puts out, as it is; on the way back it adds the weight's gradient from the first samples."""

    @staticmethod
    def forward(ctx: Any, plain: Tensor, x: Tensor, weight: Tensor, stride: int, borders: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.places = [stride, stride], list(borders), [1, 1], False, [0, 0], 1
        return plain.view_as(plain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        part, like = gradient[: len(x)], weight.to(x.dtype)
        _, of_weight, _ = torch.ops.aten.convolution_backward(part, x, like, None, *ctx.places, (False, True, False))
        return gradient, None, of_weight.to(weight.dtype) * (len(gradient) / len(x)), None, None
