"""How the new channels of Net2Net begin: the kinds beside half and full width from scratch, as part of `shapes`.

At equal epochs, and at equal seconds: both widths once more, for as many epochs as take as long as the grown network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import mean, median

import torch

from objectives.data.dataset import Dataset, load
from objectives.feasibility import full_architecture
from objectives.networks.resnet import ResNet
from objectives.pipeline import Pipeline, Report
from objectives.strategies.methods import lasso
from objectives.strategies.net2net import Net2Net
from objectives.task import DataSpec, Seeds, Task
from objectives.train import Trained, train

COPY = 0.99  # cosine from which two filters count as one
KINDS = {
    "copies, noise 0.01": Net2Net(new_channels="copies", noise=0.01),
    "copies, noise 0.5": Net2Net(new_channels="copies", noise=0.5),
    "antisymmetric": Net2Net(new_channels="antisymmetric"),
    "fresh": Net2Net(new_channels="fresh"),
}


@dataclass(frozen=True)
class Run:
    """What a training came to."""

    accuracy: float
    seconds: float  # of the process
    n_new: int  # channels that were not there at the start
    n_copies: int  # of these, at the end


def trained(pipeline: Pipeline, task: Task, dataset: Dataset, seed: int) -> tuple[list[Report], Trained]:
    """All reports of a training, and its network."""
    reports: list[Report] = []
    running = train(pipeline, task, dataset, Seeds.of(0, seed))
    while True:
        try:
            reports.append(next(running))
        except StopIteration as end:
            return reports, end.value


def copies(model: ResNet, n_old: Mapping[str, int]) -> list[bool]:
    """For every new channel, whether its filter still is that of an old one: all its producers side by side."""
    found = []
    for axis, old in n_old.items():
        rows = [g.weight.detach().flatten(1) for g in lasso.grouped(model) if g.out_axis == axis]
        filters = torch.nn.functional.normalize(torch.cat(rows, 1), dim=1)
        found += ((filters[old:] @ filters[:old].T).amax(1) > COPY).tolist()
    return found


def run(pipeline: Pipeline, task: Task, dataset: Dataset, seed: int) -> Run:
    """One training."""
    reports, result = trained(pipeline, task, dataset, seed)
    start = full_architecture(pipeline, task, dataset.channels, dataset.n_classes, dataset.size)
    for strategy in pipeline.strategies:
        start = strategy.architecture(start)
    found = copies(result.model, start.axis_sizes())
    last = reports[-1]
    words = f"{last.accuracy:.4f}, {sum(found)} copies, {last.train_seconds:.1f} CPU seconds"
    print(
        f"<!-- seed {seed}, {pipeline.epochs} epochs of {result.model.architecture.describe()}: {words} -->", flush=True
    )
    return Run(last.accuracy, last.train_seconds, len(found), sum(found))


def widening() -> None:
    """Every kind on two data sets."""
    digits = Pipeline(batch_size=32, lr=0.2, epochs=15, schedule="one_cycle", crop=False, flip=False)
    fashion = Pipeline(batch_size=64, lr=0.2, epochs=8, schedule="one_cycle", crop=False, flip=True)
    compared("digits", digits, Task(DataSpec("digits", n_train=1200), "small"), 4)
    compared("Fashion-MNIST, 4,000 images", fashion, Task(DataSpec("fashion_mnist", n_train=4000), "thin", 2), 3)


def compared(name: str, plain: Pipeline, task: Task, n_seeds: int) -> None:
    """The table of one data set; the full width first."""
    dataset = load(task.data, torch.device("cpu"))
    cases = {"full width": plain, "half width": replace(plain, width=0.5)}
    for kind, net2net in KINDS.items():
        grown = replace(net2net, start_width=0.5, at=0.3, until=0.3, operators="wider")
        cases[f"grown at 30 %, {kind}"] = replace(plain, strategies=(grown,))
    runs: dict[str, list[Run]] = {}
    for case, pipeline in cases.items():
        runs[case] = [run(pipeline, task, dataset, seed) for seed in range(n_seeds)]
    seconds = {case: mean(each.seconds for each in found) for case, found in runs.items()}
    grown_seconds = seconds["grown at 30 %, fresh"]
    for width in ("full width", "half width"):
        epochs = round(plain.epochs * grown_seconds / seconds[width])
        case = f"{width}, equal seconds: {epochs} epochs"
        pipeline = replace(cases[width], epochs=epochs)
        runs[case] = [run(pipeline, task, dataset, seed) for seed in range(n_seeds)]
    print(f"\n{name}, {plain.describe()}; {n_seeds} seeds.\n")
    print(
        "| pipeline | accuracy, mean (each) | points | copies at the end | CPU seconds (range) |\n|---|---|---|---|---|"
    )
    first = runs["full width"]
    for case, found in runs.items():
        accuracy = mean(each.accuracy for each in found)
        points = 100 * (accuracy - mean(each.accuracy for each in first))
        ratios = sorted(one.seconds / other.seconds for one, other in zip(found, first, strict=True))
        n_new = sum(each.n_new for each in found)
        still = f"{sum(each.n_copies for each in found)} of {n_new}" if n_new else ""
        each_one = ", ".join(f"{each.accuracy:.2%}" for each in found)
        took = f"x{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {case} | {accuracy:.2%} ({each_one}) | {points:+.2f} | {still} | {took} |", flush=True)
