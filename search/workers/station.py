"""A worker process on a machine of a cluster, told what to do in plain data: `workers.cluster` makes an actor of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from objectives.host.durable import contents, write_folder
from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds, Task
from search.workers.process import ENDED, WorkerProcess
from search.workers.seam import Preparation
from search.workers.template import Message, fault
from search.workers.watchdog import Watchdog

Answer = TypeVar("Answer")


class Station:
    """A `WorkerProcess` that is used from another machine. Imports no Ray: any carrier of calls will do.

    The worker is watched here, next to it: a crash or a hang is an answer like others, and the station stays.
    """

    def __init__(self, preparation: Preparation, watchdog: Watchdog, *, fresh: bool) -> None:
        self._worker = WorkerProcess(preparation, watchdog, fresh=fresh)
        self._reports: Generator[Report] | None = None

    def do(self, message: Message) -> Message:
        """The answer to a message; a fault is an answer with `error`."""
        try:
            return self._answer(message)
        except ENDED as error:
            return fault(error)

    def _answer(self, message: Message) -> Message:
        match message["do"]:
            case "facts":
                return {"facts": self._worker.facts()}
            case "number_formats":
                return {"number_formats": self._worker.number_formats()}
            case "reference":
                return {"reading": self._worker.reference(message["n_steps"]).to_json()}
            case "probe":
                task = Task.from_json(message["task"]) if message["task"] else None
                return {"step_seconds": self._worker.probe(Pipeline.from_json(message["pipeline"]), task)}
            case "mirrored":
                return {"mirrored": self._worker.mirrored(message["seconds"])}
            case "both_sides":
                return {"both_sides": self._of(message["files"], self._worker.both_sides)}
            case "test":
                return {"tested": self._of(message["files"], self._worker.test)}
            case "export":
                return {"files": self._network(message["about"])}
            case "train":
                self._stop()  # of a training whose owner was not able to say so
                self._reports = self._worker.reports(
                    Pipeline.from_json(message["pipeline"]), Seeds(*message["seeds"]), whole=message["whole"]
                )
                return self._next()
            case "continue":
                return self._next()
            case _:
                self._stop()
                return {"ended": True}

    def _network(self, about: Message) -> dict[str, bytes]:
        """The files of the network of the last training, by name."""
        with TemporaryDirectory(prefix="frontrunner-") as folder:
            self._worker.export(Path(folder) / "network", about)
            return contents(Path(folder) / "network")

    def _of(self, files: dict[str, bytes], judged: Callable[[Path], Answer]) -> Answer:
        """What is said of the network in these files."""
        with TemporaryDirectory(prefix="frontrunner-") as folder:
            write_folder(Path(folder) / "network", files)
            return judged(Path(folder) / "network")

    def _next(self) -> Message:
        assert self._reports is not None
        report = next(self._reports, None)
        return {"ended": True} if report is None else {"report": report.to_json()}

    def _stop(self) -> None:
        if self._reports is not None:
            self._reports.close()
        self._reports = None
