"""How much work a training is, before it runs: FLOPs, steps, memory. Imports no torch.

Seconds are forecast by `objectives.modelled`; FLOPs where no more than a rate of a device is known.
"""

from __future__ import annotations

from objectives.feasibility import first_architecture, full_architecture
from objectives.networks.plain import AnyArchitecture
from objectives.pipeline import Pipeline
from objectives.task import Task

# What a step costs whatever is in it, as FLOPs that take as long: launches, the optimizer, Python. Fitted to `probe` on
# one CPU core at batches of 8 to 64 and widths of 0.5 to 1.5: 1.4e8 in `small` on 8 pixels, 2.5e8 in `thin` on 32, no
# step off by more than 29 %. On 167 recorded trainings forecasts spread by 0.15 decades with it, by 0.30 with 3e7.
STEP_FLOPS = 2e8
PASSES = 3  # forward, and two of backward
# fp32 values that a training step keeps per output of a convolution: 2.1 to 2.3, measured at the peak over all families
# and 16 to 224 pixels (2026-11-26, AMD EPYC); over imagenet18 and 34 2.0 to 2.3 that are alive, but 2.2 to 3.0 that the
# process takes: glibc finds no place for the gradients of their stem in what the stages have freed (2026-11-27)
STEP_VALUES = 2


def image_flops(architecture: AnyArchitecture, size: int) -> int:
    """FLOPs of a forward pass over one image, a residual network's head left out; 1 multiply-add = 2 FLOPs."""
    return sum(layer.flops for layer in architecture.layers(size))


def step_work(pipeline: Pipeline, task: Task, size: int) -> float:
    """What a training step on images in colour is, in FLOPs, or FLOPs that take as long.

    Of the network that the settings ask for: what strategies save or cost is left to be seen, but for a stem that
    makes images smaller.
    """
    full = full_architecture(pipeline, task, 3, 2, size)
    first = first_architecture(pipeline, full)
    network = full.behind_stem_of(first)
    return STEP_FLOPS + PASSES * pipeline.batch_size * image_flops(network, size)


def step_memory(architecture: AnyArchitecture, size: int, batch_size: int) -> int:
    """Bytes that a training step on so many images of `size` pixels a side takes beside the network, about."""
    return 4 * STEP_VALUES * architecture.activations(size) * batch_size


def n_steps(pipeline: Pipeline, n_train: int) -> int:
    """Steps of a run over so many images; an epoch has one at least."""
    return int(pipeline.n_epochs(n_train) * max(1, n_train // pipeline.batch_size))
