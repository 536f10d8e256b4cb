"""What the training benchmarks share: a workload, its data, the conditions it ran under, bounds of a median."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from statistics import stdev

import torch

from benchmarks import bare
from objectives.data.dataset import Dataset, Images, load
from objectives.device.clock import describe
from objectives.device.formats import FORMATS
from objectives.errors import DataError
from objectives.networks.architecture import FAMILIES
from objectives.networks.resnet import ResNet
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Report
from objectives.task import DataSpec, Seeds, Task
from objectives.train import WARM_UP_STEPS, train
from search.pareto.intervals import student

SEEDS = Seeds(1, 2, 3)
BATCH = 128  # BASELINE's: on a GPU the time of so small a step is the host's, which is where loops differ
N_VALIDATION = 100  # images evaluated per epoch, off the clock: only to keep a run short
FEWEST_PAIRS = 5  # fewer have no 95 % bound


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
        probe = self._with(1, min(4, len(self.dataset.train.y) // self.pipeline.batch_size))
        return self.of(seconds * probe.n_steps / min(probe.bare().seconds for _ in range(2)))

    def of(self, n_steps: float) -> Workload:
        """This workload with about as many steps, at least four, in two epochs or more."""
        batch, available = self.pipeline.batch_size, len(self.dataset.train.y) // self.pipeline.batch_size
        per_epoch = min(available, round(max(4.0, n_steps) / 2))
        if per_epoch < 1:
            raise SystemExit(f"{len(self.dataset.train.y)} training images are fewer than a batch of {batch}: use more")
        return self._with(max(2, round(max(4.0, n_steps) / per_epoch)), per_epoch)

    def _with(self, epochs: int, n_batches: int) -> Workload:
        train_images = self.dataset.train
        random_order = torch.randperm(len(train_images.y), generator=torch.Generator().manual_seed(0))
        chosen = random_order[: n_batches * self.pipeline.batch_size].to(train_images.y.device)
        x = train_images.x[chosen].contiguous(memory_format=torch.channels_last)
        dataset = replace(self.dataset, train=Images(x, train_images.y[chosen]))
        return Workload(replace(self.pipeline, epochs=epochs), self.task, dataset)


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


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The median behind `values` lies between these with 95 % confidence; NaN for fewer than six."""
    return lower_bound(values, 0.975), -lower_bound([-value for value in values], 0.975)


def half_interval(values: Sequence[float]) -> float:
    """Half of a 95 % interval of the mean (Student's t); NaN for a single value."""
    return student(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


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
        spec = DataSpec("digits", n_train=1200)
        return spec, load(spec, device)
