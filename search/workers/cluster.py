"""Workers on a Ray cluster, seen from the process that owns the study as iterators of reports.

Ray is imported where it is used. What crosses the boundary is plain data, the files of an exported network, and once
the preparation: the same program is installed on every node. `search.workers.station` is the other side.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from objectives.errors import DeviceError, DeviceLost
from objectives.host.durable import contents, write_folder
from objectives.pipeline import Pipeline, Reading, Report
from objectives.task import Seeds, Task
from search.errors import UsageError
from search.study import opening
from search.workers.process import EXPORT, TICK, dialogue, raise_told
from search.workers.seam import Halted, Preparation, TrialFault, WorkerLost
from search.workers.station import Station
from search.workers.template import Message
from search.workers.watchdog import Watchdog

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


def check(place: str, device: str) -> None:
    """Checks words of the command line.

    Raises:
        UsageError: the place is no cluster, or the device is named more closely than a cluster allows.
    """
    _address(place)
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--devices {device}: on a cluster choose cpu or cuda, and how many with --workers")


@contextmanager
def joined(place: str) -> Iterator[None]:
    """This process as part of a cluster until the block ends; `place` is `ray` or `ray://HOST:PORT`.

    Raises:
        UsageError: Ray is not installed.
        DeviceError: the cluster does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--cluster needs Ray: pip install -c constraints.txt -e '.[ray]'") from error
    _knock(place)
    ours = signal.getsignal(signal.SIGTERM)
    # Ray prints what befalls other nodes on stdout, which is the result's; there is no switch (2.60).
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # about an environment variable of theirs
                ray.init(address=_address(place), log_to_driver=False, logging_level="CRITICAL")
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise DeviceError(
                f"--cluster {place}: no Ray cluster answers ({_line(error)}): start one with: ray start --head, "
                "or join it from this machine with: ray start --address HOST:PORT"
            ) from error
        finally:
            signal.signal(signal.SIGTERM, ours)  # Ray has put its own in place
        try:
            yield
        finally:
            ray.shutdown()


def room(device: str, workers: int | None) -> Room:
    """What `--devices` and `--workers` ask of the cluster: by default all its GPUs, or all its CPUs where it has none.

    Raises:
        DeviceError: the cluster has less than is asked for.
    """
    import ray

    have = {name: int(ray.cluster_resources().get(name, 0)) for name in ("GPU", "CPU")}
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
        self._is_placed = False  # and known to be
        self._place()

    def facts(self) -> dict[str, object]:
        if not self._is_placed:
            self._await_room()
        facts: dict[str, object] = self._ask({"do": "facts"})["facts"]  # a folder of images may take long to decode
        self._facts = self._facts or facts
        return facts

    def number_formats(self) -> dict[str, str | None]:
        answer: dict[str, str | None] = self._ask({"do": "number_formats"}, EXPORT)["number_formats"]
        return answer

    def ready(self) -> bool:
        import ray

        if self._is_placed:
            return True
        if not ray.wait([self._first], timeout=0)[0]:
            return False
        try:
            facts = _told(ray.get(self._first))["facts"]
        except ray.exceptions.RayError:  # the new node is lost as well
            self._place()
            return False
        except (TrialFault, DeviceLost) as fault:
            raise DeviceError(f"the worker cannot start on another node: {fault}") from fault
        if self._facts is not None:
            known, now = (opening.blurred(each, self._mixed) for each in (self._facts, facts))
            opening.check_alike(self._study, known, [now])
        self._is_placed = True
        return True

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        return dialogue(self._ask, self._watchdog, pipeline, seeds, whole=whole)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        write_folder(folder, self._ask({"do": "export", "about": dict(about)}, EXPORT)["files"])

    def test(self, folder: Path) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = self._ask({"do": "test", "files": contents(folder)})["tested"]
        return answer

    def reference(self, n_steps: int) -> Reading:
        return Reading.from_json(self._ask({"do": "reference", "n_steps": n_steps}, EXPORT)["reading"])

    def probe(self, pipeline: Pipeline, task: Task | None = None) -> float:
        words = {"pipeline": pipeline.to_json(), "task": task and task.to_json()}
        answer = self._ask({"do": "probe", **words}, EXPORT)
        return float(answer["step_seconds"])

    def mirrored(self, seconds: float) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask({"do": "mirrored", "seconds": seconds}, EXPORT)["mirrored"]
        return answer

    def both_sides(self, folder: Path) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask({"do": "both_sides", "files": contents(folder)}, EXPORT)["both_sides"]
        return answer

    def halt(self) -> None:
        self._halted.set()
        self._kill()

    def close(self) -> None:
        """Ends the worker; a training in flight is abandoned."""
        self._kill()

    def _place(self) -> None:
        """Asks for a worker wherever there is room, and for its facts as soon as it is there."""
        import ray

        options = {**self._room.resources, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        station: Any = ray.remote(Station).options(**options)
        fresh = self._room.device == "cpu"
        self._actor = station.remote(self._preparation, self._watchdog.fresh(), fresh=fresh)
        self._first = self._actor.do.remote({"do": "facts"})
        self._is_placed = False

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

    def _ask(self, message: Message, patience: float = inf) -> Message:
        """The station's answer. A hang is found beside the worker: who is silent for longer is a lost machine.

        Raises:
            TrialFault, DeviceLost, DataError, DeviceError, StorageError: as told.
            WorkerLost: the station is gone, or too silent; another one is asked for.
            Halted: `halt` was called.
        """
        import ray

        reference = self._actor.do.remote(message)
        silence, lost = 0.0, f"its node has not answered for {patience + LATE:.0f} s"
        while silence < patience + LATE and not self._halted.is_set():
            before = time.monotonic()
            if ray.wait([reference], timeout=TICK)[0]:
                try:
                    return _told(ray.get(reference))
                except ray.exceptions.RayError as error:
                    lost = _line(error)
                    break
            silence += min(time.monotonic() - before, 2 * TICK)
        if self._halted.is_set():
            raise Halted
        self._kill()
        self._place()
        raise WorkerLost(lost)

    def _kill(self) -> None:
        import ray

        with suppress(ray.exceptions.RayError, ValueError):  # it is gone
            ray.kill(self._actor)


def _told(answer: Message) -> Message:
    """The answer, unless it tells a fault: that is raised."""
    if "error" in answer:
        raise_told(answer)
    return answer


def _address(place: str) -> str:
    """What `ray.init` is given.

    Raises:
        UsageError: the place is none.
    """
    if place == "ray":
        return "auto"
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not place.startswith("ray://") or not host or not port.isdecimal():
        raise UsageError(f"--cluster {place!r} is no cluster: choose ray (one on this machine) or ray://HOST:PORT")
    return f"{host}:{port}"


def _knock(place: str) -> None:
    """Asks whether anybody listens there: Ray itself would try for minutes.

    Raises:
        DeviceError: nobody does.
    """
    if place == "ray":
        return
    host, _, port = _address(place).rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(
            f"--cluster {place} does not answer ({error}): give the address that `ray start --head` has printed"
        ) from error


def _line(error: Exception) -> str:
    """The line of an error of Ray's that says most: its messages begin with generalities and end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "died because" in line or "Error:" in line]
    return (causes or lines or [type(error).__name__])[-1 if causes else 0].rstrip(".")[:200]
