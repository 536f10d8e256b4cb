"""What came of a reduction, as plain data: the network before and after it, and what each costs. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Literal

from objectives.reduction.settings import Iteration, Reduction

Ending = Literal["complete", "time", "interrupted"]


@dataclass(frozen=True)
class Spread:
    """Readings of one quantity: their median and quartiles."""

    median: float
    low: float
    high: float
    n: int  # readings

    @classmethod
    def of(cls, readings: Sequence[float]) -> Spread:
        """What so many readings, at least one, come to."""
        if len(readings) == 1:
            return cls(readings[0], readings[0], readings[0], 1)
        low, _, high = quantiles(readings, n=4, method="inclusive")
        return cls(median(readings), low, high, len(readings))


@dataclass(frozen=True)
class Latency:
    """How long both networks take for a batch of images, measured in turns."""

    batch: int  # images
    base: Spread  # wall-clock seconds
    reduced: Spread  # likewise
    speed_up: Spread  # seconds of the base over those of the reduced network, of neighbouring readings


@dataclass(frozen=True)
class Weighed:
    """A network and what it costs to keep and to use."""

    architecture: str  # in words
    n_parameters: int
    flops: float  # of an inference, per image; 1 multiply-add = 2 FLOPs
    n_bytes: int  # of its weights on disk
    accuracy: float  # on the validation images, in [0, 1]
    test_accuracy: float | None = None  # on those of the test split; None: it is closed


@dataclass(frozen=True)
class Comparison:
    """The network before and after a reduction."""

    base: Weighed
    reduced: Weighed
    n_val: int  # validation images
    latencies: tuple[Latency, ...] = ()  # by batch size; empty: not measured
    device: str = ""  # that they were measured on, in words
    n_test: int | None = None  # images of the test split; None: it is closed, or there is none
    quantised: Weighed | None = None  # the reduced network in fewer bits; None: not asked for


@dataclass(frozen=True)
class Result:
    """A reduction, as far as it went."""

    settings: Reduction
    seed: int
    attempts: tuple[Iteration, ...]
    ending: Ending  # complete: nothing is left to try, or as many attempts were made as were asked for
    compared: Comparison

    @property
    def accepted(self) -> tuple[Iteration, ...]:
        """The attempts that made the network smaller, in order."""
        return tuple(each for each in self.attempts if each.accepted)

    @property
    def least(self) -> float:
        """The validation accuracy that a network must have to be accepted."""
        return self.compared.base.accuracy - self.settings.epsilon

    def to_json(self) -> dict[str, object]:
        """This result as plain JSON data."""
        return {
            "settings": self.settings.to_json(),
            "seed": self.seed,
            "ending": self.ending,
            "attempts": [each.to_json() for each in self.attempts],
            **asdict(self.compared),
        }
