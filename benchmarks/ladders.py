"""What ladders are worth on data that they do not come from: python -m benchmarks.ladders --seeds 2 --cifar FOLDER.

Each of digits, Fashion-MNIST and CIFAR-10 (a folder of images) in turn is taken for data that nobody has seen: beside
its own ladder, which comes from runs on it, stand the rungs of the other two, and the generic ladder that studies of
unknown data begin with. Every rung is trained with every seed, as its study would; a ladder is told by the share of the
box that the means over seeds dominate. Prints Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

import torch
from optuna.trial import FixedTrial

from benchmarks.training import conditions
from benchmarks.widening import trained
from objectives.data.dataset import load
from objectives.device.allocator import keep_freed_memory
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Task
from search.pareto.front import Box, Outcome, hypervolume
from spaces import acceleration
from spaces.base import Given
from spaces.ladders import GENERIC, LADDERS
from spaces.restricted import Restrictions, sample

UNKNOWN = "folder:unseen"  # a name without a ladder of its own
USEFUL = 0.2125  # accuracy: the floor of ten even classes


def given_for(name: str, task: Task, n_train: int, size: int, *, flip: bool) -> Given:
    """What a study of that data allows, as the built-in ones do."""
    small = task.family == "small"
    epochs, batches = ((3, 30), (16, 128)) if small else ((2, 14), (32, 256))
    return Given(
        *(task.family, ("fp32",), epochs, batches, (1, 1), (0.5, 2.0), flip, name),
        stem_stride=task.stem_stride,
        size=size,
        n_train=n_train,
    )


def rungs(name: str, given: Given) -> Iterator[tuple[str, Pipeline]]:
    """The ladder of a data set as pipelines of another one."""
    there = replace(given, data=name)
    known = acceleration.anchors(there)
    for anchor in LADDERS.get(name, GENERIC):
        yield anchor, sample(acceleration, FixedTrial(known[anchor]), there, Restrictions(), anchor)


def main() -> None:
    """Trains every rung on every data set and prints a table each."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.ladders", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--seeds", type=int, default=2)
    p.add_argument("--cifar", help="folder of CIFAR-10 images, a folder a class; left out without")
    options = p.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    tasks = {
        "digits": Task(DataSpec("digits", n_train=1200), "small"),
        "fashion_mnist": Task(DataSpec("fashion_mnist", n_train=4000), "thin", stem_stride=2),
    }
    if options.cifar:
        tasks["cifar10"] = Task(DataSpec(f"folder:{options.cifar}", n_train=5000), "thin", stem_stride=2)
    print(conditions(torch.device("cpu"), f"python -m benchmarks.ladders {shlex.join(sys.argv[1:])}".rstrip()))
    for name, task in tasks.items():
        told(name, task, options.seeds)


def told(name: str, task: Task, n_seeds: int) -> None:
    """The table of one data set."""
    dataset = load(task.data, torch.device("cpu"))
    given = given_for(name, task, len(dataset.train.y), dataset.size, flip=dataset.flip)
    sources = {"its own": [name], "of the others": [n for n in LADDERS if n != name], "generic": [UNKNOWN]}
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for ladder, names in sources.items():
        found[ladder] = {}
        for source in names:
            for anchor, pipeline in rungs(source, given):
                reports = [trained(pipeline, task, dataset, seed)[0][-1] for seed in range(n_seeds)]
                point = fmean(r.train_seconds for r in reports), fmean(r.accuracy for r in reports)
                found[ladder][f"{anchor} ({source})"] = point
                print(f"<!-- {name}, {ladder}, {anchor}: {point[0]:.2f} s, {point[1]:.4f} -->", flush=True)
    seconds = [point[0] for points in found.values() for point in points.values()]
    box = Box(min(seconds), 10 * max(seconds), USEFUL, len(dataset.val.y))
    head = ("ladder", "rungs", "share of the box", "fastest", "most accurate")
    print(f"\n{name}, {n_seeds} seeds\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for ladder, points in found.items():
        share = hypervolume([Outcome(0, *point) for point in points.values()], box)
        fastest, best = min(points.values()), max(points.values(), key=lambda point: point[1])
        ends = [f"{accuracy:.1%} after {took:.1f} s" for took, accuracy in (fastest, best)]
        print(f"| {ladder} | {len(points)} | {share:.3f} | {ends[0]} | {ends[1]} |", flush=True)


if __name__ == "__main__":
    main()
