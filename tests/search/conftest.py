"""Small studies: real ones on a few digits, and a scripted objective that replays given curves."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from objectives.pipeline import Pipeline, Reading, Report
from objectives.task import Seeds, Task
from search.__main__ import main
from search.database import storage
from search.host.interruptions import INTERRUPTIONS
from search.study import opening, spec
from search.study.study import Study
from tests.search.place import Done, Place

TOML = """
[data]
name = "digits"
n_train = 200

[network]
family = "small"

[space]
epochs = [2, 4]
batch_size = [32, 64]
depth = [1, 1]

[search]
n_trials = 7
repeats = 0
confirm = 0
"""

FACTS: dict[str, Any] = {
    "device": {"model": "a processor", "driver": "x86_64", "torch": "2.13.0", "threads": 1},
    "timing_version": 1,
    "data": {
        "name": "digits",
        "content": "c",
        "split": "s",
        "size": 8,
        "channels": 1,
        "n_classes": 10,
        "n_train": 200,
        "n_val": 50,
        "flip": False,
        "largest_share": 0.1,
    },
    "executors": {"auto": None, "eager": None, "cuda_graph": "CUDA graphs need an NVIDIA GPU", "compile": None},
    "skipped": [],
    "warnings": [],
}
FORMATS = {"fp32": None, "tf32": "no GPU", "bf16": None, "fp16": "slow"}


@pytest.fixture(scope="session", autouse=True)
def attentive() -> None:
    """Interruptions reach the programs under test, also where the tests run in the background of a shell."""
    for number in INTERRUPTIONS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Done]:
    """Runs a command of the program in this process, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRONTRUNNER_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)

    def run(line: str) -> Done:
        code = main(shlex.split(line))
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A program that ran in this process leaves no handlers behind."""
    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study file of a few seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def place(tmp_path: Path, study_file: Path) -> Place:
    """A working directory with one study, `tiny`, and a script in which nothing happens."""
    (tmp_path / "studies").mkdir()
    study_file.rename(tmp_path / "studies" / "tiny.toml")
    made = Place(tmp_path)
    made.script()
    return made


@pytest.fixture
def new_study(tmp_path: Path, study_file: Path) -> Callable[..., Study]:
    """Makes studies in one database from the small study file, with changes to its `[search]` section."""

    def make(name: str = "tiny", calibration: Mapping[str, object] | None = None, **search: object) -> Study:
        _, read = spec.read(str(study_file))
        changed = read.model_copy(update={"search": read.search.model_copy(update=search)})
        database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
        return opening.created(name, changed, database, FACTS, FORMATS, calibration=calibration)

    return make


@dataclass
class Scripted:
    """An objective whose trainings are given: per trial the (seconds, accuracy) of each epoch, or an exception."""

    trainings: list[list[tuple[float, float]] | BaseException]
    exported: list[Path] = field(default_factory=list)
    trained: list[Pipeline] = field(default_factory=list)
    seeds: list[Seeds] = field(default_factory=list)
    slow: Mapping[int, float] = field(default_factory=dict)  # number of a training: times that the ...
    step_seconds: float = 1e-3  # ... reference workload takes after it, a step
    n_steps: list[int] = field(default_factory=list)  # of it, each time
    tested: list[Path] = field(default_factory=list)
    test_accuracy: float | None = None  # of every network; None: the data have no test split
    balanced: float | None = None  # accuracy; the same as the plain one unless given
    gain: float = 0.0  # accuracy, of both sides of an image together

    def facts(self) -> dict[str, object]:
        return FACTS

    def number_formats(self) -> dict[str, str | None]:
        return dict(FORMATS)

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        self.trained.append(pipeline)
        self.seeds.append(seeds)
        number = len(self.trained) - 1
        script = self.trainings[number]
        if isinstance(script, BaseException):
            yield report(1, pipeline.epochs, 1.0, 0.5)
            raise script
        for epoch, (seconds, accuracy) in enumerate(script, start=1):
            balanced = accuracy if self.balanced is None else self.balanced
            yield report(epoch, len(script), seconds, accuracy, balanced_accuracy=balanced)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        folder.mkdir(parents=True)
        self.exported.append(folder)

    def test(self, folder: Path) -> dict[str, Any] | None:
        self.tested.append(folder)
        return (
            None
            if self.test_accuracy is None
            else {**{"accuracy": self.test_accuracy, "balanced_accuracy": self.test_accuracy, "n": 100, "warnings": []}}
        )

    def reference(self, n_steps: int) -> Reading:
        self.n_steps.append(n_steps)
        return Reading(self.step_seconds * self.slow.get(len(self.trained) - 1, 1.0))

    def probe(self, pipeline: Pipeline, task: Task | None = None) -> float:
        return 1e-3 * pipeline.batch_size

    def halt(self) -> None:
        pass

    def mirrored(self, seconds: float) -> dict[str, Any]:
        numbers = {"seconds": 0.1, "n": 100, "accuracy": 0.9, "mirrored_accuracy": 0.4, "p": 1e-9}
        return {**numbers, "refuted": True, "words": "mirror images: 40.0% of 100 instead of 90.0%"}

    def both_sides(self, folder: Path) -> dict[str, Any]:
        calibration = {"temperature": 3.0, "n_images": 100}
        told = {"alone": 0.8, "both": 0.8 + self.gain}
        sides = {name: {"accuracy": each, "balanced_accuracy": each} for name, each in told.items()}
        noise = {"accuracy": 4 / 100**2, "balanced_accuracy": 4 / 100**2}
        return {"n": 100, "noise": noise, **sides, "calibration": calibration}

    def close(self) -> None:
        pass


def report(epoch: int, epochs: int, seconds: float, accuracy: float, **changes: Any) -> Report:
    """A plausible report."""
    values: dict[str, Any] = {
        "epoch": epoch,
        "epochs": epochs,
        "train_seconds": seconds,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "settled": True,
        "loss": 1.0,
        "diverged": False,
        "wall_seconds": seconds,
        "boundary_seconds": 0.0,
        "eval_seconds": 0.1,
        "train_flops": 1e9,
        "inference_flops": 1e6,
        "full_flops": 2e6,
        "n_parameters": 1000,
        "peak_memory": 2**20,
        "eval_peak_memory": 2**20,
        "skipped_steps": 0,
    }
    return Report(**(values | changes))
