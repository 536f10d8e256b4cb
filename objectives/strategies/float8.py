"""8-bit floats, emulated: PyTorch has no convolution that computes in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from objectives.modelled.assumptions import FLOAT8, Arithmetic
from objectives.strategies.emulated import Emulated

if TYPE_CHECKING:
    from objectives.strategies.methods.names import Float8Name
    from objectives.strategies.methods.quantising import Quantise

FormatName = Literal["e4m3", "e5m2", "fp32"]


@dataclass(frozen=True)
class Float8(Emulated):
    """Activations and weights in one 8-bit float, errors in another (Micikevicius et al. 2022, arXiv 2209.05433).

    As published, e4m3 forward and e5m2 backward, for the range of gradients. A tensor has one scale, a power of two.
    Master weights, the update and sums are in fp32.

    Raises:
        ValueError: an unknown format, or fp32 for one of both only.
    """

    activations: FormatName = "e4m3"  # and weights; fp32 for both is fp32 itself
    errors: FormatName = "e5m2"

    def __post_init__(self) -> None:
        both = (self.activations, self.errors)
        if any(name not in ("e4m3", "e5m2", "fp32") for name in both) or both.count("fp32") == 1:
            raise ValueError(f"{self!r}: e4m3 or e5m2 for each, or fp32 for both")

    @property
    def what(self) -> str:
        return f"fp8 ({self.activations}, errors {self.errors})"

    @property
    def is_neutral(self) -> bool:
        return self.activations == "fp32"

    @property
    def units(self) -> Arithmetic:
        return FLOAT8

    def forward(self) -> Quantise:
        from objectives.strategies.methods.quantising import float8

        return partial(float8, name=cast("Float8Name", self.activations))

    def backward(self) -> Quantise:
        from objectives.strategies.methods.quantising import float8

        return partial(float8, name=cast("Float8Name", self.errors))
