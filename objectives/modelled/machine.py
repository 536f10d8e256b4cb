"""A machine as the time model sees it, as plain data. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf

from objectives.modelled.assumptions import Arithmetic

VALUE_BYTES = {"fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0}  # of an activation


@dataclass(frozen=True)
class Machine:
    """What a training step is made of on some machine: the five numbers of the time model and a rate a format.

    Raises:
        ValueError: a number is not above 0, or the rate of fp32 is missing.
    """

    name: str
    step_seconds: float  # of every step, whatever is in it: Python, the loss, the first kernels
    launch_seconds: float  # of every operation: a convolution or a norm with its ReLU, both ways
    bandwidth: float  # bytes a second, from and to memory
    half_length: float  # products that one output sums at which a convolution reaches half of its rate
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)  # multiply-adds a second, by number format

    def __post_init__(self) -> None:
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "rates")}
        for name, value in {**numbers, **{f"rates.{key}": rate for key, rate in self.rates.items()}}.items():
            if not 0 < value < inf:
                raise ValueError(f"{name} of machine {self.name!r} is {value!r}: it must be above 0")
        if "fp32" not in self.rates:
            raise ValueError(f"machine {self.name!r} has no rate of fp32: measure it with benchmarks.time_model")

    def rate(self, number_format: str | Arithmetic) -> float:
        """Multiply-adds a second in a format; of an emulated one what is assumed of it.

        Raises:
            ValueError: the format has no rate on this machine.
        """
        if isinstance(number_format, Arithmetic):
            return self.rates["fp32"] * number_format.rate
        if number_format not in self.rates:
            raise ValueError(f"machine {self.name!r} has no rate of {number_format}: it has {', '.join(self.rates)}")
        return self.rates[number_format]

    def to_json(self) -> dict[str, object]:
        """This machine as plain JSON data; `from_json` is the inverse."""
        return {**asdict(self), "rates": dict(self.rates)}

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Machine:
        """The machine that `to_json` wrote."""
        return cls(**plain)  # type: ignore[arg-type]


# What stands in for a machine that was not asked: a core of an AMD EPYC (benchmarks/time_model.md). Of formats that it
# has no use for the rate of bf16. Ratios are what it is for: on 110 steps of networks that it was not fitted to they
# spread by 0.07 decades, by 0.16 where steps were told by their FLOPs alone (2026-11-27).
NOMINAL = Machine(
    "one core of an AMD EPYC",
    step_seconds=9.1e-10,
    launch_seconds=2.97e-4,
    bandwidth=2.39e10,
    half_length=170.0,
    rates={"fp32": 7.58e10, "tf32": 1.07e11, "bf16": 1.07e11, "fp16": 1.07e11},
)


def value_bytes(number_format: str | Arithmetic) -> float:
    """Bytes of an activation in a format."""
    return number_format.value_bytes if isinstance(number_format, Arithmetic) else VALUE_BYTES[number_format]
