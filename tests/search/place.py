"""A working directory with a study, and the real program run in it with a scripted objective."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.study import records

REPOSITORY = Path(__file__).parents[2]
START = 'exec "$@"'  # in words of a shell, how a command is started

PATIENCE = 900.0  # seconds until a program counts as hung: no neighbour of a test decides it


@dataclass(frozen=True)
class Place:
    """The folder that commands run in."""

    folder: Path
    server: str | None = None  # URL of a database that is used instead of an SQLite file

    @property
    def url(self) -> str:
        return self.server or f"sqlite:///{self.folder}/studies/optuna.db"

    @property
    def database(self) -> Path:
        return self.folder / "studies" / "optuna.db"

    def script(self, faults: Mapping[int | str, str] | None = None, **settings: object) -> None:
        """Says what will happen to the trainings to come; they are counted anew."""
        for counter in self.folder.glob("*.count"):
            counter.unlink()
        plain = {"faults": {str(number): fault for number, fault in (faults or {}).items()}, **settings}
        (self.folder / "script.json").write_text(json.dumps(plain))

    def run(self, *words: str, module: str = "tests.search.program", shell: str = START, **environment: str) -> Done:
        """The command, run to its end."""
        with self.started(*words, module=module, shell=shell, **environment) as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    @contextmanager
    def started(
        self, *words: str, module: str = "tests.search.program", shell: str = START, **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """The command at work, in a process group of its own; `shell` has it as `"$@"`."""
        command = [sys.executable, "-W", "error", "-m", module, *words]
        if shell != START:
            command = ["sh", "-c", shell, "sh", *command]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        ours = {
            **{"PYTHONPATH": path, "FRONTRUNNER_RUN_DIR": str(self.folder / "run")},
            **{"SCRIPT": str(self.folder / "script.json")},
            **({"OPTUNA_STORAGE": self.server} if self.server else {}),
        }
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if k != "OPTUNA_STORAGE"} | ours | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def trials(self, name: str = "tiny") -> list[FrozenTrial]:
        """What the database holds."""
        storage = RDBStorage(self.url)
        try:
            return optuna.load_study(study_name=name, storage=storage).get_trials()
        finally:
            storage.engine.dispose()

    def reasons(self, name: str = "tiny") -> list[str]:
        """Why each trial ended; `running` or `waiting` where it did not."""
        return [records.reason(t) if t.state.is_finished() else t.state.name.lower() for t in self.trials(name)]


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Reads what the process says until a line has the text."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}: {''.join(said)}")


def check_whole(trials: Sequence[FrozenTrial], n: int) -> None:
    """What holds for every study that ended, whatever befell it."""
    assert records.n_counted(trials) == n
    assert not [t.number for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    retried = {t.user_attrs.get(records.RETRY_OF) for t in trials}
    counted = [t for t in trials if t.number not in retried and records.reason(t) != records.LOST]
    for repeat in filter(records.is_repeat, counted):
        first = trials[records.first(repeat)]
        assert (repeat.params, repeat.user_attrs[records.SEED_TRIAL]) == (first.params, seed(first))
        assert repeat.values is None or repeat.values[1] == first.values[1]
    for confirmation in filter(records.is_confirmation, counted):
        first = trials[confirmation.user_attrs[records.CONFIRM_OF]]
        assert (confirmation.params, records.first(first)) == (first.params, first.number)
    curves = [(records.is_repeat(t), t.user_attrs.get(records.CURVE)) for t in trials]
    seconds = [(is_repeat, curve[-1][1]) for is_repeat, curve in curves if curve]
    again = sum(each for is_repeat, each in seconds if is_repeat)
    assert again <= 0.1 * sum(each for _, each in seconds if each < math.inf), "repeats took too long"
    counted = [t for t in counted if not records.is_repeat(t)]
    seeds = [seed(t) for t in counted]
    assert len(set(seeds)) == len(seeds), "two trials have one seed"


def seed(trial: FrozenTrial) -> int:
    """The number that its seeds derive from."""
    return int(trial.user_attrs.get(records.SEED_TRIAL, trial.number))


def is_gone(pid: int, seconds: float = PATIENCE) -> bool:
    """Whether a process ends within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
