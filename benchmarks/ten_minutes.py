"""Test accuracy after 2, 5 and 10 minutes in all: python -m benchmarks.ten_minutes --root DIR --cifar DIR --out FILE.

Three folders of images; beside `python -m search.run --minutes`, a script with Optuna, fastai, and support vector
machines (`benchmarks/contenders`). Minutes are CPU minutes of the whole tree of processes on one core and one thread,
imports and decoding included, predictions not; ours is told minutes on the wall, the same on a quiet core. What counts
is accuracy on images that no contender has seen. Seeds draw other images. Writes one JSON line a run to --out and goes
on where it was interrupted; --report prints the tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.contenders.forecasts import forecast
from benchmarks.contenders.neighbour import neighbours
from benchmarks.contenders.results import ONCE, Cell, Result, read, tables
from benchmarks.folders import SOURCES, Drawn, drawn
from objectives.host.children import die_with_parent

OURS = "ours"
CONTENDERS = (OURS, "optuna", "fastai", *ONCE)
HERE = Path(__file__).resolve().parent.parent
POLL = 0.25  # seconds between two looks at what has been exported
TICK = os.sysconf("SC_CLK_TCK")  # of the clock in /proc
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Ran:
    """How a command went."""

    output: dict[str, Any]  # the JSON object that it printed
    cpu_seconds: float  # of the process and all that it waited for
    wall_seconds: float
    began: float  # by the monotonic clock
    curve: tuple[tuple[float, float], ...]  # (CPU seconds, validation accuracy of the best network exported so far)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """All runs, seed by seed; what ends when it is done is run once, with the largest budget."""
    for seed in range(options.seeds):
        for folder in options.folders:
            for minutes in options.minutes:
                for contender in options.contenders:
                    if contender not in ONCE or minutes == max(options.minutes):
                        yield Cell(folder, contender, minutes, seed)


def run(cell: Cell, data: Drawn, core: int, ours: str, keep: Path | None = None) -> Result:
    """One contender with one budget. `keep`: where its study stays, if it is ours.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory(dir=data.folder.parent, prefix=".run-") as place:
        if cell.contender == OURS:
            result = _ours(cell, data, Path(place), core, ours)
            if keep is not None:
                shutil.copytree(Path(place) / "studies", keep / f"{cell.folder}-{cell.minutes:g}-{cell.seed}")
            return result
        budget = ["--seconds", str(60 * cell.minutes), "--seed", str(cell.seed)]
        ran = watched(_contender(cell.contender, data.shown, data, *budget), Path(place), core)
    told, seconds = ran.output, ran.output["cpu_seconds"]
    curve = [tuple(point) for point in told["curve"]]
    return Result(
        **asdict(cell),
        accuracy=told["accuracy"],
        n_test=told["n_test"],
        cpu_seconds=seconds,
        wall_seconds=told["ready_at"] - ran.began,
        predict_seconds=told["predict_seconds"],
        told=told["told"],
        interval=None,
        first_usable_seconds=curve[0][0] if curve else seconds,
        curve=curve,
        about=told["about"],
        date=str(date.today()),
    )


def _ours(cell: Cell, data: Drawn, place: Path, core: int, ours: str) -> Result:
    """`search.run` in a working directory and with a cache of its own, then its network on the hidden images."""
    words = shlex.split(ours.format(minutes=cell.minutes, seconds=60 * cell.minutes))
    command = [sys.executable, "-m", "search.run", "--data", f"folder:{data.shown}", "--seed", str(cell.seed), "--json"]
    ran = watched([*command, *words], place, core)
    network, told, interval = _network(ran.output, place)
    described = json.loads((network / "model.json").read_text())
    asked = alone = watched(_contender("exported", network, data), place, core)
    if described["test_time_flip"]:
        alone = watched(_contender("alone", network, data), place, core)
    return Result(
        **asdict(cell),
        accuracy=asked.output["accuracy"],
        n_test=asked.output["n_test"],
        cpu_seconds=ran.cpu_seconds,
        wall_seconds=ran.wall_seconds,
        predict_seconds=asked.cpu_seconds,
        told=told,
        interval=interval,
        first_usable_seconds=ran.curve[0][0] if ran.curve else ran.cpu_seconds,
        curve=list(ran.curve),
        about={
            **{"network": network.name, "trials": ran.output["trials"], "pipeline": described["pipeline"]},
            "alone": alone.output["accuracy"],  # of images without their mirror images
            "forecast": forecast(place / "studies", cell.minutes, ran.wall_seconds),
        },
        date=str(date.today()),
    )


def _network(result: dict[str, Any], place: Path) -> tuple[Path, float, tuple[float, float] | None]:
    """(folder of the network that a user would take, the accuracy it was promised to have, its interval)."""
    if refit := result.get("refit"):
        return place / refit["folder"], refit["accuracy"], refit["interval"]
    if not result["front"]:
        raise RuntimeError("nothing on the front")
    confirmed = [point for point in result["front"] if point["confirmed"]]
    best = max(confirmed or result["front"], key=lambda point: (point["confirmed"] or point)["val_accuracy"])
    folder = next(place.glob(f"studies/artifacts/*/trial-{best['trial']:05d}"))
    promised = best["confirmed"] or best
    return folder, promised["val_accuracy"], promised.get("val_accuracy_interval")


def _contender(name: str, shown: Path, data: Drawn, *words: str) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.contenders", name]
    return [*command, "--shown", str(shown), "--hidden", str(data.hidden), *words]


def watched(command: Sequence[str], place: Path, core: int) -> Ran:
    """A command in a folder, on one core and one thread: what it printed and took, and when it exported what.

    Raises:
        RuntimeError: it failed.
    """
    own = {"XDG_CACHE_HOME": str(place / "cache"), "FRONTRUNNER_RUN_DIR": str(place / "locks")}  # of no earlier run
    environment = {**os.environ, **ONE_THREAD, **own, "PYTHONPATH": str(HERE)}
    curve: list[tuple[float, float]] = []
    with (place / "output").open("wb") as output, (place / "errors").open("wb") as errors:
        began = time.monotonic()
        settings: dict[str, Any] = {"start_new_session": True, "preexec_fn": die_with_parent}
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=output, stderr=errors, **settings)
        try:
            os.sched_setaffinity(process.pid, {core})
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                best = _best_exported(place)
                if best > (curve[-1][1] if curve else -1):
                    curve.append((_session_seconds(process.pid), best))
                time.sleep(POLL)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        wall = time.monotonic() - began
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
    if process.returncode:
        said = (place / "errors").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{shlex.join(command)} ended with {process.returncode}\n{said}")
    printed = (place / "output").read_text(errors="replace")
    try:
        found = json.loads(printed)
    except ValueError as error:
        raise RuntimeError(f"{shlex.join(command)} printed no JSON: {printed[-2000:]}") from error
    return Ran(found, usage.ru_utime + usage.ru_stime, wall, began, tuple(curve))


def _best_exported(place: Path) -> float:
    """The largest validation accuracy among exported networks; -1 without any."""
    best = -1.0
    for description in place.glob("studies/artifacts*/*/*/model.json"):
        with suppress(FileNotFoundError):  # it left the front
            best = max(best, json.loads(description.read_text())["accuracy"] or -1.0)
    return best


def _session_seconds(leader: int) -> float:
    """CPU seconds of the processes of a session so far, and of those that they waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                ticks += sum(map(int, fields[11:15]))
    return ticks / TICK


def play(options: argparse.Namespace) -> int:
    """Runs what --out does not hold; how many runs failed."""
    done, failed = {result.cell for result in read(options.out)}, 0
    options.root.mkdir(parents=True, exist_ok=True)
    for cell in cells(options):
        if cell in done:
            continue
        print(f"{cell} ...", file=sys.stderr, flush=True)
        try:
            data = drawn(cell.folder, cell.seed, options.root, options.cifar)
            with neighbours(options.neighbours, options.core, 1000 * cell.seed):
                result = run(cell, data, options.core, options.ours, options.keep)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            failed += 1
            continue
        with options.out.open("a") as out:
            print(json.dumps(asdict(result)), file=out)
        print(f"    {result.accuracy:.2%} after {result.cpu_seconds:.1f} CPU seconds", file=sys.stderr, flush=True)
    return failed


def main() -> int:
    """Runs the contest, or prints its tables."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.ten_minutes", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--folders", type=_listed, default=list(SOURCES), help=f"default: {','.join(SOURCES)}")
    p.add_argument("--contenders", type=_listed, default=list(CONTENDERS), help=f"default: {','.join(CONTENDERS)}")
    p.add_argument("--minutes", type=lambda words: [float(word) for word in words.split(",")], default=[2.0, 5.0, 10.0])
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--root", type=Path, help="where the folders of images are made")
    p.add_argument("--cifar", type=Path, help="CIFAR-10 as images: train/CLASS and test/CLASS")
    p.add_argument("--out", type=Path, default=Path("ten_minutes.jsonl"), help="file of results, which is continued")
    p.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="default: the last one")
    p.add_argument("--neighbours", type=int, default=0, help="processes on that core that work and rest in turn")
    p.add_argument("--ours", default="--minutes {minutes:g}", help="flags of search.run, with {minutes} or {seconds}")
    p.add_argument("--keep", type=Path, help="where studies of ours are kept, with their databases")
    p.add_argument("--report", action="store_true", help="only print the tables")
    options = p.parse_args()
    unknown = {*options.folders} - {*SOURCES} | {*options.contenders} - {*CONTENDERS}
    if unknown or (options.root is None and not options.report):
        p.error(f"unknown: {', '.join(sorted(unknown))}" if unknown else "--root DIR: where to make the folders")
    failed = 0
    if not options.report:
        options.root = options.root.resolve()
        failed = play(options)
    print("\n".join(tables(read(options.out))))
    return 1 if failed else 0


def _listed(words: str) -> list[str]:
    return words.split(",")


if __name__ == "__main__":
    sys.exit(main())
