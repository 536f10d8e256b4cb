"""What it costs to use a front: python -m benchmarks.using [--n-trials 1000] [--n-images 20000].

CPU seconds of `best` and `report` on a study of so many trials, and of `predict` on so many small JPEG files, as whole
programs with all that they start; beside them what decoding and the network take alone. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.overhead import created, fill
from benchmarks.workload import conditions
from objectives.data.decoding import decode_all
from objectives.export import load_model
from objectives.inference import answers, images
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task

CPU = torch.device("cpu")
SIDE = 32  # pixels of the JPEG files, and of what the network takes
FEW = 64  # images that `predict` is run on for what it costs before the first one
ROOT = Path(__file__).parents[1]


def cpu_seconds(words: Sequence[str], folder: Path) -> float:
    """What a command and all that it starts take of the processor.

    Raises:
        CalledProcessError: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "search", *words]
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alone(action: Callable[[], object]) -> float:
    """CPU seconds of this process that an action takes, the second time."""
    action()
    began = time.process_time()
    action()
    return time.process_time() - began


def made_images(place: Path, n: int) -> list[str]:
    """So many JPEG files in two folders: crops of scikit-learn's two photographs."""
    random, photographs = np.random.default_rng(0), load_sample_images().images
    for number in range(n):
        pixels = photographs[number % 2]
        top, left = (int(random.integers(0, side - SIDE)) for side in pixels.shape[:2])
        path = place / f"photograph-{number % 2}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[top : top + SIDE, left : left + SIDE]).save(path, quality=75)
    return sorted(map(str, place.rglob("*.jpg")))


def studies(folder: Path, n_trials: int, times: int) -> None:
    """`best` and `report` of a study."""
    study = created(folder)
    fill(study, n_trials)
    where = ("--study", study.name, "--storage", study.database.url)
    page = folder / "page.html"
    best = [cpu_seconds(["best", *where, "--under-seconds", "5"], folder) for _ in range(times)]
    report = [cpu_seconds(["report", *where, "-o", str(page)], folder) for _ in range(times)]
    print(f"\n| of {n_trials} trials | CPU seconds, least of {times} | most |\n|---|---|---|")
    print(f"| `best` | {min(best):.2f} | {max(best):.2f} |")
    print(f"| `report`, {page.stat().st_size / 1e6:.1f} MB | {min(report):.2f} | {max(report):.2f} |", flush=True)


def predictions(folder: Path, n: int, times: int) -> None:
    """`predict`, and its parts alone."""
    paths = made_images(folder / "images", n)
    few = folder / "few"
    few.mkdir()
    for path in paths[:FEW]:
        (few / Path(path).name).hardlink_to(path)
    task = Task(DataSpec(f"folder:{folder / 'images'}", size=SIDE, n_train=1000), "thin", stem_stride=2)
    objective, model = TrainingObjective(task, "cpu"), folder / "model"
    for _ in objective.reports(Pipeline(epochs=1, depth=1, flip=False, crop=False), Seeds(0, 0, 0)):
        pass
    objective.export(model, {})
    network, some = load_model(model), paths[:2000]
    x = torch.from_numpy(decode_all(some, SIDE).pixels).permute(0, 3, 1, 2)
    parts = {
        "finding the files": alone(lambda: images.found([str(folder / "images")])) / n,
        "decoding alone": alone(lambda: decode_all(some, SIDE)) / len(some),
        "the network alone": alone(lambda: answers.logits(network, x)) / len(some),
    }
    words = ["predict", "--model", str(model), "-o", str(folder / "table.csv"), "--images"]
    start = min(cpu_seconds([*words, str(few)], folder) for _ in range(times))
    whole = min(cpu_seconds([*words, str(folder / "images")], folder) for _ in range(times))
    each = (whole - start) / (n - FEW)
    print(f"\n| `predict`, {n} JPEG files of {SIDE} pixels | images per CPU second | share |\n|---|---|---|")
    print(f"| as a whole, {start:.2f} s before the first image among them | {n / whole:.0f} | |")
    print(f"| after its start | {1 / each:.0f} | 100 % |")
    for name, seconds in parts.items():
        print(f"| {name} | {1 / seconds:.0f} | {seconds / each:.0%} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, in a folder for temporary files."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.using", description=__doc__.partition("\n")[0])
    parser.add_argument("--n-trials", type=int, default=1000)
    parser.add_argument("--n-images", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    print(conditions(CPU, f"python -m benchmarks.using {shlex.join(words)}".rstrip()))
    with tempfile.TemporaryDirectory(prefix="frontrunner-using-") as place:
        studies(Path(place), options.n_trials, options.times)
        predictions(Path(place), options.n_images, options.times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
