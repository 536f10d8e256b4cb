"""How few images suffice: python -m benchmarks.less_data --out less_data.jsonl.

Accuracy of each contender on shares of the training images, beside plain training on the same ones, all in as many
steps. What is in the file already is not trained again. Prints Markdown; nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.workload import conditions
from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset, Images, load
from objectives.device.allocator import keep_freed_memory
from objectives.device.formats import FORMATS
from objectives.evaluation import evaluate
from objectives.pipeline import Pipeline
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.base import Strategy
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.s3_pool import S3Pool
from objectives.strategies.stochastic_pooling import StochasticPooling
from objectives.strategies.structure_and_strength import StructureAndStrength
from objectives.task import DataSpec, Seeds, Task
from objectives.train import train
from search.pareto.intervals import student

CPU = torch.device("cpu")
PLAIN = Pipeline(batch_size=64, lr=0.2, schedule="one_cycle", label_smoothing=0.1, crop=False)
REFERENCE = "plain"
# A contender is a line here; all run on the images that are left to them.
CONTENDERS: dict[str, tuple[Strategy, ...]] = {
    REFERENCE: (),
    "S3Pool": (S3Pool(),),
    "S3Pool of strips of 2 pixels": (S3Pool(strips=99),),
    "stochastic pooling": (StochasticPooling(),),
    "average pooling": (AveragePooling(),),
    "growing part of the images": (DataFraction(),),
    "structure and strength": (StructureAndStrength(),),
}
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the training images
FEW = 100  # images that validate within a run; what is told here is measured on all of them, once

Cells = Mapping[str, Mapping[float, Mapping[int, float]]]  # contender -> share -> seed -> accuracy


def part(images: Images, share: float, seed: int) -> Images:
    """A share of the images, class by class, drawn by seed; a smaller share is a part of a larger one."""
    order = torch.randperm(len(images.y), generator=torch.Generator().manual_seed(seed))
    by_class = [order[images.y[order] == label] for label in images.y.unique()]
    kept = torch.cat([each[: max(1, round(share * len(each)))] for each in by_class]).sort().values
    return Images(images.x[kept].contiguous(memory_format=torch.channels_last), images.y[kept])


def accuracy(strategies: tuple[Strategy, ...], task: Task, dataset: Dataset, epochs: int, seed: int) -> float:
    """Of one training, on all images that validate."""
    few = Images(dataset.val.x[:FEW], dataset.val.y[:FEW])
    pipeline = replace(PLAIN, epochs=epochs, flip=dataset.flip, strategies=strategies)
    training = train(pipeline, task, replace(dataset, val=few), Seeds.of(seed, 0))
    while True:
        try:
            next(training)
        except StopIteration as end:
            model = end.value.model
            break
    found = evaluate(model, dataset.val, Normalisation(dataset, CPU), FORMATS["fp32"], batch_size=PLAIN.batch_size)
    return found.accuracy


def measured(options: argparse.Namespace, about: Mapping[str, object]) -> Cells:
    """Every accuracy that is asked for; what the file lacks is trained and added to it."""
    cells: defaultdict[str, defaultdict[float, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in options.out.read_text().splitlines() if options.out.exists() else ():
        known = json.loads(line)
        if all(known[key] == value for key, value in about.items()):
            cells[known["contender"]][known["share"]][known["seed"]] = known["accuracy"]
    spec = DataSpec(options.data, n_train=options.n_train)
    task, dataset = Task(spec, options.family, options.stem_stride), load(spec, CPU)
    for seed in range(options.seeds):
        for share in options.shares:
            some = replace(dataset, train=part(dataset.train, share, seed))
            for name in options.only:
                if seed in cells[name][share]:
                    continue
                found = accuracy(CONTENDERS[name], task, some, round(options.epochs / share), seed)
                cells[name][share][seed] = found
                row = {**about, "contender": name, "share": share, "seed": seed, "accuracy": found}
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{name}, {share:.0%} of the images, seed {seed}: {found:.2%}", file=sys.stderr, flush=True)
    return cells


def half_intervals(differences: Sequence[Sequence[float]]) -> list[float]:
    """Half of the 95 % interval of each mean, their spread taken together; NaN where nothing was repeated."""
    degrees = sum(len(each) - 1 for each in differences if each)
    if degrees < 1:
        return [math.nan] * len(differences)
    squares = sum((value - fmean(each)) ** 2 for each in differences if each for value in each)
    return [student(degrees) * math.sqrt(squares / degrees / len(each)) if each else math.nan for each in differences]


def as_good_as(target: float, plain: Mapping[float, float]) -> str:
    """The share of the images on which plain training is as accurate, on a line between decades of shares."""
    shares = sorted(plain)
    if target < plain[shares[0]]:
        return f"below {shares[0]:.0%}"
    for low, high in pairwise(shares):
        if plain[low] <= target <= plain[high] and plain[low] < plain[high]:
            way = (target - plain[low]) / (plain[high] - plain[low])
            return f"{math.exp(math.log(low) + way * math.log(high / low)):.1%}"
    return f"above {shares[-1]:.0%}"


def tables(cells: Cells, shares: Sequence[float]) -> list[str]:
    """Accuracies, differences from plain training on the same images, and how many images each is worth."""
    head = f"| {' | '.join(f'{share:.0%}' for share in shares)} |"
    rule = "|---" * (len(shares) + 1) + "|"
    means = {name: {s: fmean(by[s].values()) for s in shares if by.get(s)} for name, by in cells.items()}
    found = [f"| accuracy with a share of the images {head}", rule]
    for name, mean in means.items():
        found.append(f"| {name} | {' | '.join(f'{mean[s]:.2%}' if s in mean else '' for s in shares)} |")
    found += ["", f"| points beside {REFERENCE} {head}", rule]
    plain = cells.get(REFERENCE, {})
    for name, by in cells.items():
        if name == REFERENCE:
            continue
        pairs = [[100 * (by[s][n] - plain[s][n]) for n in by.get(s, {}) if n in plain.get(s, {})] for s in shares]
        halves = half_intervals(pairs)
        told = [f"{fmean(p):+.2f} ± {half:.2f}" if p else "" for p, half in zip(pairs, halves, strict=True)]
        found.append(f"| {name} | {' | '.join(told)} |")
    found += ["", f"| worth as many images of {REFERENCE} training {head}", rule]
    for name, mean in means.items():
        if name != REFERENCE and means.get(REFERENCE):
            told = [as_good_as(mean[s], means[REFERENCE]) if s in mean else "" for s in shares]
            found.append(f"| {name} | {' | '.join(told)} |")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what the file lacks, and prints the tables."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    p = argparse.ArgumentParser(prog="python -m benchmarks.less_data", description=__doc__.partition("\n")[0])
    p.add_argument("--data", default="fashion_mnist", help="a data set, or folder:PATH")
    p.add_argument("--n-train", type=int, default=10_000, help="images that are all (default: 10000)")
    p.add_argument("--family", default="thin")
    p.add_argument("--stem-stride", type=int, default=2)
    p.add_argument("--epochs", type=int, default=3, help="over all images; over fewer as many steps (default: 3)")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--shares", type=float, nargs="+", default=SHARES)
    p.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="contenders, by name")
    p.add_argument("--out", type=Path, default=Path("less_data.jsonl"))
    options = p.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    keys = ("data", "n_train", "family", "stem_stride", "epochs")
    cells = measured(options, {key: getattr(options, key) for key in keys})
    print(conditions(CPU, f"python -m benchmarks.less_data {shlex.join(words)}".rstrip()))
    of_all = replace(PLAIN, epochs=options.epochs).describe()
    print(f"{options.n_train} images; {of_all} over all of them, as many steps over fewer; {options.seeds} seeds.\n")
    print(*tables(cells, options.shares), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
