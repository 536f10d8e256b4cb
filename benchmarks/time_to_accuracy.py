"""Seconds to fixed accuracies: python -m benchmarks.time_to_accuracy [--data fashion_mnist] [--device cpu].

Our ladder of known-good pipelines (spaces/ladders.py), beside BASELINE at the fewest epochs that reach the same
accuracy in the median, and beside a published fast recipe (Page 2018, ResNet-9 for CIFAR-10) put together from its
description. Seconds are charged ones: compilation and capture included. Accuracies are of the validation images; the
test images stay closed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from optuna.trial import FixedTrial

from benchmarks.widening import trained
from benchmarks.workload import conditions
from objectives.data.dataset import Dataset, load
from objectives.device.allocator import keep_freed_memory
from objectives.pipeline import Pipeline
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.ema import Ema
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Task
from spaces import acceleration
from spaces.base import Given, baseline
from spaces.ladders import LADDERS

TARGETS = {"fashion_mnist": (0.85, 0.88, 0.90, 0.92), "cifar10": (0.90, 0.92, 0.94)}
EPOCHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # tried in this order
WHO = ("ours", "BASELINE", "recipe")
HEAD = "| to | by | epochs | accuracy, median (each) | seconds, median (each) | times as long as ours |"


@dataclass(frozen=True)
class Result:
    """One pipeline, trained with several seeds."""

    pipeline: Pipeline
    accuracies: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        return median(self.accuracies)

    @property
    def median_seconds(self) -> float:
        return median(self.seconds)


def page(number_format: str, width: float, flip: bool) -> Pipeline:
    """Page 2018 ('How to train your ResNet'): ResNet-9, batch 512, Nesterov 0.9, a triangular learning rate with its
    peak at a fifth of the run, weight decay 5e-4, crop, flip and cutout of 8 of 32 pixels, label smoothing 0.2, ghost
    batches of 32, biases 64 times as fast, a whitened frozen stem, averaged weights.

    Departures: our one-cycle peaks at a quarter; his CELU, his scaled max-pool head and his learning rate of 0.6 for a
    summed loss are those of our network and scale here.
    """
    return Pipeline(
        number_format=number_format,  # type: ignore[arg-type]
        batch_size=512,
        lr=0.6,
        ghost_batch=32,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="one_cycle",
        label_smoothing=0.2,
        crop=True,
        flip=flip,
        cutout=0.25,
        width=width,
        executor="auto",
        strategies=(Whitening(), BiasLearningRate(64.0), Ema(horizon=0.5)),
    )


def ladder(given: Given) -> list[Pipeline]:
    """The known-good pipelines of a data set, from the fastest to the most accurate."""
    anchors = acceleration.anchors(given)
    return [acceleration.sample(FixedTrial(anchors[name]), given) for name in LADDERS.get(given.data, {})]


def results(
    pipeline: Pipeline, task: Task, dataset: Dataset, n_seeds: int, until: float, cap: float, fewest: int
) -> Iterator[Result]:
    """The pipeline at more and more epochs until it reaches an accuracy, or the next would take over `cap` s."""
    for epochs in (n for n in EPOCHS if n >= fewest):
        result = repeated(replace(pipeline, epochs=epochs), task, dataset, n_seeds)
        yield result
        if result.accuracy >= until or result.median_seconds * (epochs + 1) / epochs > cap:
            return


def repeated(pipeline: Pipeline, task: Task, dataset: Dataset, n_seeds: int) -> Result:
    """The pipeline trained with each seed."""
    last = [trained(pipeline, task, dataset, seed)[0][-1] for seed in range(n_seeds)]
    found = Result(pipeline, tuple(r.accuracy for r in last), tuple(r.train_seconds for r in last))
    print(
        f"<!-- {found.accuracy:.2%} in {found.median_seconds:.1f} s: {task.family}, {pipeline.describe()} -->",
        flush=True,
    )
    return found


def fastest(found: Sequence[Result], target: float) -> Result | None:
    """The fastest of the results whose median reaches the target."""
    reached = [result for result in found if result.accuracy >= target]
    return min(reached, key=lambda result: result.median_seconds, default=None)


def row(target: float, name: str, result: Result | None, ours: Result | None) -> str:
    """One line of the table."""
    if result is None:
        return f"| {target:.0%} | {name} | | not reached | | |"
    accuracies = ", ".join(f"{a:.2%}" for a in result.accuracies)
    seconds = ", ".join(f"{s:.1f}" for s in result.seconds)
    times = f"x{result.median_seconds / ours.median_seconds:.2f}" if ours is not None else ""
    measured = f"{result.accuracy:.2%} ({accuracies}) | {result.median_seconds:.1f} ({seconds})"
    return f"| {target:.0%} | {name} | {result.pipeline.epochs} | {measured} | {times} |"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.time_to_accuracy", description=__doc__.partition("\n")[0])
    p.add_argument("--data", default="fashion_mnist", help="a data set, or folder:PATH")
    p.add_argument("--ladder", default=None, help="whose ladder to climb (default: that of the data)")
    p.add_argument("--device", default="cpu")
    p.add_argument("--family", default="thin", help="of BASELINE and the ladder")
    p.add_argument("--epochs", type=int, default=8, help="of the highest rung (default: 8)")
    p.add_argument("--from-epochs", type=int, default=1, help="of BASELINE and the recipe, to begin with")
    p.add_argument("--rungs", type=int, default=None, help="of the ladder that are climbed (default: all)")
    p.add_argument("--targets", type=float, nargs="+", default=None)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--cap", type=float, default=120.0, help="seconds: no longer run is begun")
    p.add_argument("--n-train", type=int, default=None)
    p.add_argument("--who", nargs="+", choices=WHO, default=WHO, help="some of them only (default: all)")
    return p


def table(targets: Sequence[float], ours: Sequence[Result], others: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    """The fastest to each accuracy, a line each."""
    yield f"\n{HEAD}\n|---|---|---|---|---|---|"
    for target in targets:
        best = fastest(ours, target)
        if ours:
            yield row(target, "ours", best, best)
        for who, found in others.items():
            yield row(target, who, fastest(found, target), best)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    device = torch.device(options.device)
    data, name = DataSpec(options.data, n_train=options.n_train), options.ladder or options.data
    targets = options.targets or TARGETS.get(name, (0.9,))
    dataset = load(data, device)
    on_cpu = device.type == "cpu"
    stride = 2 if on_cpu and dataset.size >= 28 else 1
    task = Task(data, options.family, stride)
    number_format = "bf16"
    depth = (1, 1) if on_cpu else (1, 3)
    given = Given(
        options.family,
        ("fp32", number_format),
        (1, options.epochs),
        (32, 1024),
        depth,
        (0.25, 4.0),
        dataset.flip,
        name,
        size=dataset.size,
    )
    print(conditions(device, f"python -m benchmarks.time_to_accuracy {shlex.join(words)}".rstrip()))
    print(f"{len(dataset.train.y)} training images, {len(dataset.val.y)} validation images; stem stride {stride}\n")
    top = max(targets)
    rungs = ladder(given)[: options.rungs] if "ours" in options.who else []
    ours = [repeated(pipeline, task, dataset, options.seeds) for pipeline in rungs]
    others: dict[str, list[Result]] = {}
    if "BASELINE" in options.who:
        others["BASELINE"] = list(
            results(baseline(given), task, dataset, options.seeds, top, options.cap, options.from_epochs)
        )
    if "recipe" in options.who:
        recipe, fast = page(number_format, 0.25 if on_cpu else 1.0, dataset.flip), Task(data, "fast", stride)
        name = "Page 2018, a quarter of its width" if on_cpu else "Page 2018"
        others[name] = list(results(recipe, fast, dataset, options.seeds, top, options.cap, options.from_epochs))
    print(*table(targets, ours, others), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
