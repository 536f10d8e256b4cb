"""The reference workload: a small training step that never changes, timed to see how fast a device is just now."""

from __future__ import annotations

from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from objectives.device import gpu
from objectives.device.clock import Clock
from objectives.device.formats import FORMATS
from objectives.pipeline import Reading

WARM_UP_STEPS = 2  # are not counted
SHAPES = {"cpu": (16, 32, 16), "cuda": (256, 64, 32)}  # images, channels, pixels a side: a few ms a step on either


def read(device: torch.device, n_steps: int) -> Reading:
    """What a device is like just now, from `n_steps` steps, the first two of which only warm it up."""
    seconds = _step_seconds(device, n_steps)[WARM_UP_STEPS:]
    if device.type == "cuda":  # at once: clocks rise again while a GPU rests
        load = gpu.load(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return Reading(median(seconds), load.n_foreign, load.throttled)
    return Reading(median(seconds))


def _step_seconds(device: torch.device, n_steps: int) -> list[float]:
    """Seconds of each step, forward and backward in strict fp32, by the clock that trainings are charged by.

    Random state is left as it was.
    """
    n_images, width, size = SHAPES[device.type]
    FORMATS["fp32"].set_float32_products()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # not `torch.manual_seed`: that seeds the GPUs, too
        network = nn.Sequential(
            *(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)),
        ).to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(n_images, 3, size, size).to(device, memory_format=torch.channels_last)
    y = torch.zeros(n_images, dtype=torch.int64, device=device)
    seconds = []
    for _ in range(n_steps):
        clock = Clock(device)
        with clock.span("steps"):
            F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        seconds.append(clock.charged)
    return seconds
