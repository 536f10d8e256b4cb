"""What two runs of a pipeline differ by: python -m benchmarks.noise URL ...

Reads the fresh seeds of all studies of databases (`search.run --minutes`, `confirm --seeds N`) and prints, a line a
study, decades of error between two runs of a pipeline beside what `search.pareto.expectation.noise_of` says of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, stdev

import optuna

from search.database import storage
from search.pareto.expectation import decades_of_error, noise_of
from search.study import opening
from search.study.snapshot import Snapshot

HEAD = ("study", "images that validate", "errors", "pipelines", "fresh seeds", "decades between two", "said", "over it")


@dataclass(frozen=True)
class Seen:
    """The fresh seeds of a pipeline."""

    error: float  # mean, a share
    n: int
    between: float  # decades, of two of them
    said: float


def main() -> None:
    """Prints the table."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.noise", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("urls", nargs="+", metavar="URL", help="of a database: sqlite:///studies/optuna.db")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    together: list[Seen] = []
    for url in p.parse_args().urls:
        database = storage.open_storage(url, create=False)
        for name in optuna.get_all_study_names(database.optuna):
            now = opening.seen(name, database)
            if pipelines := list(seen(now)):
                print(line(name, str(now.n_val), pipelines))
                together += pipelines
    if together:
        print(line("all", "", together))


def seen(now: Snapshot) -> Iterator[Seen]:
    """What fresh seeds of each pipeline say that has two of them."""
    for point in now.points:
        accuracies = [trial.values[1] for trial in now.fresh_of(point)]
        if len(accuracies) > 1:
            error = 1 - fmean(accuracies)
            between = math.sqrt(2) * stdev(map(decades_of_error, accuracies))
            yield Seen(error, len(accuracies), between, noise_of(error, now.n_sure))


def line(name: str, n_val: str, pipelines: list[Seen]) -> str:
    """A study in a row: by pipelines, each as often as its seeds tell of noise."""
    n = sum(each.n - 1 for each in pipelines)
    measured = math.sqrt(sum((each.n - 1) * each.between**2 for each in pipelines) / n)
    said = math.sqrt(sum((each.n - 1) * each.said**2 for each in pipelines) / n)
    over = math.sqrt(sum((each.n - 1) * (each.between / each.said) ** 2 for each in pipelines) / n)
    errors = sorted({f"{100 * each.error:.1f}" for each in pipelines}, key=float)
    shown = "%" if len(errors) == 1 else f"to {errors[-1]} %"
    seeds = sum(each.n for each in pipelines)
    cells = (name, n_val, f"{errors[0]} {shown}", len(pipelines), seeds)
    return f"| {' | '.join(map(str, cells))} | {measured:.3f} | {said:.3f} | {over:.2f} |"


if __name__ == "__main__":
    main()
