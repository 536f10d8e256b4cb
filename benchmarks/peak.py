"""What the device can do and how much of it our loop reaches: `benchmarks.training`, parts `peak` and `scaling`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
import torch.nn.functional as F

from benchmarks.workload import BATCH, Workload, pipeline_for
from objectives.data.dataset import Dataset
from objectives.device.formats import FORMATS
from objectives.feasibility import full_architecture
from objectives.networks.architecture import Architecture
from objectives.networks.flops import count
from objectives.networks.plain import residual
from objectives.task import Task

MATMUL_SIDE = 2048
NETWORKS = (  # (family, depth, width): what `scaling` trains at BATCH
    ("thin", 1, 1.0),
    ("thin", 2, 1.0),
    ("thin", 3, 1.0),
    ("wide", 1, 0.25),
    ("wide", 1, 0.5),
    ("wide", 1, 0.75),
    ("wide", 1, 1.0),
)
BATCHES = (32, 64, 128, 256, 512)  # of the smallest and the largest of them


@dataclass(frozen=True)
class Kernel:
    """One large operation, to be called for its speed."""

    name: str
    flops: float  # of one call
    call: Callable[[], object]

    def rate(self, device: torch.device) -> float:
        """FLOP/s of one call."""
        _synchronise(device)
        start = time.perf_counter()
        self.call()
        _synchronise(device)
        return self.flops / (time.perf_counter() - start)


def matmul(number_format: str, device: torch.device, side: int = MATMUL_SIDE) -> Kernel:
    """The product of two square matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=_dtype(number_format)) for _ in range(2))
    return Kernel(f"matmul of {side} x {side}", 2 * side**3, lambda: a @ b)


def convolution(workload: Workload, *, backward: bool) -> Kernel:
    """A 3x3 convolution of the network's middle stage, alone or with its two gradients, in channels_last."""
    device, dtype = workload.dataset.train.x.device, _dtype(workload.pipeline.number_format)
    network = architecture_of(workload)
    middle = len(network.stages) // 2
    side = -(-workload.dataset.size // network.stem_stride)
    for _ in range(middle):
        side = -(-side // 2)
    batch, width = workload.pipeline.batch_size, network.stages[middle].width
    x, gradient, weight = (
        torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in ((batch, width, side, side), (batch, width, side, side), (width, width, 3, 3))
    )
    for tensor in (x, weight):
        tensor.requires_grad_(backward)

    def call() -> object:
        y = F.conv2d(x, weight, padding=1)
        return torch.autograd.grad(y, (x, weight), gradient) if backward else y

    name = f"{width} channels, {side} x {side}, batch {batch}" + (", with gradients" if backward else ", forward")
    return Kernel(name, (3 if backward else 1) * 2 * batch * side**2 * width**2 * 9, call)


def architecture_of(workload: Workload) -> Architecture:
    """The network that a workload trains."""
    dataset = workload.dataset
    shape = dataset.channels, dataset.n_classes, dataset.size
    return residual(full_architecture(workload.pipeline, workload.task, *shape))


PEAK_HEAD = "| operation | format | GFLOP/s, median | best |\n|---|---|---|---|"


def operations(dataset: Dataset, tasks: Iterable[Task], number_format: str) -> Iterator[Kernel]:
    """A large matmul, and the convolution of every family's middle stage."""
    device = dataset.train.x.device
    yield matmul(number_format, device)
    for task in tasks:
        workload = Workload(pipeline_for(task.family, number_format, device), task, dataset)
        for backward in (False, True):
            kernel = convolution(workload, backward=backward)
            yield replace(kernel, name=f"{task.family}, middle stage: {kernel.name}")


def peaks(dataset: Dataset, tasks: Sequence[Task], formats: Sequence[str], n_rounds: int) -> Iterator[str]:
    """Rows of PEAK_HEAD: the rates of large operations over rounds in which all take turns; the first warms up."""
    device = dataset.train.x.device
    kernels = [(kernel, each) for each in formats for kernel in operations(dataset, tasks, each)]
    rates: list[list[float]] = [[] for _ in kernels]
    for _ in range(n_rounds + 1):
        for (kernel, number_format), each in zip(kernels, rates, strict=True):
            FORMATS[number_format].set_float32_products()
            each.append(kernel.rate(device))
    for (kernel, number_format), each in zip(kernels, rates, strict=True):
        yield f"| {kernel.name} | {number_format} | {median(each[1:]) / 1e9:,.0f} | {max(each[1:]) / 1e9:,.0f} |"


SCALING_HEAD = (
    "| network | batch | format | MFLOP per image | ms per step | images/s | GFLOP/s | share of peak |\n"
    "|---|---|---|---|---|---|---|---|"
)


def scaling(
    dataset: Dataset, tasks: Mapping[str, Task], formats: Sequence[str], n_rounds: int, seconds: float
) -> Iterator[str]:
    """Rows of SCALING_HEAD: our loop over network sizes at BATCH, and over batch sizes of the smallest and the largest.

    In a round every network trains for about `seconds`. The peak is the fastest of `operations`, all of them timed just
    before; the share is the median over the rounds.
    """
    device = dataset.train.x.device
    networks = [network for network in NETWORKS if network[0] in tasks]
    cases = [(*network, BATCH) for network in networks]
    cases += [(*network, batch) for network in (networks[0], networks[-1]) for batch in BATCHES if batch != BATCH]
    for number_format in formats:
        large, workloads = list(operations(dataset, tasks.values(), number_format)), []
        for family, depth, width, batch in cases:
            settings = {"depth": depth, "width": width, "batch_size": batch}
            pipeline = replace(pipeline_for(family, number_format, device), **settings)
            workloads.append(Workload(pipeline, tasks[family], dataset).lasting(seconds))
        found: list[list[tuple[float, float, float]]] = [[] for _ in workloads]
        for _ in range(n_rounds):
            for workload, each in zip(workloads, found, strict=True):
                FORMATS[number_format].set_float32_products()
                peak = max(kernel.rate(device) for kernel in large)
                report = workload.ours()[0]
                rate = report.train_flops / report.train_seconds
                each.append((report.train_seconds / workload.n_steps, rate, rate / peak))
        for (family, depth, width, batch), workload, each in zip(cases, workloads, found, strict=True):
            step, rate, share = (median(values) for values in zip(*each, strict=True))
            each_image = count(architecture_of(workload), dataset.size)[1]
            yield (
                f"| {family}, depth {depth}, width x{width:g} | {batch} | {number_format} | {each_image / 1e6:,.1f} "
                f"| {1000 * step:,.1f} | {batch / step:,.0f} | {rate / 1e9:,.0f} | {share:.0%} |"
            )


def _dtype(number_format: str) -> torch.dtype:
    return FORMATS[number_format].autocast or torch.float32


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
