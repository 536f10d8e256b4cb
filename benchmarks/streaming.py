"""What it costs that images are streamed: python -m benchmarks.streaming [--pairs 12] [--seconds 5]

The same training on images that memory holds and on the same images in a file, in turns whose order is drawn. Both must
reach the same weights. Seconds are those that a study charges (on a CPU CPU time, of the threads that read as well) and
those on the wall. `cold`: what the kernel keeps of the file is dropped before each training, so that its first epoch
reads from the disk.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.workload import Workload, bounds, conditions, pipeline_for, task_for, with_few_validation_images
from objectives.data.cache.stored import Stored
from objectives.data.dataset import Dataset, Images, load
from objectives.data.streaming import Streamed
from objectives.pipeline import Report
from objectives.task import DataSpec

SIZES = (28, 64, 96)  # pixels: as they are, and as photographs are trained on
GOAL = 1.05  # times the seconds of images that memory holds


@dataclass(frozen=True)
class Costs:
    """Seconds on streamed images over those on held ones."""

    size: int
    n_images: int
    where: str  # what is known of the file when a training begins
    charged: list[float]  # a ratio for each pair
    wall: list[float]
    milliseconds: float  # charged for a step on held images, median

    HEAD = (
        "| pixels | images | file | pairs | ms per step, held | charged, times held | 95 % bounds | wall, times held "
        "| 95 % bounds | within the goal |\n" + "|---" * 10 + "|"
    )

    def row(self) -> str:
        """This result as a row of a Markdown table."""
        cells = [f"{self.size} | {self.n_images} | {self.where} | {len(self.wall)} | {self.milliseconds:.1f}"]
        for ratios in (self.charged, self.wall):
            low, high = bounds(ratios)
            cells.append(f"{median(ratios):.3f} | {low:.3f} to {high:.3f}")
        return f"| {' | '.join(cells)} | {'yes' if median(self.charged) <= GOAL >= median(self.wall) else 'no'} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints Markdown."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--data", default="fashion_mnist", help="a data set with a name, or folder:PATH")
    p.add_argument("--n-train", type=int, default=4000)
    p.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sides of the images, pixels")
    p.add_argument("--family", default="thin")
    p.add_argument("--device", default="cpu")
    p.add_argument("--pairs", type=int, default=12, help="of trainings, for each row")
    p.add_argument("--seconds", type=float, default=5.0, help="that a training takes, about")
    options = p.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    print(conditions(device, f"python -m benchmarks.streaming {' '.join(arguments or sys.argv[1:])}".strip()))
    print(Costs.HEAD)
    for size in options.sizes:
        spec = DataSpec(options.data, n_train=options.n_train, size=size, channels=3, streamed=False)
        held = with_few_validation_images(load(spec, torch.device("cpu")).on(device))
        pipeline, task = pipeline_for(options.family, "fp32", device), task_for(options.family, spec, device, size)
        workload = Workload(replace(pipeline, crop=True, flip=True), task, held).lasting(options.seconds)
        for costs in compared(workload, options.pairs):
            print(costs.row(), flush=True)
    return 0


def compared(held: Workload, n_pairs: int) -> Iterator[Costs]:
    """Streamed against held images, from a file that the kernel knows and from one that it has forgotten."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".streaming-") as place:  # a disk, where /tmp may be none
        path = Path(place) / "train.npy"
        streamed = replace(held, dataset=replace(held.dataset, train=in_file(held.dataset, path)))
        check_alike(held, streamed)
        for where in ("known", "cold"):
            order, pairs = random.Random(0), list[dict[bool, Report]]()
            for _ in range(n_pairs):
                pair: dict[bool, Report] = {}
                for is_streamed in order.sample((True, False), 2):
                    if where == "cold":
                        forget(path)
                    pair[is_streamed] = (streamed if is_streamed else held).ours()[0]
                pairs.append(pair)
            yield Costs(
                held.dataset.size,
                len(held.dataset.train.y),
                where,
                [pair[True].train_seconds / pair[False].train_seconds for pair in pairs],
                [pair[True].wall_seconds / pair[False].wall_seconds for pair in pairs],
                1000 * median(pair[False].train_seconds for pair in pairs) / held.n_steps,
            )


def in_file(dataset: Dataset, path: Path) -> Images:
    """The training images, streamed from a file that is on the disk as a whole."""
    images = dataset.train
    assert isinstance(images.x, torch.Tensor)
    with path.open("wb") as file:
        np.save(file, images.x.permute(0, 2, 3, 1).cpu().numpy())
        os.fsync(file.fileno())
    return Images(Streamed(Stored.at(path), device=images.y.device), images.y)


def forget(path: Path) -> None:
    """Has the kernel drop what it keeps of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_alike(held: Workload, streamed: Workload) -> None:
    """Warms both up.

    Raises:
        RuntimeError: they do not reach the same weights.
    """
    (one, mine), (other, theirs) = held.ours(), streamed.ours()
    same = all(map(torch.equal, mine.state_dict().values(), theirs.state_dict().values()))
    if held.dataset.train.y.device.type == "cpu" and not (same and one.loss == other.loss):
        raise RuntimeError("the two trainings do not reach the same weights: they do not do the same work")
    gc.collect()


if __name__ == "__main__":
    sys.exit(main())
