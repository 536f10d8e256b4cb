"""Which convolutions a number format computes as fp32 does on this device. Found by doing both: kernels have faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from objectives.device.formats import FORMATS, NumberFormat
from objectives.networks.layers import Kind, Layer
from objectives.networks.resnet import convolve

# Of the norm of what fp32 finds. Right kernels err by up to 0.005 in bf16 and 0.001 in fp16, a few times that where
# sums are short. In bf16 on a CPU with AVX512-BF16, oneDNN's gradient of a 3x3 convolution of stride 2 over 1x1 pixels
# errs by 0.2 to 1e13: taps that see padding only hold what lay in memory (torch 2.13, AMD EPYC, 2026-11-26).
TOLERANCE = 0.05
MOST_DIFFER = 0.5  # share of the kinds: a format that differs in more is refused
SPARE = (17, 9)  # channels as pruning leaves them, in and out
CHANNELS = 32  # at most: kernels work on blocks of 8 or 16
LARGE = 64  # pixels a side, from which on 16 channels are enough: 107 kinds up to 224 pixels take seconds
SMALL = 2  # pixels a side, up to which some taps may see padding only: looked at closely
TRIES = 4  # there; what is wrong may be right by chance, in one of four tries
PRIMER = 1e4  # size of what is left in memory before a try

# Of x: [batch, in, side, side] with [out, in, k, k] at a stride, and with a padding where that is not half of k.
Convolve = Callable[..., Tensor]
Places = tuple[int] | tuple[int, tuple[int, int]]  # where taps meet pixels: stride, padding


@dataclass(frozen=True)
class Comparison:
    """What a number format computes unlike fp32."""

    n_kinds: int  # that were compared
    forward: frozenset[Kind]  # differ in what they put out
    gradients: frozenset[Kind]  # differ in a gradient

    @property
    def reason(self) -> str | None:
        """Why the format is of no use, or None where fp32 can stand in for what differs."""
        if self.forward:
            return f"puts out other numbers than fp32 in {_named(self.forward)}"
        if len(self.gradients) > MOST_DIFFER * self.n_kinds:
            return f"finds other gradients than fp32 in {len(self.gradients)} of {self.n_kinds} kinds of convolutions"
        return None


def compared(
    number_format: NumberFormat, layers: Iterable[Layer], device: torch.device, compute: Convolve = convolve
) -> Comparison:
    """What the format computes unlike fp32 in layers of these kinds. Draws nothing from the default generator."""
    channels: dict[Kind, set[tuple[int, int]]] = {}
    for layer in layers:
        most = CHANNELS // 2 if layer.side >= LARGE else CHANNELS
        capped = min(most, layer.n_in), min(most, layer.n_out)
        channels.setdefault(layer.kind, set()).add(capped)
    for kind, pairs in channels.items():
        channels[kind] = {min(pairs), max(pairs)} | ({SPARE} if kind[2] <= SMALL else set())
    found = {kind: _differs(number_format, kind, frozenset(pairs), device, compute) for kind, pairs in channels.items()}
    number_format.set_float32_products()
    return Comparison(
        len(found),
        frozenset(kind for kind, (forward, _) in found.items() if forward),
        frozenset(kind for kind, (_, gradients) in found.items() if gradients),
    )


def admitted(number_format: NumberFormat, layers: Iterable[Layer], device: torch.device) -> NumberFormat:
    """The format for a training with these layers: what it computes unlike fp32 is computed in fp32."""
    if number_format.autocast is None:
        return number_format
    comparison = compared(number_format, layers, device)
    return replace(number_format, strict=comparison.gradients | comparison.forward)


@lru_cache(maxsize=4096)
def _differs(
    number_format: NumberFormat, kind: Kind, pairs: frozenset[tuple[int, int]], device: torch.device, compute: Convolve
) -> tuple[bool, bool]:
    """Whether (outputs, gradients) of a kind of convolution differ from those of fp32, for any of the channels."""
    kernel, stride, side, *rest = kind
    is_small = side <= SMALL
    forward = gradients = False
    generator = torch.Generator().manual_seed(0)
    for n_in, n_out in sorted(pairs):
        for _ in range(TRIES if is_small else 1):
            operands = _operands(kind, n_in, n_out, device, generator)
            FORMATS["fp32"].set_float32_products()
            expected = _both_ways(FORMATS["fp32"], *operands, compute)
            number_format.set_float32_products()
            if is_small:
                beside = (kernel, stride, side + 2, *rest)
                x, weight, places, gradient = _operands(beside, n_in, n_out, device, generator)
                _both_ways(number_format, x, weight, places, gradient * PRIMER, compute)
            output, *others = map(_differ, _both_ways(number_format, *operands, compute), expected)
            forward, gradients = forward or output, gradients or any(others)
    return forward, gradients


def _operands(
    kind: Kind, n_in: int, n_out: int, device: torch.device, generator: torch.Generator
) -> tuple[Tensor, Tensor, Places, Tensor]:
    """x, weight, stride and padding, the gradient of the output, random. Small images come in batches: their short sums
    err more.
    """
    kernel, stride, side, *rest = kind
    padding, dims = rest or (kernel // 2, 2)
    places: Places = (stride, (padding if dims == 2 else 0, padding)) if rest else (stride,)
    out = (side + 2 * padding - kernel) // stride + 1
    height, taps, out_height = (side, kernel, out) if dims == 2 else (1, 1, 1)
    batch = max(1, 64 // out**2)
    shapes = (batch, n_in, height, side), (n_out, n_in, taps, kernel), (batch, n_out, out_height, out)
    x, weight, gradient = (
        torch.randn(shape, generator=generator).to(device).contiguous(memory_format=torch.channels_last)
        for shape in shapes
    )
    return x, weight, places, gradient


def _both_ways(
    number_format: NumberFormat, x: Tensor, weight: Tensor, places: Places, gradient: Tensor, compute: Convolve
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient to the input, gradient to the weight."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    with torch.enable_grad(), number_format.context(x.device):
        output = compute(x, weight, *places)
    to_input, to_weight = torch.autograd.grad(output, (x, weight), gradient.to(output.dtype))
    return output.detach(), to_input, to_weight


def _differ(found: Tensor, expected: Tensor) -> bool:
    error = (found.float() - expected).norm()
    return not bool(error <= TOLERANCE * expected.norm())  # also for NaN


def _named(kinds: frozenset[Kind]) -> str:
    kernel, stride, side, *_ = min(kinds)
    others = f" and {len(kinds) - 1} other kinds" if len(kinds) > 1 else ""
    return f"a {kernel}x{kernel} convolution of stride {stride} over {side}x{side} pixels{others}"
