"""Block floating point, emulated: whole numbers with one exponent a block. With `Swa` behind it, SWALP."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from objectives.strategies.emulated import Stored

if TYPE_CHECKING:
    from objectives.strategies.methods.names import RoundingName
    from objectives.strategies.methods.quantising import Quantise


@dataclass(frozen=True)
class BlockFloatingPoint(Stored):
    """SGD-LP of SWALP (Yang et al. 2019, section 3.2 and algorithm 2): everything that training keeps has 8 bits.

    Weights, activations, errors, gradients, the accumulator and momentum are whole numbers, rounded at random, with one
    exponent for every slice of the first dimension: an image of activations, an output channel of weights. A vector has
    one. The accumulator and the weights share a grid, so that they are one tensor here. SWALP is this and `Swa`, whose
    average is in fp32.

    Raises:
        ValueError: a parameter outside its range.
    """

    bits: int = 8  # of the whole numbers, 2 to 16; 32 is fp32
    rounding: RoundingName = "stochastic"
    by_slice: bool = True  # else one exponent a tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounding not in ("nearest", "stochastic"):
            raise ValueError(f"{self!r}: rounding is nearest or stochastic")

    @property
    def what(self) -> str:
        how = "rounded at random" if self.rounding == "stochastic" else "rounded to the nearest"
        blocks = "" if self.by_slice else ", a block a tensor"
        return f"{self.bits}-bit block floating point {how}{blocks}"

    def forward(self) -> Quantise:
        from objectives.strategies.methods.quantising import block

        return partial(block, bits=self.bits, rounding=self.rounding, by_slice=self.by_slice)
