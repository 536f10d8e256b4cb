"""Runs a scripted study under faults and checks what is left: python -m tests.search.soak [--seed N] [--kills N].

Without --kills: two workers, one fault of each kind (rows 1, 5, 6, 7, 8, 21, 24, 25, 27 of tests/README.md) in an order
that the seed decides, and disturbed trainings (row 26). With --kills: so many random kills of the program or a worker.
What does not hold ends in a traceback.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import optuna

from objectives.task import Seeds
from search.database import storage
from search.study import confirmation, opening, records, repeats
from search.study.confirmation import SHARE
from search.study.snapshot import RIVALS
from tests.search.conftest import TOML
from tests.search.place import Place, check_whole, is_gone
from tests.search.program import FACTS, curve

FAULTS = ("kill_program", "out_of_memory", "SIGSEGV", "SIGKILL", "inf", "hang", "stop", "device_lost", "device_lost")
N_TRIALS = 40
LIMIT, SEEDS = 2, 1  # repeats of a trial, confirmations of a point
FLOOR = opening.default_floor("plain", FACTS["data"])
DISTURBED = {str(number): 2.0 for number in (0, 1, 6, 7, 8, *range(20, 60, 3))}  # trainings, and times that they take
WORDS = ("--study", "tiny", "-v", "--device", "cpu:2", "--sampler", "random")
FINISHED = re.compile(r"^  trial (\d+): ([\d.]+)% after ([\d.]+) s$")


def main() -> int:
    """0, or an assertion that does not hold."""
    p = argparse.ArgumentParser(prog="python -m tests.search.soak", description=(__doc__ or "").partition(":")[0])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--kills", type=int, default=0, help="random kills instead of one fault of each kind")
    options = p.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began, draw = time.monotonic(), random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="frontrunner-soak-") as folder:
        soak = Soak(Path(folder), draw)
        starts = soak.killed(options.kills) if options.kills else soak.scheduled()
        n_trials = soak.check()
    kind = f"{options.kills} kills" if options.kills else f"{len(FAULTS) + 2} faults"
    said = f"{kind}, {starts} starts, {n_trials} trials in all, {soak.n_acknowledged} results acknowledged and kept"
    print(f"soak, seed {options.seed}: {said}; {time.monotonic() - began:.0f} s")
    return 0


class Soak:
    """A study that is run until it is complete, whatever happens on the way."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        (folder / "studies").mkdir()
        toml = TOML.replace("repeats = 0", f"repeats = {LIMIT}").replace("confirm = 0", f"confirm = {SEEDS}")
        (folder / "studies" / "tiny.toml").write_text(toml)
        self.place, self._draw = Place(folder), draw
        self._acknowledged: dict[int, tuple[str, str]] = {}  # trial: accuracy and seconds as they were printed
        self._pids: set[int] = set()
        self._n_trials = N_TRIALS

    @property
    def n_acknowledged(self) -> int:
        """Results that the program said it had recorded."""
        return len(self._acknowledged)

    def scheduled(self) -> int:
        """One fault of each kind; how often the program was started."""
        places = self._draw.sample(range(2, N_TRIALS), len(FAULTS))
        self.place.script(dict(zip(places, FAULTS, strict=True)), pause=0.02, hang=2.0, busy=10.0, slow=DISTURBED)
        others = [self._lock_the_database, self._interrupt]
        starts, code = 0, None
        while code != 0:
            starts += 1
            assert starts < 20, "the study does not come to its end"
            code = self._start(others.pop() if others else None)
        return starts

    def killed(self, n: int) -> int:
        """Random kills of the program or of one of its processes; how often the program was started."""
        self.place.script(pause=0.01, hang=5.0)
        self._n_trials = 10**6  # never complete while it is being killed
        starts = kills = 0
        while kills < n:
            starts += 1
            most = n - kills
            self._start(lambda pid, most=most: self._kill(pid, most))  # type: ignore[misc]
            kills += self._n_kills
        self._n_trials = 20 + records.n_counted(self.place.trials())
        while self._start(None) != 0:
            starts += 1
        return starts + 1

    def check(self) -> int:
        """What must hold in the end; the number of trials, retries and lost ones included."""
        trials = self.place.trials()
        check_whole(trials, self._n_trials)
        assert not repeats.pending(trials, FLOOR, LIMIT), "a disturbed trial was not timed again"
        assert not confirmation.pending(trials, FLOOR, SEEDS, SHARE), "a point was not confirmed"
        assert any(map(records.is_confirmation, trials)), "nothing was confirmed"
        for number, (accuracy, seconds) in self._acknowledged.items():
            told = trials[number].values
            assert told is not None, f"trial {number} was acknowledged and is lost"
            assert (f"{100 * told[1]:.2f}", f"{told[0]:.2f}") == (accuracy, seconds), f"trial {number} changed"
        for trial in filter(records.is_finished_run, trials):
            seeds = Seeds.of(0, trial.user_attrs.get(records.SEED_TRIAL, trial.number))
            seconds, accuracy = curve(records.pipeline(trial), seeds)[-1]
            slow = 2.0 if trial.user_attrs.get(records.NOISY) else 1.0
            assert trial.values == [seconds * slow, accuracy], f"trial {trial.number} is not its curve"
        networks = {path.name for path in (self.place.folder / "studies" / "artifacts" / "tiny").glob("trial-*")}
        missing = {f"trial-{point.trial:05d}" for point in records.pareto_front(trials, FLOOR)} - networks
        assert not missing, "networks of the front are missing"
        now = opening.seen("tiny", storage.open_storage(self.place.url))
        assert now.choice is not None
        latest = (now.fresh_of(now.choice) or [now.choice])[-1].number
        assert f"trial-{latest:05d}" in networks, "nothing says how sure a network of the choice may be"
        kept = repeats.kept(trials, FLOOR, LIMIT) | {t.number for t in confirmation.untested(trials, FLOOR, {})}
        more = networks - {f"trial-{number:05d}" for number in kept}
        assert len(more) <= RIVALS, "networks are kept that nothing brings back"
        assert all(is_gone(pid) for pid in self._pids), "a process was left behind"
        left = [path for path in self.place.folder.rglob("*") if "partial" in path.name or path.parent.name == "untold"]
        assert not left, f"files were left behind: {left}"
        with sqlite3.connect(self.place.database) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return len(trials)

    def _start(self, meanwhile: Callable[[int], None] | None) -> int:
        """Runs the program to its end, whichever; its exit code."""
        self._n_kills = 0
        with self.place.started(*WORDS, "--n-trials", str(self._n_trials)) as process:
            assert process.stderr is not None
            line = ""
            for line in process.stderr:
                assert "Traceback" not in line, line + process.stderr.read()
                if found := FINISHED.match(line):
                    self._acknowledged[int(found[1])] = (found[2], found[3])
                if line.startswith("trial "):
                    if meanwhile is not None:  # there is something to disturb now
                        Thread(target=meanwhile, args=(process.pid,), daemon=True).start()
                        meanwhile = None
                    self._pids |= set(descendants(process.pid))
            process.wait()
            assert process.returncode in (0, 5, 130, -signal.SIGKILL), f"{process.returncode}: {line}"
            return process.returncode

    def _lock_the_database(self, pid: int) -> None:
        time.sleep(self._draw.random())
        with suppress(sqlite3.Error):
            connection = sqlite3.connect(self.place.database, timeout=30, isolation_level=None)
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(3)
            connection.close()

    def _interrupt(self, pid: int) -> None:
        time.sleep(1 + self._draw.random())
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGINT)

    def _kill(self, pid: int, most: int) -> None:
        """Kills workers and templates, in the end the program, at random moments."""
        for _ in range(min(most, self._draw.randrange(1, 12)) - 1):
            time.sleep(self._draw.random() * 0.6)
            children = descendants(pid)
            if children:
                with suppress(ProcessLookupError):
                    os.kill(self._draw.choice(children), signal.SIGKILL)
                    self._n_kills += 1
        time.sleep(self._draw.random())
        self._n_kills += 1
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Processes below a process, apart from multiprocessing's resource tracker."""
    below = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text():
                    below += [child, *descendants(child)]
    return below


if __name__ == "__main__":
    sys.exit(main())
