"""What the knobs of the default space rest on: python -m benchmarks.knobs [rates] [shares] [norms] [longer] [pixels].

rates: accuracy by rate and batch, and how far batches are apart at equal rates under each rule. shares: what PruneTrain
removes beside what its kappa is forecast to. norms: accuracy by rate and batch of networks without batch norms. longer:
what more epochs gain for a pipeline that two minutes end with; pixels: and what crops and all pixels do, by epochs.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from benchmarks.training import conditions
from benchmarks.widening import trained
from benchmarks.workload import half_interval
from objectives.data.dataset import load
from objectives.device.allocator import keep_freed_memory
from objectives.feasibility import full_architecture
from objectives.pipeline import Pipeline
from objectives.strategies.prune_train import PruneTrain, dying_share
from objectives.strategies.strided_stem import StridedStem
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Task

CPU = torch.device("cpu")
DIGITS = Task(DataSpec("digits", n_train=1200), "small")
FASHION = Task(DataSpec("fashion_mnist", n_train=4000), "thin", 2)
PLAIN = Pipeline(batch_size=64, epochs=6, schedule="one_cycle", label_smoothing=0.05, crop=False, flip=False)
BATCHES = (16, 32, 64, 128)
PEAKS = tuple(0.0125 * 2**n for n in range(8))
COMPARED = (0.05, 0.1, 0.2, 0.4, 0.8)  # peaks at a batch of 64
UNNORMED = PEAKS[:6]
LAST = Pipeline(
    number_format="bf16",
    batch_size=64,
    lr=0.2,
    schedule="one_cycle",
    label_smoothing=0.1,
    crop=False,
    width=0.25,
    strategies=(StridedStem(), Whitening(share=1.0, frozen=1.0)),
)
LENGTHS = (8, 10, 12, 16, 20)
STRIDED = ((8, False), (16, False), (12, True), (20, True))  # epochs, crops
WHOLE = ((4, False), (6, False), (8, False), (12, True))
RULES = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}  # power of the batch that the peak follows


def rates() -> None:
    """Digits at every batch and peak, two seeds each."""
    dataset, found = load(DIGITS.data, CPU), {}
    print(f"\n| batch | {' | '.join(f'peak {peak:g}' for peak in PEAKS)} |\n|{'---|' * (len(PEAKS) + 1)}")
    for batch in BATCHES:
        each = [replace(PLAIN, batch_size=batch, lr=peak) for peak in PEAKS]
        found[batch] = [mean(trained(p, DIGITS, dataset, seed)[0][-1].accuracy for seed in (0, 1)) for p in each]
        print(f"| {batch} | {' | '.join(f'{accuracy:.2%}' for accuracy in found[batch])} |", flush=True)
    print("\n| rule | points between the best and the worst batch, by peak at a batch of 64 | mean |\n|---|---|---|")
    for rule, power in RULES.items():
        apart = []
        for peak in COMPARED:
            at = {b: np.interp(np.log(peak * (b / 64) ** power), np.log(PEAKS), found[b]) for b in BATCHES}
            apart.append(100 * float(max(at.values()) - min(at.values())))
        print(f"| {rule} | {', '.join(f'{points:.1f}' for points in apart)} | {mean(apart):.1f} |")


def shares() -> None:
    """PruneTrain on digits and Fashion-MNIST, by kappa."""
    print("\n| data | epochs | peak rate | kappa | forecast | channels removed | FLOPs removed | accuracy |")
    print(f"|{'---|' * 8}")
    for task, epochs, lr, kappas in (
        (DIGITS, 15, 0.4, (4, 6, 9)),
        (DIGITS, 30, 0.4, (8, 13, 20)),
        (FASHION, 10, 0.2, (4, 6)),
        (FASHION, 10, 0.4, (6, 9, 13)),
    ):
        dataset = load(task.data, CPU)
        for kappa in kappas:
            asked = PruneTrain(kappa=kappa, lpr=0.6)
            pipeline = replace(
                PLAIN, lr=lr, epochs=epochs, flip=task is FASHION, label_smoothing=0.1, strategies=(asked,)
            )
            reports, result = trained(pipeline, task, dataset, 0)
            full = full_architecture(pipeline, task, dataset.channels, dataset.n_classes, dataset.size)
            kept = sum(result.model.architecture.axis_sizes().values()) / sum(full.axis_sizes().values())
            flops = reports[-1].inference_flops / reports[-1].full_flops
            cells = f"{dying_share(kappa):.0%} | {1 - kept:.0%} | {1 - flops:.0%} | {reports[-1].accuracy:.2%}"
            print(f"| {task.data.name} | {epochs} | {lr} | {kappa} | {cells} |", flush=True)


def norms() -> None:
    """Fashion-MNIST at two batches and every peak, in families without batch norms; three seeds."""
    heads = " | ".join(f"peak {peak:g}" for peak in UNNORMED)
    print(f"\n| family | batch | {heads} |\n|{'---|' * (len(UNNORMED) + 2)}")
    data = DataSpec("fashion_mnist", n_train=5000)
    dataset = load(data, CPU)
    plain = replace(PLAIN, epochs=8, flip=True, label_smoothing=0.1)
    for family, batch in product(("lenet300", "lenet5"), (64, 128)):
        cells = []
        for peak in UNNORMED:
            pipeline = replace(plain, batch_size=batch, lr=peak)
            each = [trained(pipeline, Task(data, family), dataset, seed)[0][-1].accuracy for seed in range(3)]
            cells.append(f"{mean(each):.2%} ({min(each):.1%} to {max(each):.1%})")
        print(f"| {family} | {batch} | {' | '.join(cells)} |", flush=True)


def longer(folder: str, n_seeds: int) -> None:
    """Fashion-MNIST and a folder, 5,000 images each; points beside the fewest epochs with the same seed."""
    _beside_first([(f"{n} epochs", replace(LAST, epochs=n)) for n in LENGTHS], folder, 5000, n_seeds)


def pixels(folder: str, n_seeds: int) -> None:
    """The same of 5,000 and of 1,500 images, with crops and on all pixels; CPU seconds of each."""
    whole = replace(LAST, strategies=LAST.strategies[1:])
    named = [(f"{n}{' crop' * crop}", replace(LAST, epochs=n, crop=crop)) for n, crop in STRIDED]
    named += [(f"all pixels, {n}{' crop' * crop}", replace(whole, epochs=n, crop=crop)) for n, crop in WHOLE]
    for n_train in (5000, 1500):
        _beside_first(named, folder, n_train, n_seeds)


def _beside_first(named: Sequence[tuple[str, Pipeline]], folder: str, n_train: int, n_seeds: int) -> None:
    """Prints a row for each of two data sets: accuracies beside that of the first pipeline with the same seed."""
    print(f"\n| {n_train} images of | {' | '.join(name for name, _ in named)} |\n|{'---|' * (len(named) + 1)}")
    for name in ("fashion_mnist", f"folder:{folder}"):
        task = Task(DataSpec(name, n_train=n_train), "fast")
        dataset = load(task.data, CPU)
        each = [replace(pipeline, flip=dataset.flip) for _, pipeline in named]
        last = [[trained(p, task, dataset, seed)[0][-1] for p in each] for seed in range(n_seeds)]
        points = [[100 * report.accuracy for report in of] for of in last]
        seconds = [mean(of[i].train_seconds for of in last) for i in range(len(named))]
        cells = [f"{mean(row[0] for row in points):.2f}%"]
        for i in range(1, len(named)):
            gains = [row[i] - row[0] for row in points]
            cells.append(f"{mean(gains):+.2f} ± {half_interval(gains):.2f}")
        cells = [f"{cell} ({took:.0f} s)" for cell, took in zip(cells, seconds, strict=True)]
        print(f"| {Path(name.removeprefix('folder:')).name} | {' | '.join(cells)} |", flush=True)


PARTS = ("rates", "shares", "norms", "longer", "pixels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts that are named, or all."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.knobs", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--folder", help="of images: of longer and pixels, which are left out without one")
    parser.add_argument("--seeds", type=int, default=4, help="of longer and pixels, 2 or more")
    options = parser.parse_args(words)
    parts: dict[str, Callable[[], None]] = {"rates": rates, "shares": shares, "norms": norms}
    if options.folder is not None:
        parts["longer"] = lambda: longer(options.folder, options.seeds)
        parts["pixels"] = lambda: pixels(options.folder, options.seeds)
    if options.seeds < 2:
        parser.error("--seeds: intervals need 2 or more")
    if missing := sorted({*options.parts} - {*parts}):
        parser.error(f"{missing[0]} needs a folder of images: --folder")
    torch.set_num_threads(1)
    keep_freed_memory()
    print(conditions(CPU, f"python -m benchmarks.knobs {shlex.join(words)}".rstrip()))
    for name in options.parts or parts:
        parts[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
