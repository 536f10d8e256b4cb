"""What the search itself costs: python -m benchmarks.overhead.

CPU milliseconds and commits of a question, of the decision whether a trial goes on and of a cold look at a study, by
the number of finished trials; none of it is on the clock of trainings. And a fit of our Gaussian process beside
scikit-learn's. Trials are drawn from the default space and have the results of a world of formulas.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import fmean, median

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState, create_trial

from objectives.task import DataSpec, Task
from search.database import storage
from search.pareto.rules import STOPPING
from search.proposals.draws import Draw, candidate
from search.proposals.experience import Experience
from search.proposals.gaussian_process import Hyperparameters, fitted
from search.simulation.worlds import Analytic
from search.study import opening, records, spec
from search.study.study import Study
from spaces import SPACES
from spaces.restricted import sample
from tests.search.conftest import FACTS

STUDY = """
[data]
name = "digits"
[network]
family = "small"
[space]
epochs = [3, 30]
batch_size = [16, 128]
depth = [1, 2]
[search]
n_trials = 1000
"""
SIZES = (100, 1000, 5000)
SAMPLERS = ("pareto", "tpe", "nsga2", "random")
QUESTIONS = 12  # per size and sampler


def created(folder: Path) -> Study:
    """A fresh study."""
    path = folder / "overhead.toml"
    path.write_text(STUDY)
    name, read = spec.read(str(path))
    database = storage.open_storage(f"sqlite:///{folder}/studies.db")
    return opening.created(name, read, database, FACTS, {"fp32": None, "bf16": None})


def fill(study: Study, n: int) -> None:
    """Adds finished trials until the study has so many."""
    rng, world = (
        np.random.default_rng(len(study.trials())),
        Analytic(Task(DataSpec("digits", n_train=1200), "small"), 8, 200),
    )
    study.optuna.add_trials([_finished(study, world, rng) for _ in range(n - len(study.trials()))])


def _finished(study: Study, world: Analytic, rng: np.random.Generator) -> FrozenTrial:
    space = SPACES[study.spec.space.name]
    drawn = candidate(lambda trial: sample(space, trial, study.given, study.spec.restrictions), Draw(rng))
    (truth,) = world.truths([drawn.chosen])
    seconds, error = 10**truth.log_seconds, 10**truth.log_error
    epochs = drawn.chosen.epochs
    curve = [
        [k, seconds * k / epochs, 1 - min(0.9, error * ratio), 1.0] for k, ratio in enumerate(truth.errors, start=1)
    ]
    words = {records.PIPELINE: drawn.chosen.to_json(), records.WORDS: drawn.chosen.describe(), records.CURVE: curve}
    return create_trial(
        state=TrialState.COMPLETE,
        values=[seconds, curve[-1][2]],
        params=dict(drawn.params),
        distributions=dict(drawn.distributions),
        user_attrs=words,
    )


def question(study: Study, sampler: str) -> tuple[float, float, float]:
    """(median, mean CPU ms of a question, commits of one) where that sampler is asked."""
    search = study.spec.search.model_copy(update={"sampler": sampler})
    asking = replace(study, spec=study.spec.model_copy(update={"search": search}), experience=Experience())
    spent, commits = [], _Commits(study)
    for k in range(QUESTIONS + 1):
        n, began = commits.n, time.process_time()
        asked = asking.ask()
        if k > 0:  # the first one imports and fits from nothing
            spent.append((1000 * (time.process_time() - began), commits.n - n))
        study.optuna.tell(asked.number, state=TrialState.FAIL)
    return median(ms for ms, _ in spent), fmean(ms for ms, _ in spent), median(n for _, n in spent)


class _Commits:
    """Counts the commits of a database that wrote something."""

    def __init__(self, study: Study) -> None:
        self.n, self._has_written = 0, False
        sqlalchemy.event.listen(study.database.optuna.engine, "commit", self._count)
        sqlalchemy.event.listen(study.database.optuna.engine, "before_cursor_execute", self._look)

    def _count(self, _: object) -> None:
        self.n += self._has_written
        self._has_written = False

    def _look(self, _connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        self._has_written = self._has_written or not statement.lstrip().upper().startswith(("SELECT", "PRAGMA"))


def decision(study: Study) -> float:
    """CPU ms of a snapshot and a decision at the first rung, in a process that has seen the trials before."""
    _ = study.snapshot().curves
    began = time.process_time()
    now = study.snapshot()
    longest = max(now.curves, key=len)
    STOPPING["front"].decide(longest[: len(longest) // 2], now)
    return 1000 * (time.process_time() - began)


def cold(study: Study) -> float:
    """Seconds until a process that has just opened a study knows its front."""
    began = time.process_time()
    opening.stored(study.name, storage.open_storage(study.database.url, create=False)).snapshot().front  # noqa: B018
    return time.process_time() - began


def fits(n_rows: int, n_columns: int) -> tuple[float, float]:
    """CPU ms of a fit of scikit-learn's process and of ours, each with a length scale per column and learnt noise."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    rng = np.random.default_rng(0)
    x = rng.random((n_rows, n_columns))
    y = x[:, 0] + np.sin(3 * x[:, 1]) + 0.2 * rng.standard_normal(n_rows)
    kernel = ConstantKernel() * Matern([1.0] * n_columns, (0.03, 300.0), nu=2.5) + WhiteKernel(0.1)
    theirs = _ms(lambda: GaussianProcessRegressor(kernel, normalize_y=True).fit(x, y))
    return theirs, _ms(lambda: fitted(x, y, np.zeros(n_rows), Hyperparameters.prior(n_columns)))


def _ms(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return 1000 * (time.process_time() - began)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints Markdown."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    options = p.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{date.today()}, {len(os.sched_getaffinity(0))} core(s), load {os.getloadavg()[0]:.1f}\n")
    print("| trials | sampler | ask, median CPU ms | mean | commits | decision, ms | cold open, s |\n|" + "---|" * 7)
    with tempfile.TemporaryDirectory() as folder:
        study = created(Path(folder))
        for size in options.sizes:
            fill(study, size)
            costs = f"{decision(study):.0f} | {cold(study):.1f}"
            for sampler in SAMPLERS:
                middle, mean, commits = question(study, sampler)
                print(f"| {size} | {sampler} | {middle:.0f} | {mean:.0f} | {commits:.0f} | {costs} |", flush=True)
    print("\n| rows x columns | scikit-learn, ms | ours, ms |\n|---|---|---|")
    for n_rows, n_columns in ((100, 20), (300, 30)):
        print("| {} x {} | {:.0f} | {:.0f} |".format(n_rows, n_columns, *fits(n_rows, n_columns)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
