"""How accurate each emulated number format trains: python -m benchmarks.formats [--only NAME ...].

Accuracies only: an emulated format is slower than fp32 by construction, so that its seconds say nothing. Every format
beside fp32 from the same seeds. `swalp` are the four trainings of Yang et al. 2019, whose order is SWA-FP, SWALP,
SGD-FP, SGD-LP. Prints Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from statistics import fmean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shapes import CPU
from benchmarks.training import conditions
from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset, load
from objectives.device.allocator import keep_freed_memory
from objectives.pipeline import Pipeline
from objectives.strategies.base import Strategy
from objectives.strategies.block_floating_point import BlockFloatingPoint
from objectives.strategies.dynamic_fixed_point import DynamicFixedPoint
from objectives.strategies.emulated import Emulated
from objectives.strategies.fixed_point import FixedPoint
from objectives.strategies.float8 import Float8
from objectives.strategies.swa import Swa
from objectives.strategies.switch_format import SwitchFormat
from objectives.task import DataSpec, Seeds, Task
from objectives.train import train
from search.pareto.intervals import student

PLAIN = Pipeline(batch_size=64, lr=0.2, epochs=6, schedule="one_cycle", label_smoothing=0.1, crop=False, flip=True)
FP32 = "fp32 (SGD-FP)"

EMULATED: dict[str, tuple[Strategy, ...]] = {
    "SWA (SWA-FP)": (Swa(start=0.5, lr=0.2),),
    "8-bit block floating point (SGD-LP)": (BlockFloatingPoint(),),
    "8-bit block floating point, SWA (SWALP)": (BlockFloatingPoint(), Swa(start=0.5, lr=0.2)),
    "6-bit block floating point": (BlockFloatingPoint(bits=6),),
    "6-bit block floating point, then fp32": (BlockFloatingPoint(bits=6), SwitchFormat(at=0.5)),
    "DFP16": (DynamicFixedPoint(),),
    "DFP8": (DynamicFixedPoint(bits=8),),
    "fixed point <4, 12> at random": (FixedPoint(),),
    "fixed point <4, 12> to the nearest": (FixedPoint(rounding="nearest"),),
    "fixed point <4, 8> at random": (FixedPoint(bits=12),),
    "fixed point <4, 8> to the nearest": (FixedPoint(bits=12, rounding="nearest"),),
    "fp8 e4m3, errors e5m2": (Float8(),),
    "fp8 e4m3, errors e4m3": (Float8(errors="e4m3"),),
}
OF_GRADIENTS: tuple[Emulated, ...] = (
    *(DynamicFixedPoint(), DynamicFixedPoint(bits=8), BlockFloatingPoint(), BlockFloatingPoint(bits=6), Float8()),
    *(FixedPoint(), FixedPoint(rounding="nearest"), FixedPoint(bits=12), FixedPoint(bits=12, rounding="nearest")),
)
REAL: dict[str, Pipeline] = {
    "bf16": replace(PLAIN, number_format="bf16"),
    "bf16, then fp32": replace(PLAIN, number_format="bf16", strategies=(SwitchFormat(at=0.5),)),
}


def cases() -> dict[str, Pipeline]:
    """fp32, then every format, and what it is combined with."""
    return {FP32: PLAIN, **REAL, **{name: replace(PLAIN, strategies=each) for name, each in EMULATED.items()}}


def gradient_errors(task: Task, dataset: Dataset, epochs: int) -> list[str]:
    """How far the gradients of the convolutions' weights are from those of fp32, on a batch of a trained network."""
    training, model = train(replace(PLAIN, epochs=epochs), task, dataset, Seeds.of(0, 0)), None
    while model is None:
        try:
            next(training)
        except StopIteration as end:
            model = end.value.model.train()
    x, y = Normalisation(dataset, CPU)(dataset.train.x[: PLAIN.batch_size]), dataset.train.y[: PLAIN.batch_size]

    def gradients(strategy: Strategy | None) -> list[Tensor]:
        torch.manual_seed(0)
        for layer in model.convolutions():
            layer.multiply = None if strategy is None else strategy.product(layer, layer.multiplied)
        loss = F.cross_entropy(model(x), y, label_smoothing=PLAIN.label_smoothing)
        return list(torch.autograd.grad(loss, [layer.weight for layer in model.convolutions()]))

    exact, lines = gradients(None), ["| format | first convolution | middle | last |", "|---|---|---|---|"]
    for strategy in OF_GRADIENTS:
        found = zip(gradients(strategy), exact, strict=True)
        errors = [float((one - other).norm() / other.norm()) for one, other in found]
        shown = (errors[0], errors[len(errors) // 2], errors[-1])
        lines.append(f"| {strategy.what} | {' | '.join(f'{each:.3g}' for each in shown)} |")
    return lines


def accuracy(pipeline: Pipeline, task: Task, dataset: Dataset, seed: int) -> float:
    """The validation accuracy that a training ends with."""
    *_, last = train(pipeline, task, dataset, Seeds.of(seed, 0))
    return last.accuracy


def rows(accuracies: Mapping[str, Sequence[float]]) -> list[str]:
    """A table of accuracies by seed; differences are paired, with Student's interval of 95 % of their mean."""
    lines = ["| training | accuracy, mean (each) | points beside fp32 |", "|---|---|---|"]
    for name, each in accuracies.items():
        points = [100 * (one - other) for one, other in zip(each, accuracies[FP32], strict=True)]
        half = f" ± {student(len(points) - 1) * stdev(points) / sqrt(len(points)):.2f}" if len(points) > 1 else ""
        told = ", ".join(f"{one:.2%}" for one in each)
        lines.append(f"| {name} | {fmean(each):.2%} ({told}) | {fmean(points):+.2f}{half} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains in the formats that are named, or in all."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=PLAIN.epochs)
    parser.add_argument("--n-train", type=int, default=8_000)
    parser.add_argument("--data", default="fashion_mnist", help="a data set, or folder:PATH")
    parser.add_argument("--family", default="thin")
    parser.add_argument("--stem-stride", type=int, default=2)
    parser.add_argument("--gradients", action="store_true", help="only how far gradients are from those of fp32")
    parser.add_argument("--only", nargs="+", default=None, help="trainings, by name (default: all)")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(conditions(CPU, f"python -m benchmarks.formats {shlex.join(words)}".rstrip()))
    task = Task(DataSpec(options.data, n_train=options.n_train), options.family, options.stem_stride)
    dataset = load(task.data, CPU)
    if options.gradients:
        print("\n".join(["", *gradient_errors(task, dataset, options.epochs)]))
        return 0
    chosen = {n: p for n, p in cases().items() if options.only is None or n in (FP32, *options.only)}
    chosen = {name: replace(pipeline, epochs=options.epochs) for name, pipeline in chosen.items()}
    print(f"\n{options.family}: {chosen[FP32].describe()}; {options.n_train} images\n", flush=True)
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for seed in range(options.seeds):
        for name, pipeline in chosen.items():
            found[name].append(accuracy(pipeline, task, dataset, seed))
            print(f"<!-- seed {seed}, {name}: {found[name][-1]:.4f} -->", flush=True)
    print("\n" + "\n".join(rows(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
