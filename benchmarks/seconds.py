"""Equal trainings on a quiet and on a busy CPU: how much their seconds differ. python -m benchmarks.seconds

Trains one pipeline with one seed several times, in turn alone and beside busy neighbours, as many as there are cores,
and prints what a study charges (CPU seconds) beside what the clock on the wall says. At most three minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from statistics import median

import torch

from objectives.device.clock import describe
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Report
from objectives.task import DataSpec, Seeds, Task

TASK = Task(DataSpec("digits", n_train=1200), "small")
PIPELINE = Pipeline(epochs=20, batch_size=64, flip=False)
SEEDS = Seeds(1, 2, 3)
MOST_SECONDS = 180  # of the whole: neighbours end by then in any case
STEPS = 30  # of the reference workload
BUSY = f"import time\nend = time.monotonic() + {MOST_SECONDS}\nwhile time.monotonic() < end: pass"


@contextmanager
def neighbours(n: int) -> Iterator[None]:
    """So many processes that keep a core busy, as long as the block lasts."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n)]
    try:
        time.sleep(0.3)  # until they are at work
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def trained(objective: TrainingObjective) -> tuple[Report, float]:
    """(the last report of a training, seconds of a step of the reference workload just after it)."""
    *_, last = objective.reports(PIPELINE, SEEDS)
    return last, objective.reference(STEPS).step_seconds


def spread(seconds: list[float]) -> str:
    """Range over median."""
    return f"{(max(seconds) - min(seconds)) / median(seconds):.1%}"


def main() -> int:
    """Prints a Markdown table."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.seconds", description=(__doc__ or "").partition(":")[0])
    p.add_argument("--pairs", type=int, default=6, help="trainings alone, and as many beside neighbours")
    p.add_argument("--neighbours", type=int, default=len(os.sched_getaffinity(0)))
    options = p.parse_args()
    end = time.monotonic() + MOST_SECONDS
    objective = TrainingObjective(TASK, "cpu")
    first, _ = trained(objective)  # warms up; how long one takes
    runs: dict[str, list[tuple[Report, float]]] = {"alone": [], f"beside {options.neighbours} busy neighbours": []}
    for _ in range(options.pairs):
        if time.monotonic() + 8 * first.wall_seconds > end:
            break
        for (name, found), n in zip(runs.items(), (0, options.neighbours), strict=True):
            with neighbours(n) if n else nullcontext():
                found.append(trained(objective))
            assert found[-1][0].accuracy == first.accuracy, f"{name}: another training"
    print(f"{date.today()}, {describe(torch.device('cpu')).model}, {os.cpu_count()} cores, torch {torch.__version__}, ")
    print(f"`python -m benchmarks.seconds --pairs {options.pairs} --neighbours {options.neighbours}`\n")
    print("| trainings | n | CPU s, median | spread | wall s, median | spread | reference workload, ms | spread |")
    print("|---|---|---|---|---|---|---|---|")
    together = [each for found in runs.values() for each in found]
    for name, found in [*runs.items(), ("all", together)]:
        columns = [
            [report.train_seconds for report, _ in found],
            [report.wall_seconds for report, _ in found],
            [1000 * step for _, step in found],
        ]
        cells = [f"{median(column):.3f} | {spread(column)}" for column in columns]
        print(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
