"""Speed of the training loop: python -m benchmarks.training [loop] [peers] [formats] [peak] [scaling].

loop: images per second of `objectives.train.train` (charged seconds) beside `benchmarks.bare`. peers: beside Lightning,
skorch and fastai, where they are installed. formats: what every number format and every hook costs per step. peak: what
the device reaches in a large matmul and in a convolution. scaling: steps over network and batch sizes, and their share
of that matmul. Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.contest import HEAD, contest, left_out, sized
from benchmarks.loop import Cost, Speed, costs, speeds
from benchmarks.peak import PEAK_HEAD, SCALING_HEAD, peaks, scaling
from benchmarks.workload import (
    BATCH,
    Workload,
    conditions,
    open_data,
    pipeline_for,
    task_for,
    usable_formats,
    with_few_validation_images,
)
from objectives.data.dataset import Dataset
from objectives.device.allocator import keep_freed_memory
from objectives.networks.architecture import FAMILIES
from objectives.task import Task

# `benchmarks.gpu` and `benchmarks.shapes` use these
__all__ = [
    "BATCH",
    "Cost",
    "Speed",
    "conditions",
    "costs",
    "speeds",
    "task_for",
    "usable_formats",
    "with_few_validation_images",
]


@dataclass(frozen=True)
class Setting:
    """What every part is given."""

    dataset: Dataset
    tasks: list[Task]  # one a family
    formats: list[str]
    n_pairs: int
    seconds: float  # of a run

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.dataset.train.x.device


def loop(s: Setting) -> None:
    """Our loop beside the bare one."""
    show("Our loop beside a bare one:", Speed.HEAD)
    for result in speeds(s.dataset, s.tasks, s.formats, s.n_pairs, s.seconds, math.inf):
        print(result.row(), flush=True)


def peers(s: Setting) -> None:
    """Our loop beside those of other libraries."""
    if s.device.type != "cpu":
        print("\nPeers are left out: their loops are written for a CPU here.")
        return
    show("Our loop beside those of other libraries:", HEAD, left_out(s.formats))
    for task in s.tasks:
        for number_format in s.formats:
            pipeline = pipeline_for(task.family, number_format, s.device)
            workload = sized(Workload(pipeline, task, s.dataset), s.seconds / 2)
            for row in contest(f"{task.family} (depth {pipeline.depth}), {number_format}", workload, s.n_pairs):
                print(row, flush=True)


def formats(s: Setting) -> None:
    """What every number format and every hook costs."""
    show(f"What each part costs ({s.tasks[0].family} family):", Cost.HEAD)
    for part in costs(s.dataset, s.tasks[0], s.formats, max(3, s.n_pairs // 2), s.seconds / 2):
        print(part.row(), flush=True)


def peak(s: Setting) -> None:
    """What the device can do."""
    show("What the device reaches:", PEAK_HEAD)
    for row in peaks(s.dataset, s.tasks, s.formats, s.n_pairs):
        print(row, flush=True)


def sizes(s: Setting) -> None:
    """Our loop over network and batch sizes."""
    show("Our loop over network and batch sizes:", SCALING_HEAD)
    by_family = {task.family: task for task in s.tasks}
    for row in scaling(s.dataset, by_family, s.formats, s.n_pairs // 4, s.seconds / 4):
        print(row, flush=True)


PARTS = {"loop": loop, "peers": peers, "formats": formats, "peak": peak, "scaling": sizes}


def show(title: str, head: str, notes: Iterable[str] = ()) -> None:
    """Prints what stands above the rows of a table."""
    print("\n".join(["", title, *notes, "", head]), flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n\n")[1])
    p.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"{', '.join(PARTS)} (default: all)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    p.add_argument("--data", help="digits, fashion_mnist, folder:PATH, ... (default: fashion_mnist, else digits)")
    p.add_argument("--n-train", type=int, default=4000, help="training images to choose from (default: 4000)")
    p.add_argument("--pairs", type=int, default=30, help="pairs of runs per row (default: 30)")
    p.add_argument("--seconds", type=float, default=1.0, help="length of a run (default: 1)")
    p.add_argument("--family", action="append", choices=sorted(FAMILIES), help="again for more (default: thin, wide)")
    p.add_argument(
        "--quick", action="store_true", help="few short runs of the thin family: a smoke test, no measurement"
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that are named, or all."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    if options.quick:
        options.pairs, options.seconds, options.family = 6, 0.1, options.family or ["thin"]
    torch.set_num_threads(1)  # two on a shared machine were 4 to 9 times slower
    keep_freed_memory()  # for both loops: it belongs to the process
    device = torch.device(options.device)
    spec, dataset = open_data(options.data, device, options.n_train)
    dataset = with_few_validation_images(dataset)
    tasks = [task_for(family, spec, device, dataset.size) for family in options.family or ("thin", "wide")]
    usable, without = usable_formats(tasks[0], device)
    print(conditions(device, f"python -m benchmarks.training {shlex.join(words)}".rstrip()))
    print(f"Data: {spec.name}, {dataset.size}x{dataset.size}x{dataset.channels}, batch {BATCH}.")
    print(*without, sep="\n")
    setting = Setting(dataset, tasks, usable, options.pairs, options.seconds)
    for name in options.parts or PARTS:
        PARTS[name](setting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
