"""A training on every split of few images, side by side: one epoch of each, then one report of them all."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from statistics import fmean

import torch

from objectives.data.dataset import Dataset
from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds, Task
from objectives.train import Trained, train


def train_on_splits(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds) -> Generator[Report, None, Trained]:
    """Trains on each split of a data set and yields a report per epoch of all; on a single one, `train` itself.

    Seconds and FLOPs are the mean of one training, accuracies those of all images that validate, once each. What a
    network is like, its events included, is told of the first split, whose network is returned: one had to be chosen,
    and the most accurate would be the luckiest. A training that ends earlier than others keeps its last accuracy.
    """
    if not dataset.again:
        return (yield from train(pipeline, task, dataset, seeds))
    trainings = {
        number: _apart(train(pipeline, task, split, seeds.of_split(number)), split.val.y.device)
        for number, split in enumerate(dataset.splits)
    }
    n_by_class = dataset.validated.bincount(minlength=dataset.n_classes).tolist()
    last: dict[int, Report] = {}
    ended: dict[int, Trained] = {}
    report = None
    while True:
        for number, training in list(trainings.items()):
            try:
                last[number] = next(training)
            except StopIteration as end:
                ended[number], last[number] = end.value, replace(last[number], events=())
                del trainings[number]
        if not trainings:
            assert report is not None
            return replace(ended[0], report=report)
        report = _pooled([last[number] for number in sorted(last)], n_by_class)
        yield report


def _pooled(reports: Sequence[Report], n_by_class: Sequence[int]) -> Report:
    """One report of an epoch of every split, of which `n_by_class` images of each class validate."""
    right = [sum(each) for each in zip(*(report.right for report in reports), strict=True)]
    recalls = [told / n for told, n in zip(right, n_by_class, strict=True) if n]

    def mean(name: str) -> float:
        return fmean(getattr(report, name) for report in reports)

    return replace(
        reports[0],
        epoch=max(report.epoch for report in reports),
        epochs=max(report.epochs for report in reports),
        train_seconds=mean("train_seconds"),
        accuracy=sum(right) / sum(n_by_class),
        balanced_accuracy=fmean(recalls),
        right=tuple(right),
        settled=all(report.settled for report in reports),
        loss=mean("loss"),
        diverged=any(report.diverged for report in reports),
        wall_seconds=mean("wall_seconds"),
        boundary_seconds=mean("boundary_seconds"),
        eval_seconds=mean("eval_seconds"),
        train_flops=mean("train_flops"),
        modelled_seconds=mean("modelled_seconds"),
        peak_memory=max(report.peak_memory for report in reports),
        eval_peak_memory=max(report.eval_peak_memory for report in reports),
        skipped_steps=max(report.skipped_steps for report in reports),
    )


def _apart(training: Generator[Report, None, Trained], device: torch.device) -> Generator[Report, None, Trained]:
    """The same training, which finds the default generators as it left them: it is what it would be alone."""
    gpus = [device] if device.type == "cuda" else []
    states: list[torch.Tensor] | None = None
    while True:
        with torch.random.fork_rng(devices=gpus):
            if states is not None:
                torch.set_rng_state(states[0])
                for gpu, state in zip(gpus, states[1:], strict=True):
                    torch.cuda.set_rng_state(state, gpu)
            try:
                report = next(training)
            except StopIteration as end:
                trained: Trained = end.value
                return trained
            states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in gpus)]
        yield report
