"""Number formats that no unit of the device has, emulated: numbers in fp32 that stand on the grid of another format.

All functions take and return tensors of floating point. A tensor that is not finite comes back as NaN, so that a run
that diverges is seen to; only `fixed` has a largest number at which an infinity saturates, as its hardware would.
Powers of two are made from their bits: `exp2` and `log2` may miss them by a unit in the last place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from objectives.strategies.methods.names import Float8Name, RoundingName

Quantise = Callable[[Tensor], Tensor]

FLOAT8 = {"e4m3": (torch.float8_e4m3fn, 8), "e5m2": (torch.float8_e5m2, 15)}  # type, exponent of its largest number
MANTISSA = 1.75  # of the largest number of either
LEAST, MOST = -126, 126  # exponents of which fp32 has the power and its inverse, both normal


def rounded(x: Tensor, rounding: RoundingName) -> Tensor:
    """x in whole numbers: the nearest, halves to even, or the one above with the probability of the fraction.

    The latter has the expectation x (Gupta et al. 2015, section 3). It draws from the default generator.
    """
    if rounding == "nearest":
        return x.round()
    below = x.floor()
    return below.add_(torch.rand_like(x).lt_(x - below))  # exact: x plus a number in [0, 1) would be rounded itself


def exponents(largest: Tensor) -> Tensor:
    """floor(log2(x)) of numbers above 0, exactly, as int32; of 0 it is -1."""
    return torch.frexp(largest).exponent - 1


def powers_of_two(exponent: Tensor) -> Tensor:
    """2 to int32 exponents between -126 and 127, exactly, in fp32."""
    return ((exponent + 127) << 23).view(torch.float32)


def fixed(x: Tensor, integer_bits: int, fraction_bits: int, rounding: RoundingName) -> Tensor:
    """x in fixed point <IL, FL>: multiples of 2^-FL in [-2^(IL-1), 2^(IL-1) - 2^-FL] (Gupta et al. 2015, section 3)."""
    scale, most = 2.0**fraction_bits, 2.0 ** (integer_bits - 1 + fraction_bits)
    return rounded(x * scale, rounding).clamp_(-most, most - 1).div_(scale)


def block(x: Tensor, bits: int, rounding: RoundingName, *, by_slice: bool) -> Tensor:
    """x as whole numbers of so many bits with one exponent, of the tensor or of each slice of its first dimension.

    With one exponent a tensor, and to the nearest, that is dynamic fixed point (Das et al. 2018, section 3); with one a
    slice and stochastic rounding the block floating point of SWALP (Yang et al. 2019, section 3.2). A vector is one
    block: a slice of it would be a number with an exponent of its own.

    The integers are symmetric, one fewer than two's complement has: -2^(bits-1) would be a power of two above the
    block's largest number, whose exponent would be another one the next time.
    """
    largest = _largest(x, by_slice=by_slice)
    exponent = (exponents(largest) - (bits - 2)).clamp(LEAST, MOST)
    step = powers_of_two(exponent).masked_fill(~largest.isfinite(), torch.nan)
    limit = 2 ** (bits - 1) - 1
    return rounded(x * powers_of_two(-exponent), rounding).clamp_(-limit, limit).mul_(step)


def float8(x: Tensor, name: Float8Name) -> Tensor:
    """x in an 8-bit float (Micikevicius et al. 2022, table 1), scaled so that its largest number is in range.

    The scale is the largest power of two that keeps it there: nothing is rounded but by the format itself, where
    scaling the largest number to 448 would round twice.
    """
    dtype, most = FLOAT8[name]
    largest = _largest(x, by_slice=False)
    exponent = exponents(largest)
    above = largest * powers_of_two(-exponent.clamp(LEAST, MOST)) > MANTISSA
    shift = (most - exponent - above.int()).clamp(LEAST, MOST)
    step = powers_of_two(-shift).masked_fill(~largest.isfinite(), torch.nan)
    return (x * powers_of_two(shift)).to(dtype).to(x.dtype).mul_(step)


def passed(x: Tensor, forward: Quantise | None, backward: Quantise | None) -> Tensor:
    """x in the format of `forward`, whose gradient comes back in that of `backward`: straight through the rounding."""
    found: Tensor = _StraightThrough.apply(x, forward, backward)  # type: ignore[no-untyped-call]
    return found


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Quantise | None, backward: Quantise | None) -> Tensor:
        ctx.quantise = backward
        return x.view_as(x) if forward is None else forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient if ctx.quantise is None else ctx.quantise(gradient), None, None


def _largest(x: Tensor, *, by_slice: bool) -> Tensor:
    """The largest absolute value, in a shape that broadcasts."""
    first = 1 if by_slice and x.dim() > 1 else 0
    dims = tuple(range(first, x.dim()))
    return x.abs().amax(dims, keepdim=True) if dims else x.abs()
