"""The numbers of a machine from measured steps: `fitted`. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from objectives.modelled.machine import Machine
from objectives.modelled.seconds import step_seconds
from objectives.networks.plain import AnyArchitecture


@dataclass(frozen=True)
class Measured:
    """A training step and how long it took."""

    architecture: AnyArchitecture
    size: int  # pixels: side of the images
    batch_size: int
    number_format: str
    seconds: float

    def predicted(self, machine: Machine) -> float:
        """What the time model says of this step."""
        return step_seconds(self.architecture, self.size, self.batch_size, self.number_format, machine)


def fitted(name: str, steps: Sequence[Measured], start: Machine) -> Machine:
    """The machine that errs least on these steps: least squares of logarithms, outliers counting less.

    `start` has the measured rates of large operations, from which the fit begins. Memory is taken for no faster than it
    was measured: without that limit its bandwidth went to infinity, and the errors stayed the same (54 steps on a CPU).

    Raises:
        ValueError: fewer steps than numbers to find.
    """
    formats = list(dict.fromkeys(step.number_format for step in steps))
    first = [start.step_seconds, start.launch_seconds, start.bandwidth, start.half_length]
    first += [start.rate(each) for each in formats]
    if len(steps) < len(first):
        raise ValueError(f"{len(steps)} steps were measured: at least {len(first)} are needed to find as many numbers")

    def machine(logarithms: np.ndarray) -> Machine:
        step, launch, bandwidth, half, *rates = np.exp(logarithms).tolist()
        return Machine(name, step, launch, bandwidth, half, dict(zip(formats, rates, strict=True)))

    def errors(logarithms: np.ndarray) -> list[float]:
        there = machine(logarithms)
        return [float(np.log(step.predicted(there) / step.seconds)) for step in steps]

    logarithms = np.log(first)
    most = logarithms + 10
    most[2] = logarithms[2] + 1e-9  # the bandwidth
    found = least_squares(errors, logarithms, loss="soft_l1", f_scale=0.1, bounds=(logarithms - 10, most))
    return machine(found.x)
