"""A worker process that trains, seen from the process that owns the study as an iterator of reports.

Everything that crosses the boundary is JSON. The owner answers each report with `continue` or `stop`, so a training
never runs ahead of the decisions about it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

from objectives.errors import DataError, DeviceError
from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds, Task

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

FaultReason = Literal["out_of_memory", "crash"]


class TrialFault(Exception):
    """A training that ended by a fault of its own. The objective that raised it is fit for the next training."""

    def __init__(self, reason: FaultReason, message: str) -> None:
        super().__init__(message)
        self.reason: FaultReason = reason


class Objective(Protocol):
    """What a trial needs of whatever trains: a `WorkerProcess`, or a `TrainingObjective` in this process."""

    def facts(self) -> dict[str, object]:
        """What seconds and accuracies depend on: device, data, split."""

    def number_formats(self) -> dict[str, str | None]:
        """Every number format, with the reason why it is of no use, or None."""

    def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
        """Trains and yields a report per epoch. Raises TrialFault."""

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        """Writes the network of the last training, which ran to its end."""

    def close(self) -> None:
        """Frees what is held."""


class WorkerProcess:
    """An `Objective` in a process of its own, which is replaced when it dies.

    The process starts at once and gets ready in the background; the first call waits for it.

    Raises:
        DataError, DeviceError: from the first call, when the worker cannot be set up.
    """

    def __init__(self, task: Task, device: str, threads: int = 1) -> None:
        self._arguments = (task.to_json(), device, threads)
        self._start()

    def facts(self) -> dict[str, object]:
        answer: dict[str, object] = self._ask({"do": "facts"})["facts"]
        return answer

    def number_formats(self) -> dict[str, str | None]:
        answer: dict[str, str | None] = self._ask({"do": "number_formats"})["number_formats"]
        return answer

    def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
        if not self._process.is_alive():  # died between two trials: the next one gets a fresh process
            self._replace()
        answer = self._ask(
            {"do": "train", "pipeline": pipeline.to_json(), "seeds": [seeds.init, seeds.order, seeds.augmentation]}
        )
        while "report" in answer:
            try:
                yield Report.from_json(answer["report"])
            except GeneratorExit:
                with suppress(TrialFault):  # it died on the way: what ended the training stays the reason
                    self._ask({"do": "stop"})
                raise
            answer = self._ask({"do": "continue"})

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        self._ask({"do": "export", "folder": str(folder), "about": dict(about)})

    def close(self) -> None:
        """Ends the process; a training in flight is abandoned."""
        self._connection.close()
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, *self._arguments), daemon=True, name="frontrunner-worker"
        )
        self._process.start()
        theirs.close()

    def _replace(self) -> None:
        self.close()
        self._start()

    def _ask(self, message: Mapping[str, object]) -> dict[str, Any]:
        """The worker's answer to a message.

        Raises:
            TrialFault: the training failed or the process died; a fresh process is under way.
        """
        try:
            self._connection.send_bytes(json.dumps(message).encode())
            wait([self._connection, self._process.sentinel])
            answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self._replace()
            raise TrialFault("crash", f"the worker process died ({_cause(code)})") from None
        match answer.get("error"):
            case None:
                return answer
            case "data":
                raise DataError(answer["message"])
            case "device":
                raise DeviceError(answer["message"])
            case reason:
                self._replace()  # its memory, its device context may be damaged
                raise TrialFault(reason, answer["message"])


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _serve(connection: Connection, task: Mapping[str, object], device: str, threads: int) -> None:
    """Runs in the worker process: answers messages until the other end closes or a training fails."""
    for interruption in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: the owner of the study decides
        signal.signal(interruption, signal.SIG_IGN)
    _die_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch loads its thread pools
    try:
        from objectives.objective import TrainingObjective

        objective = TrainingObjective(Task.from_json(task), device, threads)
        while True:
            message = json.loads(connection.recv_bytes())
            for answer in _answers(objective, message, connection):
                connection.send_bytes(json.dumps(answer).encode())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the owner of the study is gone, or wants no more
    except Exception as error:  # everything is told: the owner decides what a fault means
        with suppress(OSError):
            connection.send_bytes(json.dumps(_fault(error)).encode())


def _answers(objective: Objective, message: Mapping[str, Any], connection: Connection) -> Iterator[dict[str, object]]:
    match message["do"]:
        case "facts":
            yield {"facts": objective.facts()}
        case "number_formats":
            yield {"number_formats": objective.number_formats()}
        case "export":
            objective.export(Path(message["folder"]), message["about"])
            yield {"exported": message["folder"]}
        case "train":
            for report in objective.reports(Pipeline.from_json(message["pipeline"]), Seeds(*message["seeds"])):
                yield {"report": report.to_json()}
                if json.loads(connection.recv_bytes())["do"] == "stop":
                    break
            yield {"ended": True}


def _fault(error: Exception) -> dict[str, object]:
    import torch

    kinds: dict[type[Exception], str] = {
        DataError: "data",
        DeviceError: "device",
        torch.OutOfMemoryError: "out_of_memory",
    }
    kind = next((kind for cls, kind in kinds.items() if isinstance(error, cls)), "crash")
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # what the CPU allocator says
        kind = "out_of_memory"
    if kind == "crash":
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {
            "error": kind,
            "message": f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})",
        }
    message = str(error).partition("\n")[0]
    return {"error": kind, "message": message or type(error).__name__}


def _die_with_parent() -> None:
    """Asks the kernel to kill this process when the one that started it dies, however it dies (Linux)."""
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(1)
