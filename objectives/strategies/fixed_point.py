"""Fixed point, emulated: every number a multiple of one small number, rounded to the nearest or at random."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from objectives.strategies.emulated import Stored

if TYPE_CHECKING:
    from objectives.strategies.methods.names import RoundingName
    from objectives.strategies.methods.quantising import Quantise


@dataclass(frozen=True)
class FixedPoint(Stored):
    """Fixed point with stochastic rounding (Gupta, Agrawal, Gopalakrishnan & Narayanan 2015, section 3).

    Activations, errors, gradients, momentum and weights are multiples of 2^-(bits - integer_bits), between minus and
    plus 2^(integer_bits - 1). The loss is a mean over the batch and is not scaled, so that its errors are small beside
    the grid: to the nearest they are lost, and at random mostly noise, where that is coarse (benchmarks/formats.md).

    Raises:
        ValueError: a parameter outside its range.
    """

    integer_bits: int = 4  # of them before the point, the sign among them: 4 reach from -8 to 8
    rounding: RoundingName = "stochastic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.integer_bits <= self.bits or self.rounding not in ("nearest", "stochastic"):
            raise ValueError(f"{self!r}: integer_bits lies in 1 to bits, rounding is nearest or stochastic")

    @property
    def fraction_bits(self) -> int:
        """Behind the point."""
        return self.bits - self.integer_bits

    @property
    def what(self) -> str:
        how = "rounded at random" if self.rounding == "stochastic" else "rounded to the nearest"
        return f"fixed point <{self.integer_bits}, {self.fraction_bits}> {how}"

    def forward(self) -> Quantise:
        from objectives.strategies.methods.quantising import fixed

        return partial(fixed, integer_bits=self.integer_bits, fraction_bits=self.fraction_bits, rounding=self.rounding)
