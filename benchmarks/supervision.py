"""What supervision costs: overhead per trial, and seconds in a worker against seconds in this process.

    taskset -c 0 python -m benchmarks.supervision

Overhead is wall time around the training with a warm worker: recording, deciding, telling, exporting, without the
question to the sampler. The pairs train the same pipelines with the same seeds, once in a worker process and once here,
in random order; a ratio of 1 says that a worker measures what a bare training does.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from statistics import mean, median, stdev

import optuna
import torch

from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Report
from objectives.task import DataSpec, Seeds, Task
from search import opening, spec, storage, trial
from search.display import Display
from search.objective import Objective, preparation
from search.study import Study
from search.worker import WorkerProcess

TASK = Task(DataSpec("digits", n_train=1200), "small")
STUDY = """
[data]
name = "digits"
n_train = 1200
[network]
family = "small"
[space]
epochs = [4, 8]
batch_size = [64, 128]
[search]
n_trials = 1000
stopping = "none"
"""
T_95 = 2.045  # Student's t, 29 degrees of freedom, two-sided 95 %


class Timed:
    """An objective that notes how long its trainings took, evaluation and set-up included."""

    def __init__(self, objective: Objective) -> None:
        self._objective, self.seconds = objective, 0.0
        self.facts, self.number_formats, self.close = objective.facts, objective.number_formats, objective.close
        self.reference = objective.reference
        self.export_seconds = 0.0

    def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
        self.seconds = self.export_seconds = 0.0
        with closing(self._objective.reports(pipeline, seeds)) as running:
            while True:
                began = time.perf_counter()
                report = next(running, None)
                self.seconds += time.perf_counter() - began
                if report is None:
                    return
                yield report

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        began = time.perf_counter()
        self._objective.export(folder, about)
        self.export_seconds = time.perf_counter() - began


def overheads(worker: Objective, n: int) -> tuple[list[float], list[float], list[float]]:
    """Per trial: seconds outside the training, CPU seconds of this process, seconds of the question to the sampler."""
    with tempfile.TemporaryDirectory() as folder:
        study = _study(Path(folder), worker)
        timed, outside, computing, asking = Timed(worker), [], [], []
        for _ in range(n):
            began = time.perf_counter()
            asked = study.ask()
            asking.append(time.perf_counter() - began)
            began, computed = time.perf_counter(), time.process_time()
            trial.run(study, asked, timed, Display(), math.inf)
            outside.append(time.perf_counter() - began - timed.seconds)
            computing.append(time.process_time() - computed)
        return outside, computing, asking


def ratios(worker: Objective, here: Objective, n: int) -> list[tuple[float, float]]:
    """(train_seconds, CPU seconds) in the worker divided by those in this process, per pair."""
    draw, found = random.Random(0), []
    for number in range(n + 1):
        pipeline = Pipeline(batch_size=64, epochs=6, number_format="bf16" if number % 2 else "fp32")
        pair = [("worker", worker), ("here", here)]
        draw.shuffle(pair)
        last = {name: list(each.reports(pipeline, Seeds.of(0, number)))[-1] for name, each in pair}
        if number:  # the first one warms both up
            there, own = last["worker"], last["here"]
            found.append((there.train_seconds / own.train_seconds, there.process_seconds / own.process_seconds))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval."""
    logs = [math.log(value) for value in values]
    half = T_95 * stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean(logs)), math.exp(mean(logs) - half), math.exp(mean(logs) + half)


def main() -> int:
    """Prints both results."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.supervision", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--trials", type=int, default=40)
    p.add_argument("--pairs", type=int, default=30)
    options = p.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"{date.today()}, {platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"{len(os.sched_getaffinity(0))} core(s), load {os.getloadavg()[0]:.1f}")
    with closing(WorkerProcess(preparation(TASK, "cpu"), fresh=True)) as worker:
        outside, computing, asking = overheads(worker, options.trials)
        found = [1000 * each for each in (median(outside), max(outside), median(computing), median(asking))]
        print(
            "outside training: median {:.1f} ms, worst {:.1f} ms, {:.1f} ms of it CPU time here; ".format(*found),
            end="",
        )
        print(f"asking: median {found[3]:.1f} ms ({len(outside)} trials)")
        pairs = ratios(worker, TrainingObjective(TASK, "cpu"), options.pairs)
    for name, each in zip(("train_seconds", "CPU seconds"), zip(*pairs, strict=True), strict=True):
        middle, low, high = interval(each)
        print(f"{name}, worker / in process: {middle:.4f}, 95 % [{low:.4f}, {high:.4f}] ({len(pairs)} pairs)")
    return 0


def _study(folder: Path, worker: Objective) -> Study:
    path = folder / "supervision.toml"
    path.write_text(STUDY)
    name, read = spec.read(str(path))
    database = storage.open_storage(f"sqlite:///{folder}/optuna.db")
    return opening.created(name, read, database, worker.facts(), worker.number_formats())


if __name__ == "__main__":
    sys.exit(main())
