"""What a trained network is worth as a start: python -m benchmarks.transfer --cifar FOLDER --root FOLDER.

Five classes of CIFAR-10 to the other five, and Fashion-MNIST to digits, with few images a class. Every contender is
trained for several numbers of epochs, so that each is a curve of seconds against accuracy on images that nothing is
chosen by; contenders take turns. What is in the file already is not trained again. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.workload import conditions, half_interval
from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset, Images, load
from objectives.device.allocator import keep_freed_memory
from objectives.device.formats import FORMATS
from objectives.evaluation import evaluate
from objectives.export import export
from objectives.pipeline import Pipeline
from objectives.strategies.base import Strategy
from objectives.strategies.discriminative_rates import DiscriminativeRates
from objectives.strategies.frozen_stages import FrozenStages
from objectives.strategies.linear_probe import LinearProbe
from objectives.strategies.prune_train import PruneTrain, kappa_for
from objectives.strategies.transfer import Transfer
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Seeds, Task
from objectives.train import Trained, normalised_by, train

CPU = torch.device("cpu")
KEY = ("case", "per_class", "contender", "epochs", "seed")
Point = tuple[float, float]  # seconds, accuracy
FAMILY = "fast"
SCRATCH = "scratch"
# Of the ladder of known-good pipelines for folders of images.
PLAIN = Pipeline(number_format="bf16", batch_size=64, lr=0.8, schedule="one_cycle", label_smoothing=0.1, width=0.25)
GENTLE = replace(PLAIN, lr=0.1)  # for weights that are good already
LATER = 1.2  # times the seconds of a curve's last point: until then it counts as level
FEW = 100  # images that validate within a run; what is told is measured on all of them, once
FROZEN = 3  # stages, the stem counted, that a frozen start keeps: the last one learns
SOURCE_EPOCHS = 8
STEPS = (16, 64, 256)  # of a run, about; an epoch at least
CROPPED = 10  # epochs from which on images are cropped, but of frozen networks, whose features are known then


@dataclass(frozen=True)
class Transferred:
    """From one data set to another."""

    source: DataSpec
    target: DataSpec
    stem_stride: int
    per_class: tuple[int, ...]  # images of the target to train on


def contenders(start: str) -> dict[str, Pipeline]:
    """The pipelines that are compared."""

    def begun(*strategies: Strategy, like: Pipeline = GENTLE, **settings: float) -> Pipeline:
        return replace(like, strategies=(Transfer(start), *strategies), **settings)  # type: ignore[arg-type]

    rates = DiscriminativeRates(body=0.3, decay=0.7)
    return {
        SCRATCH: replace(PLAIN, strategies=(Whitening(),)),
        "start": begun(),
        "start, at the rate of scratch": begun(like=PLAIN),
        "start, rates by depth": begun(rates, like=PLAIN),
        "start, probe first": begun(LinearProbe()),
        "start, all but the head frozen": begun(FrozenStages(parts=5), like=PLAIN),
        "start, frozen, probe": begun(FrozenStages(parts=5), LinearProbe()),
        "start, last stage and head learn": begun(FrozenStages(parts=FROZEN)),
        "start, frozen and thawed": begun(FrozenStages(parts=5, until=0.5)),
        "start, pruned to half": begun(width=0.125),
        "start, grown by half": begun(width=0.375),
        "start, PruneTrain": begun(PruneTrain(lpr=0.35, kappa=kappa_for(0.3))),
    }


def halves(cifar: Path, root: Path) -> tuple[DataSpec, DataSpec]:
    """CIFAR-10 as two folders of five classes each, with test images in the place of those that validate."""
    names = sorted(folder.name for folder in (cifar / "train").iterdir())
    found = []
    for number, chosen in enumerate((names[::2], names[1::2])):
        folder = root / f"five-{number}"
        for name in chosen if not folder.exists() else ():
            for split, place in (("train", "train"), ("test", "val")):
                (folder / place).mkdir(parents=True, exist_ok=True)
                shutil.copytree(cifar / split / name, folder / place / name)
        found.append(DataSpec(f"folder:{folder}", size=32))
    return found[0], found[1]


def few(dataset: Dataset, per_class: int, seed: int) -> Dataset:
    """So many training images of each class, drawn by seed."""
    x, y = dataset.train.x, dataset.train.y
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([order[y[order] == label][:per_class] for label in y.unique()]).sort().values
    some = Images(x[kept].contiguous(memory_format=torch.channels_last), y[kept])
    return replace(dataset, train=some)


def trained(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds) -> Trained:
    """The result of a training."""
    running = train(pipeline, task, dataset, seeds)
    while True:
        try:
            next(running)
        except StopIteration as end:
            result: Trained = end.value
            return result


def reached(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds) -> Point:
    """Seconds of a training, and the accuracy of its network on all images that validate."""
    seen = Images(dataset.val.x[:FEW], dataset.val.y[:FEW])
    made = trained(pipeline, task, replace(dataset, val=seen), seeds)
    normalise = Normalisation(normalised_by(pipeline, dataset), CPU)
    number_format = FORMATS[pipeline.number_format]
    found = evaluate(made.model, dataset.val, normalise, number_format, batch_size=pipeline.batch_size)
    return made.report.train_seconds, found.accuracy


def start_of(case: str, transferred: Transferred, seed: int, root: Path) -> str:
    """The folder of a network that was trained on the source with this seed."""
    folder = root / f"start-{case}-{seed}"
    if not folder.exists():
        task = Task(transferred.source, FAMILY, transferred.stem_stride)
        dataset = load(transferred.source, CPU)
        pipeline = replace(PLAIN, epochs=SOURCE_EPOCHS, crop=False, flip=dataset.flip, strategies=(Whitening(),))
        made = trained(pipeline, task, dataset, Seeds.of(seed, 0))
        export(made, dataset, folder, {"family": FAMILY, "stem_stride": transferred.stem_stride})
        told = f"{made.report.accuracy:.2%} in {made.report.train_seconds:.0f} s"
        print(f"{case}, seed {seed}: the start has {told}", file=sys.stderr, flush=True)
    return str(folder)


def cases(cifar: Path | None, root: Path) -> dict[str, Transferred]:
    """What is transferred."""
    digits = Transferred(DataSpec("fashion_mnist", n_train=20_000), DataSpec("digits", size=28), 2, (10, 50))
    if cifar is None:
        return {"fashion to digits": digits}
    return {"cifar10, five to five": Transferred(*halves(cifar, root), 2, (50, 200, 1000)), "fashion to digits": digits}


def wanted(options: argparse.Namespace) -> Iterator[tuple[dict[str, object], Pipeline, Task, Dataset]]:
    """Every training that is asked for, contenders in turn."""
    for seed in range(options.seeds):
        for case, transferred in cases(options.cifar, options.root).items():
            if options.cases and case not in options.cases:
                continue
            task, whole = Task(transferred.target, FAMILY, transferred.stem_stride), load(transferred.target, CPU)
            pipelines = contenders(start_of(case.replace(" ", "-"), transferred, seed, options.root))
            for n in options.per_class or transferred.per_class:
                dataset = few(whole, n, seed)
                for steps in options.steps:
                    epochs = max(1, round(steps * PLAIN.batch_size / len(dataset.train.y)))
                    for name in options.only:
                        crops = epochs >= CROPPED and not any(
                            isinstance(strategy, FrozenStages) for strategy in pipelines[name].strategies
                        )
                        pipeline = replace(pipelines[name], epochs=epochs, flip=whole.flip, crop=crops)
                        about = {"case": case, "per_class": n, "contender": name, "epochs": epochs, "seed": seed}
                        yield about, pipeline, task, dataset


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """What the file has, and what it lacked."""
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {tuple(row[key] for key in KEY) for row in rows}
    for about, pipeline, task, dataset in wanted(options):
        if tuple(about.values()) in done:
            continue
        seconds, accuracy = reached(pipeline, task, dataset, Seeds.of(int(str(about["seed"])), 1))
        rows.append({**about, "seconds": seconds, "accuracy": accuracy})
        done.add(tuple(about.values()))
        with options.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def at(seconds: float, curve: Sequence[Point]) -> float | None:
    """The accuracy of a curve after so many seconds, on a line between decades of them; its last one a little later.

    None before its first point and far behind its last one.
    """
    points = sorted(curve)
    if seconds < points[0][0]:
        return None
    for (before, low), (after, high) in pairwise(points):
        if before <= seconds <= after:
            return low + (high - low) * math.log(seconds / before) / math.log(after / before)
    return points[-1][1] if seconds <= LATER * points[-1][0] else None


def tables(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """A table for each number of images: the curve of each contender, and what it is ahead of scratch."""
    kinds = dict.fromkeys((row["case"], row["per_class"]) for row in rows)
    for case, n in kinds:
        curves: dict[str, dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            if (row["case"], row["per_class"]) == (case, n):
                point = float(str(row["seconds"])), float(str(row["accuracy"]))
                curves[str(row["contender"])][int(str(row["seed"]))].append(point)
        n_seeds = max(map(len, curves.values()))
        yield f"\n{case}, {n} images a class, {n_seeds} seeds\n"
        yield "| contender | seconds: accuracy, in % | ahead of scratch at equal seconds, points |\n|---|---|---|"
        for name, by_seed in curves.items():
            yield f"| {name} | {_curve(list(by_seed.values()))} | {_ahead(by_seed, curves.get(SCRATCH, {}))} |"


def _curve(of: Sequence[Sequence[Point]]) -> str:
    """Means over seeds, point by point."""
    points = zip(*map(sorted, of), strict=False)
    return ", ".join(f"{fmean(s for s, _ in each):.2g} s: {100 * fmean(a for _, a in each):.1f}" for each in points)


def _ahead(of: Mapping[int, Sequence[Point]], scratch: Mapping[int, Sequence[Point]]) -> str:
    """How far each point is ahead of the best that scratch reaches by then, with its interval over seeds."""
    if of is scratch or not scratch:
        return ""
    told = []
    by_seed = [[(p, at(p[0], scratch[seed])) for p in sorted(of[seed])] for seed in of if seed in scratch]
    for points in zip(*by_seed, strict=False):
        gains = [100 * (accuracy - there) for (_, accuracy), there in points if there is not None]
        half = half_interval(gains) if gains else math.nan
        told.append(
            f"{fmean(gains):+.1f}{'' if math.isnan(half) else f' ± {half:.1f}'}" if gains else "no scratch then"
        )
    return ", ".join(told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, and prints the tables."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    p = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--cifar", type=Path, help="CIFAR-10 as images: train/CLASS and test/CLASS; left out without")
    p.add_argument("--root", type=Path, required=True, help="where halves of it and starts are kept")
    p.add_argument("--out", type=Path, default=Path("transfer.jsonl"), help="file of results, which is continued")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--cases", nargs="+", help="by name; default: all")
    p.add_argument("--per-class", type=int, nargs="+", help="images a class to train on")
    p.add_argument("--steps", type=int, nargs="+", default=STEPS, help="of a run, about")
    p.add_argument("--only", nargs="+", default=list(contenders("")), choices=list(contenders("")), metavar="CONTENDER")
    options = p.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    options.root.mkdir(parents=True, exist_ok=True)
    rows = measure(options)
    print(conditions(CPU, f"python -m benchmarks.transfer {shlex.join(words)}"))
    print(*tables(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
