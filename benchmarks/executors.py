"""Ways to run a step: python -m benchmarks.executors [--device cuda].

Seconds per step of every executor that the device has, over families, number formats and batch sizes, in interleaved
rounds; what it costs to set up, after how many steps that is paid back, and what a reconfiguration of the network costs
in each. Prints Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.workload import conditions, usable_formats
from objectives.data.dataset import load
from objectives.device.allocator import keep_freed_memory
from objectives.device.executors import Eager, Executor, Segment, prepared, unusable
from objectives.device.formats import FORMATS, LossScaler
from objectives.networks import surgery
from objectives.networks.architecture import build
from objectives.networks.resnet import ResNet
from objectives.networks.trainee import Trainee
from objectives.task import DataSpec, Task

FAST = ("compile", "cuda_graph")
FAMILIES = (("thin", 1), ("wide", 1), ("fast", 1))  # (family, depth)
HEAD = """\
| network | format | batch | executor | ms per step (quartiles) | times as fast as eager | set-up, s | \
paid back after, steps | reconfiguration, s |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Case:
    """What is trained: random images of a given size, as whitened images are."""

    family: str
    depth: int
    width: float
    number_format: str
    batch: int
    size: int
    stem_stride: int
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.batch, 3, self.size, self.size

    def segment(self) -> Segment:
        """A fresh network with an optimizer."""
        torch.manual_seed(0)
        shape = {"in_channels": 3, "n_classes": 10, "stem_stride": self.stem_stride}
        architecture = build(self.family, depth=self.depth, width=self.width, **shape)
        model, number_format = ResNet(architecture).to(self.device), FORMATS[self.number_format]  # type: ignore[index]
        lr = torch.tensor(1e-4, device=self.device) if self.device.type == "cuda" else 1e-4
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, fused=True)
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        scaler = LossScaler(self.device.type) if number_format.scaled else None
        number_format.set_float32_products()
        return Segment(Trainee(model, optimizer, {}, {}), (), number_format, scaler, 0.0)

    def batch_of_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(self.shape, device=self.device).contiguous(memory_format=torch.channels_last)
        return x, torch.arange(self.batch, device=self.device) % 10


def rows(case: Case, n_rounds: int, steps: int) -> Iterator[str]:
    """One row for each executor that the device has."""
    x, y = case.batch_of_images()
    segment = case.segment()
    names = ["eager", *(name for name in FAST if unusable(name, segment) is None)]
    runs: dict[str, tuple[Executor, float]] = {}
    for name in names:
        fresh = case.segment()
        Eager(fresh).step(x, y)  # kernels are chosen, memory is mapped
        runs[name] = _set_up(name, fresh, x, y)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(n_rounds):
        for name, (executor, _) in runs.items():
            _synchronise(case.device)
            start = time.perf_counter()
            for _ in range(steps):
                executor.step(x, y)
            _synchronise(case.device)
            seconds[name].append((time.perf_counter() - start) / steps)
    eager = median(seconds["eager"])
    for name, each in seconds.items():
        mine, ordered = median(each), sorted(each)
        quartiles = [1000 * ordered[len(ordered) * share // 4] for share in (1, 3)]
        gain = eager - mine
        executor, setup = runs[name]
        moved = _reconfigured(name, executor.segment, x, y)
        paid = "" if name == "eager" else f"{setup / gain:,.0f}" if gain > 0 else "never"
        network = f"{case.family}, depth {case.depth}, width x{case.width:g}"
        yield (
            f"| {network} | {case.number_format} | {case.batch} | {name} | "
            f"{1000 * mine:.2f} ({quartiles[0]:.2f} to {quartiles[1]:.2f}) | x{eager / mine:.2f} | "
            f"{'' if name == 'eager' else f'{setup:.2f}'} | {paid} | {moved:.3f} |"
        )


def _reconfigured(name: str, segment: Segment, x: torch.Tensor, y: torch.Tensor) -> float:
    """Seconds until the network without an eighth of its channels has made its first step."""
    sizes = segment.trainee.model.architecture.axis_sizes()
    pruned = {axis: torch.arange(size - size // 8, device=x.device) for axis, size in sizes.items()}
    start = time.perf_counter()
    smaller = surgery.reindex(segment.trainee, pruned)
    _set_up(name, Segment(smaller, (), segment.number_format, segment.scaler, 0.0), x, y)
    return time.perf_counter() - start


def _set_up(name: str, segment: Segment, x: torch.Tensor, y: torch.Tensor) -> tuple[Executor, float]:
    """(the executor after its first step, seconds of preparation and of that step)."""
    _synchronise(x.device)
    start = time.perf_counter()
    executor = prepared(name, segment, tuple(x.shape))
    executor.step(x, y)
    _synchronise(x.device)
    return executor, time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executors", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[128])
    parser.add_argument("--formats", nargs="+", default=None, help="number formats (default: all that are of use)")
    parser.add_argument("--size", type=int, default=32, help="side of the images, pixels")
    parser.add_argument("--stem-stride", type=int, default=None, help="default: 2 on a CPU, else 1")
    parser.add_argument(
        "--width", type=float, default=None, help="of the families; default: 1/4 of wide and fast on a CPU"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="per round")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    device = torch.device(options.device)
    on_cpu = device.type == "cpu"
    load(DataSpec("digits", n_train=1200), device)
    formats, left_out = usable_formats(Task(DataSpec("digits", n_train=1200), "small"), device)
    print(conditions(device, f"python -m benchmarks.executors {shlex.join(words)}".rstrip()))
    print("\n".join([*left_out, "", HEAD]), flush=True)
    for family, depth in FAMILIES:
        width = options.width or (0.25 if on_cpu and family != "thin" else 1.0)
        for number_format in options.formats or formats:
            for batch in options.batches:
                stride = options.stem_stride or (2 if on_cpu else 1)
                case = Case(family, depth, width, number_format, batch, options.size, stride, device)
                for row in rows(case, options.rounds, options.steps):
                    print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
