"""What supervision costs: overhead per trial, and seconds in a worker against seconds without one.

    python -m benchmarks.supervision

Overhead is wall time around the training with a warm template: recording, deciding, telling, exporting, replacing the
worker, without the question to the sampler. Then the same pipelines are trained with the same seeds, in random order,
by a worker of a study, by a process that nobody watches, and by workers that have trained other networks before; a
ratio of 1 says that a worker measures what a bare training does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import date
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev

import optuna
import torch

from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Report
from objectives.task import DataSpec, Seeds, Task
from search import trial
from search.database import storage
from search.study import opening, spec
from search.study.study import Study
from search.views.display import Display
from search.workers.process import WorkerProcess
from search.workers.seam import Objective, preparation

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
PAIR_EPOCHS = 12  # two thirds of a second each
KEPT = 3  # workers that were not replaced
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


class Bare:
    """Trains in a fork of this process, as a worker is one of its template, but with nobody to answer to."""

    def __init__(self, objective: TrainingObjective) -> None:
        self._objective = objective

    def last(self, pipeline: Pipeline, seeds: Seeds) -> Report:
        """The last report of the training."""
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            *_, last = self._objective.reports(pipeline, seeds)
            os.write(theirs, json.dumps(last.to_json()).encode())
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return Report.from_json(json.loads(said))


def seconds(trained: Mapping[str, Callable[[Pipeline, Seeds], Report]], n: int) -> list[dict[str, Report]]:
    """The last reports of the same trainings, each done in every one of the ways."""
    draw, found = random.Random(0), []
    for number in range(n + 1):
        pipeline = Pipeline(batch_size=64, epochs=PAIR_EPOCHS, number_format="bf16" if number % 2 else "fp32")
        order = list(trained)
        draw.shuffle(order)
        found.append({name: trained[name](pipeline, Seeds.of(0, number)) for name in order})
    return found[1:]  # the first ones warm all up


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval."""
    logs = [math.log(value) for value in values]
    half = T_95 * stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean(logs)), math.exp(mean(logs) - half), math.exp(mean(logs) + half)


def main() -> int:
    """Prints all results."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.supervision", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--trials", type=int, default=15)
    p.add_argument("--rounds", type=int, default=30)
    options = p.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"{date.today()}, {platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"{len(os.sched_getaffinity(0))} core(s), load {os.getloadavg()[0]:.1f}", flush=True)
    with ExitStack() as stack:
        worker, *kept = [
            stack.enter_context(closing(WorkerProcess(preparation(TASK, "cpu"), fresh=not number)))
            for number in range(1 + KEPT)
        ]
        outside, computing, asking = overheads(worker, options.trials)
        found = [1000 * each for each in (median(outside), max(outside), median(computing), median(asking))]
        print("outside training: median {:.1f} ms, worst {:.1f} ms, CPU time here {:.1f} ms; ".format(*found), end="")
        print(f"asking: median {found[3]:.1f} ms ({len(outside)} trials)", flush=True)
        for each in kept:
            overheads(each, options.trials)
        ways = {"worker": worker, **{f"kept {number}": each for number, each in enumerate(kept)}}
        trained = {"bare": Bare(TrainingObjective(TASK, "cpu")).last, **{k: partial(_last, v) for k, v in ways.items()}}
        rounds = seconds(trained, options.rounds)
    for name in ways:
        for what in ("train_seconds", "wall_seconds"):
            ratios = [getattr(reports[name], what) / getattr(reports["bare"], what) for reports in rounds]
            middle, low, high = interval(ratios)
            print(f"{what}, {name} / bare: {middle:.4f}, 95 % [{low:.4f}, {high:.4f}], median {median(ratios):.4f}")
    return 0


def _last(objective: Objective, pipeline: Pipeline, seeds: Seeds) -> Report:
    *_, last = objective.reports(pipeline, seeds)
    return last


def _study(folder: Path, worker: Objective) -> Study:
    path = folder / "supervision.toml"
    path.write_text(STUDY)
    name, read = spec.read(str(path))
    database = storage.open_storage(f"sqlite:///{folder}/optuna.db")
    return opening.created(name, read, database, worker.facts(), worker.number_formats())


if __name__ == "__main__":
    sys.exit(main())
