"""Our loop beside a bare one, and what its parts cost: the parts `loop` and `formats` of `benchmarks.training`."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

import torch
from torch import Tensor

from benchmarks import bare
from benchmarks.workload import FEWEST_PAIRS, Workload, lower_bound, pipeline_for
from objectives.data.dataset import Dataset
from objectives.networks.network import Network
from objectives.networks.resnet import Convolution
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline, Report
from objectives.state import Step, TrainState
from objectives.strategies.base import Multiply, Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.task import Task


@dataclass(frozen=True)
class Empty(Strategy):
    """Every hook overridden, none with an effect; every convolution is called through a wrapper."""

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        return state

    def between_epochs(self, state: TrainState) -> TrainState:
        return state

    def bound(self, state: TrainState) -> Strategy:
        return self

    def convolution(self, layer: Convolution, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def wrapped(x: Tensor) -> Tensor:
            return compute(x)

        return wrapped

    def product(self, layer: Convolution, multiply: Multiply) -> Multiply:
        def wrapped(x: Tensor, weight: Tensor) -> Tensor:
            return multiply(x, weight)

        return wrapped

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y

    def penalty(self, trainee: Trainee) -> Tensor | None:
        return None

    def gradients(self, trainee: Trainee, step: Step) -> None:
        return None

    def after_step(self, trainee: Trainee, step: Step) -> None:
        return None

    def deployed(self, model: Network, state: TrainState) -> Network:
        return model


@dataclass(frozen=True)
class Speed:
    """Our loop beside the bare one."""

    name: str
    n_pairs: int
    n_steps: int  # of a run
    ours: float  # images per second, median
    bare: float  # likewise
    ratio: float  # ours / bare, median over the pairs
    lower: float  # the median ratio is at least this with 95 % confidence; NaN for too few pairs
    process_ratio: (
        float  # as `ratio`, of CPU times: less disturbed by other processes; on a GPU, of which they say nothing, NaN
    )
    flops: float  # per second in our loop
    difference: float  # largest, between the weights that both reached; 0: the same bit for bit

    HEAD = (
        "| network, format | pairs x steps | ours, images/s | bare, images/s | ratio | 95 % lower bound "
        "| ratio of CPU times | GFLOP/s | same weights |\n|---|---|---|---|---|---|---|---|---|"
    )

    def row(self) -> str:
        """This result as a row of a Markdown table."""
        same = "bit for bit" if self.difference == 0 else f"to {self.difference:.1g}"
        return (
            f"| {self.name} | {self.n_pairs} x {self.n_steps} | {self.ours:,.0f} | {self.bare:,.0f} "
            f"| {self.ratio:.4f} | {self.lower:.4f} | {self.process_ratio:.4f} "
            f"| {self.flops / 1e9:,.0f} | {same} |"
        )


@dataclass(frozen=True)
class Cost:
    """A pipeline's seconds per step beside those of the plain one."""

    name: str
    milliseconds: float  # per step, median
    ratio: float  # to the plain pipeline, median over the pairs
    quartiles: tuple[float, float]  # of that ratio

    HEAD = "| pipeline | ms per step | times plain fp32 | quartiles |\n|---|---|---|---|"

    def row(self) -> str:
        """This result as a row of a Markdown table."""
        low, high = self.quartiles
        return f"| {self.name} | {self.milliseconds:.2f} | {self.ratio:.3f} | {low:.3f} to {high:.3f} |"


def speed(name: str, workload: Workload, n_pairs: int, deadline: float = math.inf) -> Speed:
    """Times both loops in pairs, at most until `deadline` (of `time.monotonic`) once there are pairs for a bound.

    Raises:
        RuntimeError: on a CPU, when the two loops do not reach the same weights: they would do different work.
    """
    difference = same_work(workload)
    order = random.Random(0)
    ours: list[Report] = []
    others: list[bare.Run] = []
    while len(ours) < n_pairs and (len(ours) < FEWEST_PAIRS or time.monotonic() < deadline):
        for is_ours in order.sample((True, False), 2):
            # No network outlives its run: with one kept alive by either side, heaps differ, and steps by up to 15 %.
            if is_ours:
                ours.append(workload.ours()[0])
            else:
                others.append(replace(workload.bare(), model=None))
    n_images = workload.n_steps * workload.pipeline.batch_size
    ratios = [b.seconds / a.wall_seconds for a, b in zip(ours, others, strict=True)]
    is_cpu = workload.dataset.train.x.device.type == "cpu"  # where the seconds charged are CPU time
    return Speed(
        name,
        len(ours),
        workload.n_steps,
        n_images / median(run.wall_seconds for run in ours),
        n_images / median(run.seconds for run in others),
        median(ratios),
        lower_bound(ratios),
        median(b.process_seconds / a.train_seconds for a, b in zip(ours, others, strict=True)) if is_cpu else math.nan,
        median(run.train_flops / run.train_seconds for run in ours),
        difference,
    )


def same_work(workload: Workload) -> float:
    """The largest difference between the weights that the two loops reach: 0 on a CPU; warms both loops up.

    Running statistics are compared too, unless fp16 loss scaling skipped a step: ours then restores them.
    """
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        report, mine = workload.ours()
        other = workload.bare().model
    finally:
        torch.backends.cudnn.deterministic = before
    tensors = (lambda m: m.parameters()) if report.skipped_steps else (lambda m: m.state_dict().values())
    pairs = zip(tensors(mine), tensors(other), strict=True)
    difference = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    if not math.isfinite(report.loss):
        raise RuntimeError(f"the loss of {workload.pipeline.describe()} is {report.loss}: nothing is compared")
    if difference and next(mine.parameters()).device.type == "cpu":
        raise RuntimeError(f"the two loops end {difference:g} apart: they do not do the same work")
    return difference


def cost(name: str, plain: Workload, pipeline: Pipeline, n_pairs: int) -> Cost:
    """Times a pipeline in pairs with the plain one, both in our loop."""
    changed = replace(plain, pipeline=pipeline)
    order = random.Random(0)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for warming_up in (plain, changed):
        warming_up.ours()
    for _ in range(n_pairs):
        for is_plain in order.sample((True, False), 2):
            seconds[is_plain].append((plain if is_plain else changed).ours()[0].train_seconds)
    ratios = [b / a for a, b in zip(seconds[True], seconds[False], strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Cost(name, 1000 * median(seconds[False]) / plain.n_steps, median(ratios), (low, high))


def variants(plain: Pipeline, formats: Sequence[str], flip: bool) -> Iterator[tuple[str, Pipeline]]:
    """(name, pipeline): the plain pipeline with one thing changed."""
    yield "plain, once more (the noise)", plain
    for name in formats:
        if name != plain.number_format:
            yield name, replace(plain, number_format=name)
    yield "empty strategy", replace(plain, strategies=(Empty(),))
    yield "Ema(horizon=1)", replace(plain, strategies=(Ema(),))
    yield "ProgressiveResolution(start=1)", replace(plain, strategies=(ProgressiveResolution(start=1.0),))
    yield "label smoothing 0.1", replace(plain, label_smoothing=0.1)
    yield "ghost batch 32", replace(plain, ghost_batch=32)
    yield "cutout 0.25", replace(plain, cutout=0.25)
    yield "crop and flip" if flip else "crop", replace(plain, crop=True, flip=flip)


def speeds(
    dataset: Dataset, tasks: Sequence[Task], formats: Sequence[str], n_pairs: int, seconds: float, budget: float
) -> Iterator[Speed]:
    """One result for each task and format, in all at most about `budget` seconds; each run lasts about `seconds`."""
    device, end = dataset.train.x.device, time.monotonic() + budget
    n_left = len(tasks) * len(formats)
    for task in tasks:
        for number_format in formats:
            now = time.monotonic()
            workload = Workload(pipeline_for(task.family, number_format, device), task, dataset).lasting(seconds)
            depth, stride = workload.pipeline.depth, task.stem_stride
            name = f"{task.family} (depth {depth}, stem stride {stride}), {number_format}"
            yield speed(name, workload, n_pairs, deadline=now + (end - now) / n_left)
            n_left -= 1


def costs(dataset: Dataset, task: Task, formats: Sequence[str], n_pairs: int, seconds: float) -> Iterator[Cost]:
    """One result for each variant of the plain pipeline: fp32 without augmentation or strategies."""
    base = pipeline_for(task.family, "fp32", dataset.train.x.device)
    sized = Workload(base, task, dataset).lasting(seconds)
    plain = replace(sized, pipeline=replace(sized.pipeline, crop=False, flip=False))
    for name, pipeline in variants(plain.pipeline, formats, dataset.flip):
        yield cost(name, plain, pipeline, n_pairs)
