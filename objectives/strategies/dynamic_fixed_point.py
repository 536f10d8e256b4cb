"""Dynamic fixed point, emulated: whole numbers with one exponent a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from objectives.modelled.assumptions import DFP16, Arithmetic, by_width
from objectives.strategies.emulated import Emulated

if TYPE_CHECKING:
    from objectives.strategies.methods.quantising import Quantise

PLAIN_BITS = 32  # of the format that is fp32 itself


@dataclass(frozen=True)
class DynamicFixedPoint(Emulated):
    """DFP16 (Das et al. 2018, arXiv 1802.00930): what convolutions compute with has 16 bits and one exponent a tensor.

    Rounded to the nearest. Master weights, the update and batch norms are in fp32, as published. Their products are
    summed in INT32 chains that are flushed to fp32; here sums are in fp32, whose 24 bits hold an operand whole.

    Raises:
        ValueError: a number of bits that it cannot have.
    """

    bits: int = 16  # of the whole numbers, 2 to 16; 32 is fp32

    def __post_init__(self) -> None:
        check_bits(self, self.bits)

    @property
    def what(self) -> str:
        return f"DFP{self.bits}"

    @property
    def is_neutral(self) -> bool:
        return self.bits == PLAIN_BITS

    @property
    def units(self) -> Arithmetic:
        return DFP16 if self.bits == 16 else by_width(self.bits)

    def forward(self) -> Quantise:
        from objectives.strategies.methods.quantising import block

        return partial(block, bits=self.bits, rounding="nearest", by_slice=False)

    def backward(self) -> Quantise:
        return self.forward()


def check_bits(strategy: Emulated, bits: int) -> None:
    """Refuses numbers of bits that fp32 cannot stand in for.

    Raises:
        ValueError: it is none of 2 to 16, and not 32.
    """
    if bits != PLAIN_BITS and not 2 <= bits <= 16:
        raise ValueError(f"{strategy!r}: bits must lie in 2 to 16, or be {PLAIN_BITS}, which is fp32")
