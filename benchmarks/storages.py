"""What a shared study asks of its database: trials, heartbeats and bytes, in SQLite and in PostgreSQL.

    python -m benchmarks.storages

Processes share one study and do nothing but ask and tell (a curve of 20 epochs each), or nothing but beat: an upper
bound, since trainings do both rarely. The server is made for it from Debian's package, with durable commits.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median

import optuna
import sqlalchemy
from optuna.storages import RDBStorage

from search.database import disk, storage
from search.study import opening, queue, records, spec
from search.study.results import Result
from search.study.study import Study
from tests.search.database.postgres import NotInstalled, running
from tests.search.place import Place
from tests.search.program import FACTS, report

NAME = "shared"
STUDY = """
[data]
name = "digits"
[network]
family = "small"
[space]
epochs = [2, 20]
batch_size = [16, 128]
[search]
n_trials = 1000
sampler = "random"
stopping = "none"
"""
FORMATS = {"fp32": None, "bf16": None}
PROCESSES = (1, 2, 4, 8)
SIZES = (100, 1000, 5000)
QUESTIONS = 5  # per size and sampler
EPOCHS = 20


def created(url: str) -> Study:
    """A fresh study in the database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{NAME}.toml"
        path.write_text(STUDY)
        name, read = spec.read(str(path))
    return opening.created(name, read, storage.open_storage(url), FACTS, FORMATS)


def told(study: Study, number: int) -> None:
    """Tells the result of a training of EPOCHS epochs."""
    reports = [report(epoch, EPOCHS, 1.5 * epoch, 0.9 - 0.5 / epoch) for epoch in range(1, EPOCHS + 1)]
    attributes = records.explanation(reports, [each.accuracy for each in reports])
    study.tell(Result(number, "COMPLETE", (1.5 * EPOCHS + number / 1000, 0.875), attributes, violation=-0.5))


def asking(url: str, deadline: float) -> tuple[list[float], list[float]]:
    """Seconds of each claim, and of each tell, of a process that does nothing else until the time (of the clock)."""
    study, claims, tells = _stored(url), [], []
    while time.time() < deadline:
        began = time.perf_counter()
        asked = queue.claim(study, 10**9)
        claims.append(time.perf_counter() - began)
        assert asked is not None
        began = time.perf_counter()
        told(study, asked.number)
        tells.append(time.perf_counter() - began)
    return claims, tells


def beating(url: str, deadline: float) -> int:
    """Heartbeats that a process writes until the time, one trial each."""
    study, n = _stored(url), 0
    asked = queue.claim(study, 10**9)
    assert asked is not None
    while time.time() < deadline:
        study.heartbeat([asked._trial_id])
        n += 1
    return n


def rates(url: str, n: int, seconds: float) -> tuple[float, float, float, float]:
    """(trials a second, median ms of a claim, of a tell, heartbeats a second) of so many processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n, context) as pool:
        list(pool.map(_warm, [url] * n))
        deadline = time.time() + seconds
        each = list(pool.map(asking, [url] * n, [deadline] * n))
        deadline = time.time() + seconds / 2
        beats = sum(pool.map(beating, [url] * n, [deadline] * n))
    claims, tells = ([s for pair in each for s in pair[k]] for k in (0, 1))
    return len(claims) / seconds, 1000 * median(claims), 1000 * median(tells), beats / (seconds / 2)


def fill(study: Study, n: int) -> None:
    """Copies finished trials until the study has so many."""
    finished = [trial for trial in study.trials() if trial.state.is_finished()]
    missing = max(0, n - len(study.trials()))
    study.optuna.add_trials([finished[k % len(finished)] for k in range(missing)])


def questions(study: Study, sampler: str) -> float:
    """Median ms of a claim where that sampler is asked."""
    search = study.spec.search.model_copy(update={"sampler": sampler})
    other, seconds = replace(study, spec=study.spec.model_copy(update={"search": search})), []
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        asked = queue.claim(other, 10**9)
        seconds.append(time.perf_counter() - began)
        assert asked is not None
        told(other, asked.number)
    return 1000 * median(seconds)


def starts(place: Place, n: int, n_trials: int) -> float:
    """Trials a second of so many runs of the program that start at once, each with a worker that trains nothing."""
    (place.folder / "studies").mkdir()
    (place.folder / "studies" / f"{NAME}.toml").write_text(STUDY)
    place.script()
    words = ("--study", NAME, "--device", "cpu", "--workers", str(n), "--n-trials", str(n_trials), "-q")
    began = time.perf_counter()
    with ExitStack() as stack:
        processes = [stack.enter_context(place.started(*words)) for _ in range(n)]
        said = [process.communicate() for process in processes]
    seconds = time.perf_counter() - began
    assert all(process.returncode in (0, 4) for process in processes), said
    trials = place.trials(NAME)
    assert records.n_counted(trials) == n_trials == len(trials)
    return n_trials / seconds


def n_bytes(study: Study) -> int:
    """What the database takes on the disk."""
    if storage.sqlite_path(study.database.url) is not None:
        return disk.database_bytes(study.database.url) or 0
    with study.database.optuna.engine.connect() as connection:
        size = connection.execute(sqlalchemy.text("SELECT pg_database_size(current_database())")).scalar()
    assert isinstance(size, int)
    return size


@contextmanager
def databases(names: list[str]) -> Iterator[dict[str, Callable[[], str]]]:
    """By name, what gives the URL of an empty database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: dict[str, Callable[[], str]] = {}
        if "sqlite" in names:
            found["sqlite"] = lambda: f"sqlite:///{tempfile.mkdtemp(dir=folder)}/optuna.db"
        if "postgresql" in names:
            try:
                found["postgresql"] = stack.enter_context(running(durable=True)).database
            except NotInstalled as error:
                print(f"postgresql: left out: {error}")
        yield found


def main() -> int:
    """Prints one table per question."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.storages", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--storages", nargs="+", default=["sqlite", "postgresql"])
    p.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    p.add_argument("--n-trials", type=int, default=64, help="of the study that 8 runs start at once")
    options = p.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{date.today()}, {platform.processor() or platform.machine()}, optuna {optuna.__version__}, ", end="")
    print(f"{len(os.sched_getaffinity(0))} core(s), load {os.getloadavg()[0]:.1f}")
    with databases(options.storages) as found:
        print("| database | processes | trials/s | claim, median ms | tell, median ms | heartbeats/s |")
        for name, fresh in found.items():
            for n in PROCESSES:
                url = fresh()
                created(url)
                trials, claim, tell, beats = rates(url, n, options.seconds)
                print(f"| {name} | {n} | {trials:.1f} | {claim:.1f} | {tell:.1f} | {beats:.0f} |", flush=True)
        print("| database | trials | claim (random), ms | claim (tpe), ms | kB per trial |")
        for name, fresh in found.items():
            _print_growth(name, created(fresh()))
        for name, fresh in found.items():
            with tempfile.TemporaryDirectory() as folder:
                place = Place(Path(folder), None if name == "sqlite" else fresh())
                rate = starts(place, 8, options.n_trials)
            print(f"{name}: 8 runs started at once, {options.n_trials} trials in all: {rate:.2f} trials/s", flush=True)
    return 0


def _print_growth(name: str, study: Study) -> None:
    empty = n_bytes(study)
    asking(study.database.url, time.time() + 3)
    for size in SIZES:
        fill(study, size)
        n = len(study.trials())
        cells = [f"{questions(study, sampler):.0f}" for sampler in ("random", "tpe")]
        print(f"| {name} | {size} | {' | '.join(cells)} | {(n_bytes(study) - empty) / n / 1000:.1f} |", flush=True)


def _stored(url: str) -> Study:
    return opening.stored(NAME, storage.open_storage(url, create=False))


def _warm(url: str) -> None:
    """Imports what a process needs, and waits until the others do."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    RDBStorage(url).engine.dispose()
    time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
