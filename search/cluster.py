"""Workers on a Ray cluster, seen from the process that owns the study as iterators of reports.

Ray is imported where it is used. What crosses the boundary is JSON, the files of an exported network, and once the
preparation: the same program is installed on every node. `search.station` is the other side.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from objectives.durable import write_folder
from objectives.errors import DeviceError
from objectives.pipeline import Pipeline, Reading, Report
from objectives.task import Seeds
from search import opening
from search.errors import UsageError
from search.objective import Halted, Preparation, WorkerLost
from search.station import Station
from search.template import INTERRUPTIONS, Message
from search.watchdog import Watchdog
from search.worker import ENDED, EXPORT, TICK, raise_told

ANSWER = 5.0  # seconds for the head of a cluster to answer
ROOM = 120.0  # seconds for the first workers to be placed: others may use the cluster
LATE = 60.0  # seconds that an answer may take beyond what the watchdog beside the worker waits for
ROUND = 0.05  # seconds between two looks at something that is about to come


@dataclass(frozen=True)
class Room:
    """What a run takes of a cluster."""

    device: str  # of each worker, as torch names it there
    n: int  # workers

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for one worker. It hides the other GPUs of a node from it: there is one, `cuda`."""
        return {"num_cpus": 1, "num_gpus": 1 if self.device == "cuda" else 0}


@contextmanager
def joined(place: str) -> Iterator[None]:
    """This process as part of a cluster until the block ends; `place` is `ray` or `ray://HOST:PORT`.

    Raises:
        UsageError: Ray is not installed, or the place is none.
        DeviceError: the cluster does not answer.
    """
    address = _address(place)
    try:
        import ray
        import ray._private.worker as driver
    except ImportError as error:
        raise UsageError("--cluster needs Ray, which is not installed: pip install 'frontrunner[ray]'") from error
    handlers = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    # Ray prints what befalls other nodes on stdout, which is the result's; there is no switch (2.60).
    driver.print_to_stdstream = lambda *_, **__: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about an environment variable of theirs
            ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise DeviceError(
            f"--cluster {place}: no Ray cluster answers ({_line(error)}): start one with: ray start --head, "
            "or join it from this machine with: ray start --address HOST:PORT"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray has put its own in place
            signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def room(device: str, workers: int | None) -> Room:
    """What `--devices` and `--workers` ask of the cluster: by default all its GPUs, or all its CPUs where it has none.

    Raises:
        UsageError: the device is named more closely than a cluster allows.
        DeviceError: the cluster has less than is asked for.
    """
    import ray

    have = {name: int(ray.cluster_resources().get(name, 0)) for name in ("GPU", "CPU")}
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--devices {device}: on a cluster choose cpu or cuda, and how many with --workers")
    unit = "GPU" if device == "cuda" or (device == "auto" and have["GPU"]) else "CPU"
    if not have[unit] or (workers or 0) > have[unit]:
        raise DeviceError(
            f"{workers or 'some'} workers asked for, but the cluster has {have[unit]} {unit}s: "
            "lower --workers, choose another --devices, or add nodes with: ray start --address HOST:PORT"
        )
    return Room("cuda" if unit == "GPU" else "cpu", workers or have[unit])


class RayWorker:
    """A `Remote` objective on whichever node of the cluster has room; it moves when its node is lost.

    It is placed at once and gets ready in the background; the first call waits for it.
    """

    def __init__(self, preparation: Preparation, room: Room, study: str, mixed_devices: bool = False) -> None:
        """`mixed_devices`: it may move to a device of another model; else the study of that name refuses it."""
        self._preparation, self._room, self._study, self._mixed = preparation, room, study, mixed_devices
        self._watchdog = Watchdog()
        self._halted = threading.Event()
        self._facts: dict[str, object] | None = None  # of the first placement: later ones are like it
        self._is_placed, self._actor, self._first = False, *self._placed()

    def facts(self) -> dict[str, object]:
        if not self._is_placed:
            self._await_room()
        facts: dict[str, object] = self._ask("facts")["facts"]  # a folder of images may take long to decode
        self._facts = self._facts or facts
        return facts

    def number_formats(self) -> dict[str, str | None]:
        answer: dict[str, str | None] = self._ask("number_formats", EXPORT)["number_formats"]
        return answer

    def ready(self) -> bool:
        import ray

        if self._is_placed:
            return True
        done, _ = ray.wait([self._first], timeout=0)
        if not done:
            return False
        try:
            answer = json.loads(ray.get(self._first))
        except ray.exceptions.RayError:  # the new node is lost as well
            self._place_anew()
            return False
        if "error" in answer:
            raise_told(answer)
        if self._facts is not None:
            known, now = (opening.blurred(facts, self._mixed) for facts in (self._facts, answer["facts"]))
            opening.check_alike(self._study, known, [now])
        self._is_placed = True
        return True

    def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
        settings = {"pipeline": pipeline.to_json(), "seeds": [seeds.init, seeds.order, seeds.augmentation]}
        silences: list[float] = []
        asked = time.monotonic()
        answer = self._ask("train", self._watchdog.patience(silences), **settings)
        while "report" in answer:
            silences.append(time.monotonic() - asked)
            try:
                yield Report.from_json(answer["report"])
            except GeneratorExit:
                with suppress(*ENDED, WorkerLost):  # what ended the training stays the reason
                    self._ask("stop", EXPORT)
                raise
            asked = time.monotonic()
            answer = self._ask("continue", self._watchdog.patience(silences))
        self._watchdog.learn(silences)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        files = self._answer(self._actor.network.remote(json.dumps(dict(about))), EXPORT)
        if isinstance(files, str):
            raise_told(json.loads(files))
        write_folder(folder, files)

    def reference(self, n_steps: int) -> Reading:
        return Reading.from_json(self._ask("reference", EXPORT, n_steps=n_steps)["reading"])

    def halt(self) -> None:
        self._halted.set()
        self._kill()

    def close(self) -> None:
        """Ends the worker; a training in flight is abandoned."""
        self._kill()

    def _place_anew(self) -> None:
        self._is_placed, (self._actor, self._first) = False, self._placed()

    def _placed(self) -> tuple[Any, Any]:
        """Asks for a worker wherever there is room, and for its facts as soon as it is there."""
        import ray

        options = {**self._room.resources, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        fresh = self._room.device == "cpu"
        actor = ray.remote(Station).options(**options).remote(self._preparation, self._watchdog.fresh(), fresh=fresh)
        return actor, actor.do.remote(json.dumps({"do": "facts"}))

    def _await_room(self) -> None:
        """Waits for the first placement.

        Raises:
            DeviceError: there is no room, or the node cannot run a worker.
        """
        import ray

        deadline = time.monotonic() + ROOM
        alive = self._actor.__ray_ready__.remote()
        while not ray.wait([alive], timeout=ROUND)[0]:
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"the cluster has had no room for {self._room.n} workers on {self._room.device} for {ROOM:.0f} s: "
                    "lower --workers, or see with `ray status` who uses it"
                )
        try:
            ray.get(alive)
        except ray.exceptions.RayError as error:
            raise DeviceError(
                f"the cluster cannot run a worker ({_line(error)}): install the same frontrunner on every node"
            ) from error
        self._is_placed = True

    def _ask(self, what: str, patience: float = inf, **words: object) -> Message:
        """The station's answer to a message.

        Raises:
            TrialFault, DeviceLost, DataError, DeviceError, StorageError: as told.
            WorkerLost: the station is gone, or too silent; another one is asked for.
            Halted: `halt` was called.
        """
        answer: Message = json.loads(self._answer(self._actor.do.remote(json.dumps({"do": what, **words})), patience))
        if "error" in answer:
            raise_told(answer)
        return answer

    def _answer(self, reference: Any, patience: float) -> Any:
        """What a call returns. A hang is found beside the worker: who is silent for longer is a lost machine."""
        import ray

        silence, lost = 0.0, f"its node has not answered for {patience + LATE:.0f} s"
        while silence < patience + LATE:
            before = time.monotonic()
            done, _ = ray.wait([reference], timeout=TICK)
            if self._halted.is_set():
                raise Halted
            if done:
                try:
                    return ray.get(reference)
                except ray.exceptions.RayError as error:
                    lost = _line(error)
                    break
            silence += min(time.monotonic() - before, 2 * TICK)
        if self._halted.is_set():
            raise Halted
        self._kill()
        self._place_anew()
        raise WorkerLost(lost)

    def _kill(self) -> None:
        import ray

        with suppress(ray.exceptions.RayError, ValueError):  # it is gone
            ray.kill(self._actor)


def _address(place: str) -> str:
    """What `ray.init` is given.

    Raises:
        UsageError: the place is none.
        DeviceError: nobody listens there; Ray itself would try for minutes.
    """
    if place == "ray":
        return "auto"
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not place.startswith("ray://") or not host or not port.isdecimal():
        raise UsageError(f"--cluster {place!r} is no cluster: choose ray (one on this machine) or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(
            f"--cluster {place} does not answer ({error}): give the address that `ray start --head` has printed"
        ) from error
    return f"{host}:{port}"


def _line(error: Exception) -> str:
    """The line of an error of Ray's that says most: its messages begin with generalities and end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "died because" in line or "Error:" in line]
    return (causes or lines or [type(error).__name__])[-1 if causes else 0].rstrip(".")[:200]
