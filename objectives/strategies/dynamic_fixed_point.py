"""Dynamic fixed point, emulated: whole numbers with one exponent a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from objectives.modelled.assumptions import DFP16, Arithmetic
from objectives.strategies.emulated import OfBits

if TYPE_CHECKING:
    from objectives.strategies.methods.quantising import Quantise


@dataclass(frozen=True)
class DynamicFixedPoint(OfBits):
    """DFP16 (Das et al. 2018, arXiv 1802.00930): what convolutions compute with has 16 bits and one exponent a tensor.

    Rounded to the nearest. Master weights, the update and batch norms are in fp32, as published. Their products are
    summed in INT32 chains that are flushed to fp32; here sums are in fp32, whose 24 bits hold an operand whole.

    Raises:
        ValueError: a number of bits that it cannot have.
    """

    @property
    def what(self) -> str:
        return f"DFP{self.bits}"

    @property
    def units(self) -> Arithmetic:
        return DFP16 if self.bits == 16 else super().units

    def forward(self) -> Quantise:
        from objectives.strategies.methods.quantising import block

        return partial(block, bits=self.bits, rounding="nearest", by_slice=False)
