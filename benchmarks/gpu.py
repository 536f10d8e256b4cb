"""The measurements that need a GPU, in one call of under ten minutes: python -m benchmarks.gpu DATA.

DATA is a folder of images (with a subfolder `train`, or one subfolder per class), or a .tar.xz of one. First the
training benchmark: both families, every number format. Then the executors; seconds to fixed accuracies; and the study
`cifar_pareto` on these images for what is left of the time. Needs no network. Everything is written to $OUT, or to
./bench-out, as soon as it is known.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch

from benchmarks import training
from objectives.data.dataset import load
from objectives.task import DataSpec

ROOT = Path(__file__).resolve().parents[1]
GRACE = 20.0  # seconds for a search to end once its time is up: the last epoch, the export, the tables
PARTS = ("training", "executors", "accuracy", "search")
N_PAIRS = 40  # at most, per row; what ends a row is its share of the seconds


def unpacked(data: Path, place: Path) -> Path:
    """The folder whose subfolders are the classes; an archive is unpacked into `place` first.

    Raises:
        SystemExit: there is no such folder or archive.
    """
    if data.is_file():
        with tarfile.open(data) as archive:
            archive.extractall(place, filter="data")
        data = place
    if not data.is_dir():
        raise SystemExit(f"error: there is no folder or archive {data}: give the path of the images")
    return data / "train" if (data / "train").is_dir() else data


def in_memory() -> Path | None:
    """Where an archive is unpacked: in memory where there is room. Removing 60,000 files took 80 s on a busy disk."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > 2**30 else None


def training_part(images: Path, device: torch.device, budget: float, small: bool, say: Callable[[str], None]) -> None:
    """The training benchmark in `budget` seconds: four fifths for the loops, the rest for the parts."""
    spec = DataSpec(f"folder:{images}", n_train=600 if small else None)
    began = time.monotonic()
    dataset = training.with_few_validation_images(load(spec, device))
    tasks = [training.task_for(family, spec, device, dataset.size) for family in ("thin", "wide")]
    formats, left_out = training.usable_formats(tasks[0], device)
    say(training.conditions(device, f"python -m benchmarks.gpu {shlex.join(sys.argv[1:])}"))
    say(f"Data: {spec.name}, {len(dataset.train.y)} images, {dataset.size}x{dataset.size}x{dataset.channels}.")
    say(f"Batch {training.BATCH}. Images opened in {time.monotonic() - began:.0f} s.")
    say("\n".join([*left_out, "", training.Speed.HEAD]))
    seconds = 0.1 if small else 0.3  # of a run
    end = time.monotonic() + budget
    for result in training.speeds(dataset, tasks, formats, N_PAIRS, seconds, 0.8 * budget):
        say(result.row())
    say(f"\n{training.Cost.HEAD}")
    for part in training.costs(dataset, tasks[0], formats, 7, seconds / 2):
        say(part.row())
        if time.monotonic() > end:
            say("\nTime is up: the other parts are left out.")
            break


def command_part(words: Sequence[str], seconds: float, say: Callable[[str], None]) -> None:
    """Another benchmark of this package, as a command of its own, for at most so many seconds."""
    command = [sys.executable, "-u", "-m", *words]
    say(f"\n    python -m {shlex.join(words)}\n")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip())
        timer.cancel()
    if process.returncode:
        say(f"\nEnded with exit code {process.returncode}, or its {seconds:.0f} s were up.")


def executors_part(device: torch.device, seconds: float, small: bool, say: Callable[[str], None]) -> None:
    """The executors on thin, wide and fast networks."""
    words = ["benchmarks.executors", "--device", str(device), "--batches", *(["32"] if small else ["128", "512"])]
    command_part([*words, *(["--rounds", "2", "--formats", "fp32"] if small else ["--rounds", "9"])], seconds, say)


def accuracy_part(images: Path, device: torch.device, seconds: float, small: bool, say: Callable[[str], None]) -> None:
    """Seconds to fixed accuracies, our ladder of the fast family beside BASELINE and a published recipe."""
    words = [
        "benchmarks.time_to_accuracy",
        "--data",
        f"folder:{images}",
        "--ladder",
        "cifar10",
        "--device",
        str(device),
    ]
    words += ["--family", "fast", "--cap", f"{seconds / 10:.0f}"]
    command_part([*words, *(["--n-train", "500", "--seeds", "1"] if small else ["--seeds", "3"])], seconds, say)


def search_part(
    images: Path, device: torch.device, deadline: float, small: bool, out: Path, say: Callable[[str], None]
) -> None:
    """The study `cifar_pareto` on the images until `deadline` (of `time.monotonic`)."""
    with tempfile.TemporaryDirectory(prefix="frontrunner-") as place:
        database = Path(place) / "study.db"
        timeout = max(10.0, deadline - time.monotonic() - GRACE)
        words = ["--study", "cifar_pareto", "--data", f"folder:{images}", "--device", str(device), "--json", "-v"]
        words += ["--timeout", f"{timeout:.0f}", "--storage", f"sqlite:///{database}"]
        words += ["--n-train", "500"] if small else []
        say(f"\n    python -m search.run {shlex.join(words)}\n")
        with (out / "search.json").open("w") as result, (out / "search.log").open("w") as log:
            command = [sys.executable, "-m", "search.run", *words]
            process = subprocess.Popen(command, cwd=ROOT, stdout=result, stderr=log)
            try:
                code = process.wait(timeout + 2 * GRACE)
            except subprocess.TimeoutExpired:
                process.terminate()  # the trial in flight goes back to the queue
                code = process.wait()
        if database.exists():
            with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(out / "study.db")) as target:
                source.backup(target)  # in one file, whatever still lies in the write-ahead log
    if code:
        log_text = (out / "search.log").read_text()
        say(f"The search ended with exit code {code}; the end of search.log:\n\n{log_text[-2000:]}")
        return
    say(front_table(json.loads((out / "search.json").read_text())))


def front_table(result: dict[str, object]) -> str:
    """The result of `search.run --json` as a short Markdown table."""
    baseline, trials, front = result["baseline"], result["trials"], result["front"]
    assert isinstance(trials, dict)
    assert isinstance(front, list)
    counted = ", ".join(f"{n} {name}" for name, n in trials.items() if name != "by_reason")
    lines = [f"Trials: {counted}.", "", "| trial | seconds | accuracy | pipeline |", "|---|---|---|---|"]
    for point in front + ([baseline] if baseline else []):
        settings = point["pipeline"]
        words = ", ".join(f"{key} {value}" for key, value in settings.items() if value not in (0, 0.0, [], "none"))
        name = f"{point['trial']}{' (BASELINE)' if point is baseline else ''}"
        lines.append(f"| {name} | {point['train_seconds']:.2f} | {point['val_accuracy']:.2%} | {words} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("data", type=Path, help="folder of images, or a .tar.xz of one")
    p.add_argument("--device", default="cuda", help="default: cuda")
    p.add_argument("--training-seconds", type=float, default=90, help="for the training benchmark (default: 90)")
    p.add_argument("--total-seconds", type=float, default=560, help="for everything (default: 560)")
    p.add_argument("--executors-seconds", type=float, default=100, help="for the executors (default: 100)")
    p.add_argument("--accuracy-seconds", type=float, default=150, help="for seconds to accuracies (default: 150)")
    p.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="some parts only")
    p.add_argument("--small", action="store_true", help="a few images: to try this script on a CPU")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts."""
    deadline = time.monotonic()
    options = parser().parse_args(arguments)
    deadline += options.total_seconds
    out = Path(os.environ.get("OUT") or "bench-out").resolve()
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA device here: --device cpu --small tries the script without one")
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(prefix="frontrunner-images-", dir=in_memory()) as place,
        (out / "gpu.md").open("w") as page,
    ):
        images = unpacked(options.data.resolve(), Path(place)).resolve()

        def say(text: str) -> None:
            for stream in (sys.stdout, page):
                print(text, file=stream, flush=True)

        if "training" in options.only:
            training_part(images, device, options.training_seconds, options.small, say)
        if "executors" in options.only:
            executors_part(device, options.executors_seconds, options.small, say)
        if "accuracy" in options.only:
            accuracy_part(images, device, options.accuracy_seconds, options.small, say)
        if "search" in options.only:
            search_part(images, device, deadline, options.small, out, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
