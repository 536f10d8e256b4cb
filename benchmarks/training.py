"""Speed of the training loop, and what its parts cost: python -m benchmarks.training.

First part: images per second of `objectives.train.train` (charged seconds) beside `benchmarks.bare`, in pairs that
follow one another at once, in random order, in one process. Second part: seconds per step of every number format and
of every hook, each in such pairs with a plain pipeline. Prints Markdown.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from statistics import median, quantiles

import torch
from torch import Tensor

from benchmarks import bare
from objectives.allocator import keep_freed_memory
from objectives.architecture import FAMILIES
from objectives.clock import describe
from objectives.data import Dataset, Images, load
from objectives.errors import DataError
from objectives.formats import FORMATS
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Report
from objectives.resnet import Convolution, ResNet
from objectives.state import Step, Trainee, TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.task import DataSpec, Seeds, Task
from objectives.train import WARM_UP_STEPS, train

SEEDS = Seeds(1, 2, 3)
BATCH = 128  # BASELINE's: on a GPU the time of so small a step is the host's, which is where loops differ
N_VALIDATION = 100  # images evaluated per epoch, off the clock: only to keep a run short
FEWEST_PAIRS = 5  # fewer have no 95 % bound


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

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y

    def penalty(self, trainee: Trainee) -> Tensor | None:
        return None

    def after_step(self, trainee: Trainee, step: Step) -> None:
        return None

    def deployed(self, model: ResNet, state: TrainState) -> ResNet:
        return model


@dataclass(frozen=True)
class Workload:
    """One pipeline on one data set: what a run of either loop is given."""

    pipeline: Pipeline
    task: Task
    dataset: Dataset

    @property
    def n_steps(self) -> int:
        """Optimizer steps of a run."""
        return self.pipeline.epochs * (len(self.dataset.train.y) // self.pipeline.batch_size)

    def ours(self) -> tuple[Report, ResNet]:
        """Trains with our loop: its last report, its network."""
        gc.collect()
        running = train(self.pipeline, self.task, self.dataset, SEEDS)
        while True:
            try:
                report = next(running)
            except StopIteration as end:
                return report, end.value.model

    def bare(self) -> bare.Run:
        """Trains with the bare loop."""
        gc.collect()
        return bare.warmed(self.pipeline, self.task, self.dataset, SEEDS, WARM_UP_STEPS)

    def lasting(self, seconds: float) -> Workload:
        """This workload with about as many steps as the bare loop makes in `seconds`, in two epochs or more."""
        batch, available = self.pipeline.batch_size, len(self.dataset.train.y) // self.pipeline.batch_size
        probe = self._with(1, min(4, available))
        n_steps = max(4.0, seconds * probe.n_steps / min(probe.bare().seconds for _ in range(2)))
        per_epoch = min(available, round(n_steps / 2))
        if per_epoch < 1:
            raise SystemExit(f"{len(self.dataset.train.y)} training images are fewer than a batch of {batch}: use more")
        return self._with(max(2, round(n_steps / per_epoch)), per_epoch)

    def _with(self, epochs: int, n_batches: int) -> Workload:
        train_images = self.dataset.train
        random_order = torch.randperm(len(train_images.y), generator=torch.Generator().manual_seed(0))
        chosen = random_order[: n_batches * self.pipeline.batch_size].to(train_images.y.device)
        x = train_images.x[chosen].contiguous(memory_format=torch.channels_last)
        dataset = replace(self.dataset, train=Images(x, train_images.y[chosen]))
        return Workload(replace(self.pipeline, epochs=epochs), self.task, dataset)


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
    process_ratio: float  # as `ratio`, of CPU times: less disturbed by other processes, blind to a wait for a GPU
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
    ratios = [b.seconds / a.train_seconds for a, b in zip(ours, others, strict=True)]
    return Speed(
        name,
        len(ours),
        workload.n_steps,
        n_images / median(run.train_seconds for run in ours),
        n_images / median(run.seconds for run in others),
        median(ratios),
        lower_bound(ratios),
        median(b.process_seconds / a.process_seconds for a, b in zip(ours, others, strict=True)),
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


def lower_bound(values: Sequence[float], confidence: float = 0.95) -> float:
    """What the median behind `values` exceeds at that confidence: an order statistic by the sign test.

    The k-th smallest of n values lies above the median with probability P(Binomial(n, 1/2) < k). NaN where even the
    smallest does so too often.
    """
    n, ordered, risk, bound = len(values), sorted(values), 0.0, math.nan
    for k in range(n):
        risk += math.comb(n, k) / 2**n
        if risk > 1 - confidence:
            break
        bound = ordered[k]
    return bound


def task_for(family: str, spec: DataSpec, device: torch.device, size: int) -> Task:
    """The family on the data; on a CPU with a stem that halves images of 28 pixels and more, as our studies do."""
    return Task(spec, family, stem_stride=2 if device.type == "cpu" and size >= 28 else 1)


def pipeline_for(family: str, number_format: str, device: torch.device) -> Pipeline:
    """BASELINE's settings; on a CPU with one block per stage."""
    depth = 1 if device.type == "cpu" else FAMILIES[family].baseline_depth
    return Pipeline(number_format=number_format, batch_size=BATCH, depth=depth, epochs=1)


def usable_formats(task: Task, device: torch.device) -> tuple[list[str], list[str]]:
    """(number formats that a study would use here, why each other one is left out)."""
    reasons = TrainingObjective(task, str(device), torch.get_num_threads()).number_formats()
    left_out = [f"{name} is left out: {reason}" for name, reason in reasons.items() if reason is not None]
    return [name for name in FORMATS if reasons[name] is None], left_out


def with_few_validation_images(dataset: Dataset) -> Dataset:
    """The data set with its first few validation images: what is evaluated is off the clock, but takes time."""
    return replace(dataset, val=Images(dataset.val.x[:N_VALIDATION], dataset.val.y[:N_VALIDATION]))


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


def conditions(device: torch.device, command: str) -> str:
    """When, where and how: the line above a table of results."""
    here = describe(device)
    threads = f"{here.threads} thread{'s' if here.threads > 1 else ''}"
    return f"{date.today()}, {here.model} ({here.driver}), torch {here.torch}, {threads}\n\n    {command}\n"


def open_data(name: str | None, device: torch.device, n_train: int) -> tuple[DataSpec, Dataset]:
    """The data set of that name; without one Fashion-MNIST, or scikit-learn's digits where that is not found."""
    if name is not None:
        spec = DataSpec(name, n_train=n_train)
        return spec, load(spec, device)
    try:
        spec = DataSpec("fashion_mnist", n_train=n_train)
        return spec, load(spec, device)
    except DataError as error:
        print(f"{error}: using digits", file=sys.stderr)
        spec = DataSpec("digits")
        return spec, load(spec, device)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    p.add_argument("--data", help="digits, fashion_mnist, folder:PATH, ... (default: fashion_mnist, else digits)")
    p.add_argument("--n-train", type=int, default=4000, help="training images to choose from (default: 4000)")
    p.add_argument("--pairs", type=int, default=30, help="pairs of runs per row (default: 30)")
    p.add_argument("--seconds", type=float, default=1.0, help="length of a run (default: 1)")
    p.add_argument("--family", action="append", choices=sorted(FAMILIES), help="again for more (default: thin, wide)")
    p.add_argument("--quick", action="store_true", help="thin family only, about 20 s: a smoke test, not a measurement")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Runs both parts and prints them."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    if options.quick:
        options.pairs, options.seconds, options.family = 5, 0.1, options.family or ["thin"]
    torch.set_num_threads(1)  # two on a shared machine were 4 to 9 times slower
    keep_freed_memory()  # for both loops: it belongs to the process
    device = torch.device(options.device)
    spec, dataset = open_data(options.data, device, options.n_train)
    dataset = with_few_validation_images(dataset)
    tasks = [task_for(family, spec, device, dataset.size) for family in options.family or ("thin", "wide")]
    formats, left_out = usable_formats(tasks[0], device)
    print(conditions(device, f"python -m benchmarks.training {shlex.join(words)}".rstrip()))
    print(f"Data: {spec.name}, {dataset.size}x{dataset.size}x{dataset.channels}, batch {BATCH}.")
    print(*left_out, sep="\n")
    print("\nOur loop beside a bare one:\n")
    print(Speed.HEAD, flush=True)
    for result in speeds(dataset, tasks, formats, options.pairs, options.seconds, math.inf):
        print(result.row(), flush=True)
    print(f"\nWhat each part costs ({tasks[0].family} family):\n")
    print(Cost.HEAD, flush=True)
    for part in costs(dataset, tasks[0], formats, max(3, options.pairs // 2), options.seconds / 2):
        print(part.row(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
