"""How long a training step takes by a formula of its network, its batch and its number format. Imports no torch.

The time of an operation is that of its launch and the larger one of its arithmetic and its memory: the roofline
(Williams, Waterman & Patterson 2009) with launches, for each layer and number format (the formula that Buehler left
open). `benchmarks/time_model.md` has what it predicts beside what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from objectives.feasibility import first_architecture, full_architecture
from objectives.modelled.assumptions import Arithmetic
from objectives.modelled.machine import NOMINAL, Machine, value_bytes
from objectives.networks.layers import Layer
from objectives.networks.plain import AnyArchitecture
from objectives.pipeline import Pipeline
from objectives.strategies.switch_format import SwitchFormat
from objectives.task import Task
from objectives.work import n_steps

PASSES = 3  # of a convolution: forward, to its inputs, to its weights; the first layer has no second one
# Values that are read or written per output of a convolution by the norm and the ReLU behind it: forward the norm reads
# twice and writes, the ReLU reads and writes; backward the ReLU reads two and writes, the norm reads two twice and
# writes.
TOUCHES = 13
UPDATES = 6 * 4  # bytes of a parameter's step: weight, gradient and momentum in fp32, read and written
PLACE_BYTES = 8  # of a value that a max-pooling chose, for its backward pass: where that was


@dataclass(frozen=True)
class Operation:
    """A part of a training step: what it computes, and what it reads and writes."""

    multiply_adds: float
    n_bytes: float
    length: float = 1.0  # products that one output sums


def operations(layers: Iterable[Layer], batch_size: int, n_value_bytes: float) -> list[Operation]:
    """The operations of a training step of a network's layers: each a convolution and what stands behind it."""
    found = []
    for layer in layers:
        passes = PASSES if layer.reads is not None else PASSES - 1
        outputs, length = batch_size * layer.outputs, layer.taps * layer.n_in
        inputs = batch_size * layer.n_in * layer.side**layer.dims
        weights = length * layer.n_out
        moved = passes * (inputs + outputs + weights)
        found.append(Operation(passes * outputs * length, moved * n_value_bytes, length))
        found.append(Operation(0.0, TOUCHES * outputs * n_value_bytes + UPDATES * weights))
        if layer.is_pooled:
            pooled = batch_size * layer.pooled
            found.append(Operation(0.0, 2 * (outputs + pooled) * n_value_bytes + 2 * PLACE_BYTES * pooled))
    return found


@lru_cache(maxsize=1024)  # a question of a study asks about hundreds of runs of few networks
def step_seconds(
    architecture: AnyArchitecture, size: int, batch_size: int, number_format: str | Arithmetic, machine: Machine
) -> float:
    """Device seconds of a training step on a batch of images of `size` pixels a side, or series as long.

    Emulated formats, as an `Arithmetic`, are converted for nothing: as units that compute in them would do it.
    """
    rate, seconds = machine.rate(number_format), machine.step_seconds
    for each in operations(architecture.layers(size), batch_size, value_bytes(number_format)):
        use = each.length / (each.length + machine.half_length)
        seconds += machine.launch_seconds + max(each.multiply_adds / (rate * use), each.n_bytes / machine.bandwidth)
    return seconds


def nominal_step_seconds(pipeline: Pipeline, task: Task, size: int, in_channels: int = 3) -> float:
    """Seconds of a step of a machine that was not asked, for ratios.

    Of the network that the settings ask for: what strategies save or cost is left to be seen, but for a stem that
    makes images smaller.
    """
    full = full_architecture(pipeline, task, in_channels, 2, size)
    network = full.behind_stem_of(first_architecture(pipeline, full))
    return step_seconds(network, size, pipeline.batch_size, pipeline.number_format, NOMINAL)


def computes_in(pipeline: Pipeline) -> str | Arithmetic:
    """The format that a pipeline takes its steps in: an emulated one, where there is one, or its own."""
    emulated = (each.arithmetic for each in pipeline.strategies)
    return next((each for each in emulated if each is not None), pipeline.number_format)


def run_seconds(pipeline: Pipeline, task: Task, machine: Machine, size: int, in_channels: int, n_train: int) -> float:
    """Device seconds of a run of the network that a pipeline begins with, before anything has run."""
    full = full_architecture(pipeline, task, in_channels, 2, size)
    network = first_architecture(pipeline, full)

    def step(number_format: str | Arithmetic) -> float:
        return step_seconds(network, size, pipeline.batch_size, number_format, machine)

    total, epochs, first = n_steps(pipeline, n_train), pipeline.n_epochs(n_train), computes_in(pipeline)
    switches = (each for each in pipeline.strategies if isinstance(each, SwitchFormat))
    low = next((each.first_epoch(epochs) for each in switches), epochs) / epochs
    return total * (low * step(first) + ((1 - low) * step("fp32") if low < 1 else 0.0))
