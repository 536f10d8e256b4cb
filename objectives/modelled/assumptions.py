"""What is assumed of units that compute in formats which are emulated here: a table with its sources. No torch."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN_BITS = 32  # of fp32


@dataclass(frozen=True)
class Arithmetic:
    """A number format as the time model sees it, where no rate of it could be measured."""

    rate: float  # multiply-adds a second, relative to fp32 on the same machine
    value_bytes: float  # of a stored number
    source: str


def by_width(bits: int) -> Arithmetic:
    """Units of integers so wide: as many bits of operands a second as fp32's, whatever their number.

    So AVX-512 VNNI has two (INT16) and four (INT8) multiply-adds where fp32 has one, and an H100 two where the operands
    are half as wide (TF32, BF16, FP8: 495, 989, 1979 TFLOP/s dense).
    """
    return Arithmetic(
        PLAIN_BITS / bits, bits / 8, f"{bits} bits: by the width of operands 32/{bits} times as fast as fp32"
    )


# Measured by its authors on Knights Mill, over whole trainings, where the width alone would give 2
DFP16 = Arithmetic(1.8, 2.0, "Das et al. 2018, abstract: 1.8 times the throughput of fp32")
FLOAT8 = Arithmetic(4.0, 1.0, "NVIDIA H100 data sheet: FP8 has four times the rate of TF32, dense")
