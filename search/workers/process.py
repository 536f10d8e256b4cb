"""A worker process that trains, seen from the process that owns the study as an iterator of reports.

Everything that crosses the boundary is JSON. The owner answers each report with `continue` or `stop`, so a training
never runs ahead of the decisions about it. `search.workers.template` is the other side.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from objectives.errors import DataError, DeviceError, DeviceLost
from objectives.pipeline import Pipeline, Reading, Report
from objectives.task import Seeds, Task
from search.errors import StorageError
from search.workers.pair import END, Pair
from search.workers.seam import Halted, Preparation, TrialFault, WorkerLost
from search.workers.template import Message
from search.workers.watchdog import Watchdog

TICK = 0.5  # seconds between two looks at the clock while a worker is silent
GRACE = 2.0  # seconds from TERM to KILL
EXPORT = 600.0  # seconds for a network to reach the disk, for number formats, mirror images, the reference workload
ENDED = (TrialFault, DeviceLost, WorkerLost, DataError, DeviceError, StorageError, Halted)


class WorkerProcess:
    """A `Remote` objective in a process of its own, which is replaced when it dies or fails.

    The process starts at once and gets ready in the background; the first call waits for it. It dies with the thread
    that called this.
    """

    def __init__(self, preparation: Preparation, watchdog: Watchdog | None = None, *, fresh: bool = False) -> None:
        """`fresh`: each training gets a worker of its own, forked in milliseconds.

        On a CPU networks of other widths leave the heap in pieces, and all later trainings of the process take a few
        per cent longer (benchmarks/supervision.md). Opening a GPU takes seconds, and its memory is kept in blocks.
        """
        self._preparation, self._watchdog, self._fresh = preparation, watchdog or Watchdog(), fresh
        self._halted = threading.Event()
        self._n_commands = 0
        self._pair = Pair(preparation)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of this objective: the template, and the worker where there is one."""
        return self._pair.pids

    def facts(self) -> dict[str, object]:
        answer: dict[str, object] = self._command("facts")["facts"]  # a folder of images may take long to decode
        return answer

    def number_formats(self) -> dict[str, str | None]:
        answer: dict[str, str | None] = self._command("number_formats", patience=EXPORT)["number_formats"]
        return answer

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        if self._fresh and not self._pair.end_worker():
            self._replace()
        self._n_commands += 1
        yield from dialogue(self._ask, self._watchdog, pipeline, seeds, whole=whole)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        self._command("export", patience=EXPORT, folder=str(folder), about=dict(about))

    def test(self, folder: Path) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = self._command("test", folder=str(folder))["tested"]  # decoding may take long
        return answer

    def reference(self, n_steps: int) -> Reading:
        return Reading.from_json(self._command("reference", patience=EXPORT, n_steps=n_steps)["reading"])

    def probe(self, pipeline: Pipeline, task: Task | None = None) -> float:
        words = {"pipeline": pipeline.to_json(), "task": task and task.to_json()}
        answer = self._command("probe", patience=EXPORT, **words)
        return float(answer["step_seconds"])

    def mirrored(self, seconds: float) -> dict[str, Any]:
        answer: dict[str, Any] = self._command("mirrored", patience=EXPORT, seconds=seconds)["mirrored"]
        return answer

    def both_sides(self, folder: Path) -> dict[str, Any]:
        answer: dict[str, Any] = self._command("both_sides", patience=EXPORT, folder=str(folder))["both_sides"]
        return answer

    def halt(self) -> None:
        self._halted.set()
        self._pair.signal(signal.SIGKILL)

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        """Ends the processes; a training in flight is abandoned."""
        self._pair.close()

    def _replace(self) -> None:
        self._pair.close()
        self._pair = Pair(self._preparation)

    def _command(self, what: str, patience: float = inf, **words: object) -> Message:
        """The worker's answer to a command of its own."""
        self._n_commands += 1
        return self._ask({"do": what, **words}, patience)

    def _ask(self, message: Mapping[str, object], patience: float) -> Message:
        """The worker's answer to a message that belongs to the last command.

        Raises:
            TrialFault, DeviceLost: the training failed or the process died; a fresh one takes its place.
            DataError, DeviceError: the worker cannot be set up.
            StorageError: it has no space to write to.
            Halted: `halt` was called.
        """
        try:
            self._pair.send({**message, "id": self._n_commands})
            answer = self._answer(patience)
        except (EOFError, OSError, ValueError):  # the template died, or somebody died while writing
            code = self._pair.exit_code()
            self._replace()
            self._check_halted(code)
            raise TrialFault("crash", f"the worker process died ({cause(code)})") from None
        if answer is None:
            self._end_hung_worker()
            raise TrialFault("hang", f"no report for {patience:.0f} s: the worker was ended")
        if "died" in answer:
            self._check_halted(answer["died"])
            raise TrialFault("crash", f"the worker process died ({cause(answer['died'])})")
        if "error" in answer:
            self._pair.await_end(END)
            raise_told(answer)
        return answer

    def _check_halted(self, exit_code: int | None) -> None:
        """Raises Halted where a worker died of an interruption; TERM may have reached it before it reaches us."""
        if self._halted.wait(1 if exit_code == -signal.SIGTERM else 0):
            raise Halted

    def _answer(self, patience: float) -> Message | None:
        """The next message about the last command, or that the worker died; None when patience has run out.

        Only time in which this process was awake counts: after a suspension both sides have slept.
        """
        silence = 0.0
        while not self._halted.is_set():
            before = time.monotonic()
            if self._pair.wait(min(TICK, patience)):
                message = self._pair.received()
                if message.get("id") == self._n_commands or "died" in message:
                    return message
            silence += min(time.monotonic() - before, 2 * TICK)
            if silence > patience:
                return None
        raise Halted

    def _end_hung_worker(self) -> None:
        self._pair.signal(signal.SIGTERM)
        if not self._pair.await_end(GRACE) and not self._pair.end_worker():
            self._replace()


def dialogue(
    ask: Callable[[Message, float], Message],
    watchdog: Watchdog,
    pipeline: Pipeline,
    seeds: Seeds,
    *,
    whole: bool = False,
) -> Generator[Report]:
    """The reports of a training that `ask` leads to: it gives the answer to a message within so many seconds."""
    settings = {
        "pipeline": pipeline.to_json(),
        "seeds": [seeds.init, seeds.order, seeds.augmentation],
        "whole": whole,
    }
    silences: list[float] = []
    n_quick = 0
    if pipeline.reduction is not None:  # of it the network as it was is told at once, and the pace is another one
        watchdog, n_quick = watchdog.fresh(), 1
    asked = time.monotonic()
    answer = ask({"do": "train", **settings}, watchdog.patience(silences))
    while "report" in answer:
        silences.append(time.monotonic() - asked)
        try:
            yield Report.from_json(answer["report"])
        except GeneratorExit:
            with suppress(*ENDED):  # it died on the way: what ended the training stays the reason
                ask({"do": "stop"}, EXPORT)
            raise
        asked = time.monotonic()
        answer = ask({"do": "continue"}, watchdog.patience(silences[n_quick:]))
    watchdog.learn(silences)


def cause(exit_code: int | None) -> str:
    """Why a process ended, in words."""
    if exit_code == -signal.SIGKILL:
        return "signal SIGKILL: from outside, or from the kernel for want of memory"
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def raise_told(answer: Message) -> NoReturn:
    """Raises what the worker told."""
    message = answer["message"]
    match answer["error"]:
        case "data":
            raise DataError(message)
        case "device":
            raise DeviceError(message)
        case "device_lost":
            raise DeviceLost(message)
        case "storage":
            raise StorageError(message)
        case "no_space":
            raise StorageError(f"no space on {message}: make room, then the same command goes on")
        case "unwritable":
            raise StorageError(f"{message} cannot be written: mend that, then the same command goes on")
        case reason:
            raise TrialFault(reason, message, answer.get("peak_memory"))
