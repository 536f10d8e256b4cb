"""Which gradients fp16 cannot hold: python -m benchmarks.underflow [--smoothing 0].

A run in fp32, of whose gradients every tenth step counts the exponents: of what each layer puts out, and of its
weights. A gradient is lost where its cast to fp16 is 0 and it is not: |g|, times the loss scale, is 2^-25 at most.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchmarks.ingredients import NETWORKS
from benchmarks.training import conditions
from benchmarks.widening import trained
from objectives.data.dataset import load
from objectives.device.allocator import keep_freed_memory
from objectives.networks.network import Network
from objectives.networks.resnet import Convolution
from objectives.networks.sequential import Dense
from objectives.strategies.base import Multiply, Strategy
from objectives.task import DataSpec, Task

CPU = torch.device("cpu")
EVERY = 10  # steps
LEAST = -150  # below the exponent of the smallest fp32 number, 2^-149
LOST = -25  # 2^-25 and less are cast to 0: half of the smallest fp16 number is rounded to even
NORMAL = -14  # below 2^-14 fp16 numbers lose bits
TOO_LARGE = 16  # from 65,520 on, just below 2^16, they are infinite
SCALES = (0, 8, 16)  # powers of two: none, a static one, the first one of torch's GradScaler


class Exponents:
    """How many numbers have each exponent: floor(log2 |g|). Those that are 0 are left out."""

    def __init__(self) -> None:
        self.counts = torch.zeros(128 - LEAST, dtype=torch.int64)

    def add(self, gradient: Tensor) -> None:
        """Counts the numbers of a gradient."""
        values = gradient.detach().flatten()
        exponents = torch.frexp(values[values != 0]).exponent - 1
        self.counts += torch.bincount(exponents - LEAST, minlength=len(self.counts))

    def below(self, exponent: int) -> float:
        """The share of numbers below 2^exponent."""
        return float(self.counts[: max(0, exponent - LEAST)].sum() / self.counts.sum().clamp(min=1))

    @property
    def median(self) -> int:
        """The exponent of the median."""
        return int((self.counts.cumsum(0) * 2 < self.counts.sum()).sum()) + LEAST

    @property
    def most(self) -> int:
        """The largest exponent."""
        return int(self.counts.nonzero().max()) + LEAST

    def __add__(self, other: Exponents) -> Exponents:
        both = Exponents()
        both.counts = self.counts + other.counts
        return both


@dataclass
class Seen:
    """The gradients of a layer."""

    outputs: Exponents = field(default_factory=Exponents)
    weights: Exponents = field(default_factory=Exponents)
    n_steps: int = 0


@dataclass(frozen=True)
class Watch(Strategy):
    """Counts gradients of every layer but the classifier, and changes nothing."""

    seen: dict[Convolution | Dense, Seen] = field(default_factory=dict, compare=False)

    def product(self, layer: Convolution | Dense, multiply: Multiply) -> Multiply:
        mine = self.seen.setdefault(layer, Seen())

        def watched(x: Tensor, weight: Tensor) -> Tensor:
            mine.n_steps += 1
            if (mine.n_steps - 1) % EVERY:
                return multiply(x, weight)
            weight = weight.view_as(weight)
            weight.register_hook(mine.weights.add)
            found = multiply(x, weight)
            found.register_hook(mine.outputs.add)
            return found

        return watched


def table(seen: Mapping[str, Seen]) -> None:
    """Prints a row for every layer, from the first to the last, and one for all."""
    outputs, weights = ([getattr(each, kind) for each in seen.values()] for kind in ("outputs", "weights"))
    every = Seen(sum(outputs, Exponents()), sum(weights, Exponents()))
    lost = [f"{kind} lost at {_scale(scale)}" for kind in ("outputs", "weights") for scale in SCALES]
    print(f"\n| layer | median of outputs, of weights | {' | '.join(lost)} |\n|{'---|' * (2 + len(lost))}")
    for name, each in {**seen, "all": every}.items():
        cells = [f"2^{each.outputs.median}, 2^{each.weights.median}"]
        cells += [f"{of.below(LOST - scale):.2%}" for of in (each.outputs, each.weights) for scale in SCALES]
        print(f"| {name} | {' | '.join(cells)} |")
    most = max(every.outputs.most, every.weights.most)
    fits = TOO_LARGE - 1 - most
    print(f"\nAll gradients lie below 2^{most + 1}: 2^{fits} is the largest power of two that surely fits.")
    heads = ("scale", *(f"{kind} {what}" for kind in ("outputs", "weights") for what in ("lost", "that lose bits")))
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for scale in (0, 4, 8, 12, 16, fits):
        cells = [f"{of.below(at - scale):.3%}" for of in (every.outputs, every.weights) for at in (LOST, NORMAL)]
        print(f"| {_scale(scale)}{' (the largest)' if scale == fits else ''} | {' | '.join(cells)} |")
    sys.stdout.flush()


def named(model: Network, seen: Mapping[Convolution | Dense, Seen]) -> dict[str, Seen]:
    """What was seen of the layers of a network, by the names of their modules."""
    return {name: seen[layer] for name, layer in model.named_modules() if layer in seen}


def _scale(power: int) -> str:
    return "no scale" if power == 0 else f"2^{power}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the network and prints the tables."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.underflow", description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="thin")
    parser.add_argument("--n-train", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(conditions(CPU, f"python -m benchmarks.underflow {shlex.join(words)}".rstrip()))
    task = Task(DataSpec("fashion_mnist", n_train=options.n_train), options.network, 2)
    watch = Watch()
    settings = {"epochs": options.epochs, "label_smoothing": options.smoothing, "strategies": (watch,)}
    pipeline = replace(NETWORKS[options.network], **settings)
    reports, result = trained(pipeline, task, load(task.data, CPU), options.seed)
    said = replace(pipeline, strategies=()).describe()
    print(f"\n{options.network}: {said}; {options.n_train} images, stem stride 2, seed {options.seed};", end=" ")
    print(f"accuracy {reports[-1].accuracy:.2%}")
    table(named(result.model, watch.seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
