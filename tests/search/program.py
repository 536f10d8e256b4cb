"""The real program with a scripted objective: python -m tests.search.program --study NAME ...

The objective trains nothing: its curves are known, its clock is virtual, and it fails as the file $SCRIPT says. All the
rest is the program: command line, database, worker processes, signals, locks.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from objectives.data.cache.progress import Progress
from objectives.errors import DeviceError, DeviceLost
from objectives.host.durable import damaged, sums, write_folder
from objectives.pipeline import Pipeline, Reading, Report
from objectives.reduction.settings import Reduction
from objectives.starts.naming import origin
from objectives.task import Seeds, Task
from search.workers.seam import Opening, Preparation

FACTS: dict[str, Any] = {
    "device": {"model": "a scripted device", "driver": "none", "torch": "none", "threads": 1},
    "timing_version": 1,
    "data": {
        **{"name": "digits", "content": "c", "split": "s", "size": 8, "channels": 1, "n_classes": 10},
        **{"n_train": 200, "n_val": 50, "flip": False, "largest_share": 0.1},
    },
    "skipped": [],
    "warnings": [],
}

FLOPS = 1e6  # of the network that is made smaller


@dataclass(frozen=True)
class Script:
    """What happens in a run. Trainings are counted over all processes, from 0."""

    faults: Mapping[str, str] = field(default_factory=dict)  # number of a training: what befalls it after its epoch 1
    pause: float = 0.0  # real seconds per epoch
    probing: float = 0.0  # real seconds for a step that is probed
    scale: float = 1.0  # times that trainings take, by their own clock
    hang: float = 1.0  # seconds of silence that count as a hang
    busy: float = 60.0  # seconds that a locked database is waited for, each time
    tell: float = 300.0  # seconds until a result is kept in a file
    lost: int = 0  # openings of the device that fail after it was lost
    weights: int = 100_000  # bytes of an exported network
    mounts: str | None = None  # the text of /proc/mounts
    slow: Mapping[str, float] = field(default_factory=dict)  # number of a training: times that it takes, and ...
    # ... the reference workload after it
    models: tuple[str, ...] = ("a scripted device",)  # of the workers, in the order in which they get ready
    test: bool = True  # whether the data have a test split
    letter: str = "w"  # that the weights of exported networks are written with
    room: float = 60.0  # seconds for a cluster to have room

    @classmethod
    def read(cls) -> Script:
        path = os.environ.get("SCRIPT")
        return cls(**json.loads(Path(path).read_text())) if path else cls()


def count(name: str) -> int:
    """How often this was called before, in any process."""
    descriptor = os.open(_folder() / f"{name}.count", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(descriptor, b".")
        return os.lseek(descriptor, 0, os.SEEK_CUR) - 1
    finally:
        os.close(descriptor)


def _folder() -> Path:
    return Path(os.environ.get("SCRIPT", "script.json")).parent


def curve(pipeline: Pipeline, seeds: Seeds) -> list[tuple[float, float]]:
    """(seconds, accuracy) of every epoch: a function of the pipeline and the seed alone."""
    per_epoch = pipeline.width * (1 + 32 / pipeline.batch_size) * (1 + seeds.init % 1000 / 1e6)
    last = 0.8 + 0.05 * math.log2(1 + per_epoch * pipeline.epochs) - 0.1 * abs(math.log10(pipeline.lr) + 1)
    return [
        (per_epoch * epoch, min(0.99, max(0.3, last)) * (1 - 0.5**epoch) / (1 - 0.5**pipeline.epochs))
        for epoch in range(1, pipeline.epochs + 1)
    ]


@dataclass
class ScriptedObjective:
    """Trains nothing, as the script says."""

    script: Script
    model: str
    base: str | None = None  # folder of the network that is made smaller
    start: str | None = None  # what trainings may start from
    training: str = ""  # the number of the last one
    about: Mapping[str, object] = field(default_factory=dict)  # what its network says of itself

    def facts(self) -> dict[str, object]:
        facts = FACTS | {"device": FACTS["device"] | {"model": self.model}}
        if self.start is not None:
            facts |= {"start": origin(self.start).to_json()}
        if self.base is None or damaged(folder := Path(self.base)):
            return facts
        about = json.loads((folder / "model.json").read_text())
        sizes = {"inference_flops": FLOPS, "n_parameters": 1000, "accuracy": 0.97, "is_measured": True}
        base = {
            "weights": sums(folder)["weights.safetensors"],
            "pipeline": about["pipeline"],
            "trained_on": "s",
            "content": "c",
        }
        return facts | {"base": base | sizes}

    def number_formats(self) -> dict[str, str | None]:
        return {"fp32": None, "tf32": "scripted", "bf16": None, "fp16": "scripted"}

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        self.training = str(count("trainings"))
        fault, slow = self.script.faults.get(self.training), self.script.slow.get(self.training, 1.0)
        data = {"content": FACTS["data"]["content"], "split": FACTS["data"]["split"]}
        self.about = {"pipeline": pipeline.to_json(), "data": data}
        if pipeline.reduction is not None:
            yield from self.attempts(pipeline.reduction, seeds, fault)
            return
        for epoch, (seconds, accuracy) in enumerate(curve(pipeline, seeds), start=1):
            time.sleep(self.script.pause)
            if epoch == 2 and fault is not None:
                seconds = befall(fault, seconds)
            yield report(epoch, pipeline.epochs, seconds * slow * self.script.scale, accuracy)

    def attempts(self, reduction: Reduction, seeds: Seeds, fault: str | None) -> Generator[Report]:
        """Each attempt takes a share of the FLOPs; the second one is refused."""
        n, work, accuracy = reduction.iterations or 3, FLOPS, 0.97
        share = 1 - reduction.operation / 2 - seeds.init % 1000 / 1e5
        for number in range(n + 1):
            time.sleep(self.script.pause)
            seconds = 1.0 * number * self.script.scale
            if number == 1 and fault is not None:
                seconds = befall(fault, seconds)
            if number not in (0, 2):
                work, accuracy = work * share, accuracy - reduction.epsilon / n
            yield replace(report(number + 1, n + 2, seconds, accuracy), inference_flops=work)
        yield replace(report(n + 1, n + 1, seconds, accuracy), inference_flops=work)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        if self.script.faults.get("export") == str(count("exports")):
            os.kill(os.getpid(), signal.SIGKILL)
        written = json.dumps({**self.about, **about}).encode()
        write_folder(
            folder, {"model.json": written, "weights.safetensors": self.script.letter.encode() * self.script.weights}
        )

    def test(self, folder: Path) -> dict[str, Any] | None:
        if self.script.faults.get("test") == str(count("tests")):
            os.kill(os.getpid(), signal.SIGKILL)
        about = json.loads((folder / "model.json").read_text())
        accuracies = dict.fromkeys(("accuracy", "balanced_accuracy"), about["val_accuracy"] - 0.01)
        return {**accuracies, "n": 100, "warnings": ["a copy"]} if self.script.test else None

    def reference(self, n_steps: int) -> Reading:
        return Reading(1e-4 * self.script.slow.get(self.training, 1.0))

    def probe(self, pipeline: Pipeline, task: Task | None = None) -> float:
        count("probes")
        time.sleep(self.script.probing)
        return 1e-4 * pipeline.batch_size

    def mirrored(self, seconds: float) -> dict[str, Any]:
        numbers = {"seconds": 0.1, "n": 100, "accuracy": 0.9, "mirrored_accuracy": 0.4, "p": 1e-9}
        return {**numbers, "refuted": True, "words": "mirror images: 40.0% of 100 instead of 90.0%"}

    def both_sides(self, folder: Path) -> dict[str, Any]:
        accuracies = {"accuracy": 0.9, "balanced_accuracy": 0.9}
        told = {"alone": accuracies, "both": accuracies, "noise": {"accuracy": 0.0, "balanced_accuracy": 0.0}}
        return {"n": 100, **told, "calibration": {"temperature": 1.0}}

    def close(self) -> None:
        pass


def befall(fault: str, seconds: float) -> float:
    """What the script asks for; the seconds that the epoch reports."""
    match fault:
        case "out_of_memory":
            raise MemoryError("of 80 GiB nothing is left")
        case "device_lost":
            count("lost")
            raise DeviceLost("CUDA error: uncorrectable ECC error")
        case "raise":
            raise ValueError("a bug")
        case "hang":
            time.sleep(3600)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "inf":
            return math.inf
        case "slow":
            return 1000 * seconds
        case "kill_program":
            parent = os.getppid()  # the template; its parent owns the study
            os.kill(int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
            time.sleep(3600)
        case name:
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(3600)
    return seconds


def report(epoch: int, epochs: int, seconds: float, accuracy: float) -> Report:
    return Report(
        **{"epoch": epoch, "epochs": epochs, "train_seconds": seconds, "accuracy": accuracy, "settled": True},
        **{"balanced_accuracy": accuracy, "loss": 1.0, "diverged": False, "wall_seconds": seconds},
        **{"boundary_seconds": 0.0, "eval_seconds": 0.1, "train_flops": 1e9, "inference_flops": 1e6},
        **{
            "full_flops": 2e6,
            "n_parameters": 1000,
            "peak_memory": 2**20,
            "eval_peak_memory": 2**20,
            "skipped_steps": 0,
        },
    )


@dataclass(frozen=True)
class Prepare:
    """A preparation that a template process can be handed."""

    script: Script
    base: str | None = None
    start: str | None = None

    def keep_data(self, progress: Progress) -> None:
        pass

    def __call__(self) -> Opening:
        models = self.script.models
        return partial(self.opening, models[count("workers") % len(models)])

    def opening(self, model: str) -> ScriptedObjective:
        if _folder().joinpath("lost.count").exists() and count("openings") < self.script.lost:
            raise DeviceError("no CUDA GPUs are available")
        return ScriptedObjective(self.script, model, self.base, self.start)


def training(task: Task, device: str, threads: int) -> Preparation:
    """The `Training` of this program."""
    return Prepare(Script.read(), task.base, task.start)


def main() -> int:
    """The real command line, with shorter waits."""
    from search import run
    from search.commands import confirm, parsers, plan, record
    from search.commands.fronts import ablate
    from search.commands.networks import train
    from search.database import storage
    from search.host import devices
    from search.workers import cluster, watchdog

    script = Script.read()
    watchdog.LEAST = watchdog.UNKNOWN = script.hang
    cluster.ROOM = script.room
    devices.n_cores_of_host = lambda: 8  # what computes nothing needs no core of its own
    storage.BUSY_SECONDS, storage.TELL_SECONDS = script.busy, script.tell
    if script.mounts is not None:
        storage.on_network_file_system = partial(storage.on_network_file_system, mounts=script.mounts)
    sys.modules["plotly"] = None  # type: ignore[assignment]  # figures take a second to load, and are not the point
    from tests.search import program

    training = program.training  # of a module that a node of a cluster can import
    own = {"ablate": ablate, "confirm": confirm, "plan": plan, "record": record, "train": train}
    for name, command in own.items():
        if sys.argv[1:2] == [name]:
            options = parsers.COMMANDS[name].parser().parse_args(sys.argv[2:])
            options.words = sys.argv[2:]
            return command.perform(options, training)
    return run.main(training=training)


if __name__ == "__main__":
    sys.exit(main())
