"""The process that workers are forked from: torch is imported and the data are loaded once, no device is opened.

A worker that died, or was ended for a fault, is replaced in milliseconds instead of seconds, and no second process
competes with a training for the processor while it gets ready. On a GPU there is one context: the worker's.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from objectives.errors import DataError, DeviceError, DeviceLost
from objectives.host.children import die_with_parent
from objectives.pipeline import Pipeline
from objectives.task import Seeds, Task
from search.errors import StorageError
from search.host.interruptions import INTERRUPTIONS
from search.host.places import RUN_DIRECTORY
from search.workers.seam import Objective, Opening, Preparation, TrialFault

COMMAND = "trains-"  # and the number of the parent: what /proc/PID/comm says
# In the words of the CPU's allocator, of C++, of the kernel, and of oneDNN without room for the code of a convolution;
# what oneDNN cannot compute at all is a "primitive descriptor" that it could not create.
_NO_MEMORY = re.compile(
    r"can't allocate memory|std::bad_alloc|Cannot allocate memory|could not create a primitive(?! descriptor)"
)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Message = dict[str, Any]  # JSON; `do` says what an owner wants, `id` which command an answer belongs to


class Channel:
    """One end of the pipe, in JSON."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Mapping[str, object]) -> None:
        """Sends a message; below 16 kB in one write, so that a process killed on the way leaves whole messages."""
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> Message:
        """The next message, waited for."""
        message: Message = json.loads(self._connection.recv_bytes())
        return message


def serve(connection: Connection, preparation: Preparation) -> None:
    """Runs in the template: forks a worker when its owner wants something, and says how each one ended."""
    for interruption in INTERRUPTIONS:  # they reach the whole group: the owner of the study decides
        signal.signal(interruption, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)
    die_with_parent()
    _sign()
    channel = Channel(connection)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the owner is gone, or wants no more
        try:
            opening = preparation()
        except Exception as error:  # everything is told: the owner decides what a fault means
            told = fault(error)
            while True:
                channel.send(told | {"id": channel.receive()["id"]})
                channel.send({"died": 0})  # no worker came of it
        gc.freeze()  # collections in a worker leave the pages shared
        while True:
            message = channel.receive()
            worker = os.fork()
            if not worker:
                _work(channel, opening, message)
            _, status = os.waitpid(worker, 0)
            channel.send({"died": os.waitstatus_to_exitcode(status)})


def _work(channel: Channel, opening: Opening, message: Message | None) -> NoReturn:
    """Runs in a worker: answers messages, the first one given, until its owner leaves or something fails."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # from the watchdog
    die_with_parent()
    _sign()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # short of memory, the kernel takes the worker first
    try:
        channel.send({"worker": os.getpid()})
        objective = opening()
        while True:
            message = message or channel.receive()
            message = _handle(objective, message, channel)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except Exception as error:
        with suppress(OSError):
            channel.send(fault(error) | {"id": message["id"] if message else None})
    os._exit(0)  # without what the template would do at its end


def _handle(objective: Objective, message: Message, channel: Channel) -> Message | None:
    """Answers a message; returns the one that ended a training unless it was meant for it."""
    about = {"id": message["id"]}
    match message["do"]:
        case "facts":
            channel.send(about | {"facts": objective.facts()})
        case "number_formats":
            channel.send(about | {"number_formats": objective.number_formats()})
        case "export":
            objective.export(Path(message["folder"]), message["about"])
            channel.send(about | {"exported": message["folder"]})
        case "test":
            channel.send(about | {"tested": objective.test(Path(message["folder"]))})
        case "reference":
            channel.send(about | {"reading": objective.reference(message["n_steps"]).to_json()})
        case "probe":
            task = Task.from_json(message["task"]) if message["task"] else None
            seconds = objective.probe(Pipeline.from_json(message["pipeline"]), task)
            channel.send(about | {"step_seconds": seconds})
        case "mirrored":
            channel.send(about | {"mirrored": objective.mirrored(message["seconds"])})
        case "both_sides":
            channel.send(about | {"both_sides": objective.both_sides(Path(message["folder"]))})
        case "train":
            settings = Pipeline.from_json(message["pipeline"]), Seeds(*message["seeds"])
            for report in objective.reports(*settings, whole=message["whole"]):
                channel.send(about | {"report": report.to_json()})
                decision = channel.receive()
                if decision["id"] != message["id"]:
                    return decision  # the owner gave this training up and wants something else
                if decision["do"] == "stop":
                    break
            channel.send(about | {"ended": True})
    return None  # also for a decision about a training that ended with the worker before


def fault(error: Exception) -> Message:
    """What went wrong, as a message: its kind, and one line about it."""
    if isinstance(error, TrialFault):
        return {"error": error.reason, "message": str(error)}
    kinds: dict[type[Exception], str] = {
        StorageError: "storage",
        DataError: "data",
        DeviceError: "device",
        DeviceLost: "device_lost",
        MemoryError: "out_of_memory",
    }
    if "torch" in sys.modules:
        import torch

        kinds |= {torch.OutOfMemoryError: "out_of_memory", torch.AcceleratorError: "device_lost"}
    kind = next((kind for cls, kind in kinds.items() if isinstance(error, cls)), "crash")
    if _NO_MEMORY.search(str(error)):
        kind = "out_of_memory"
    if isinstance(error, OSError) and error.filename is not None:  # files that are read are a DataError
        kind = "no_space" if error.errno in _NO_SPACE else "unwritable"
        return {"error": kind, "message": f"{error.filename} ({error.strerror})"}
    if kind == "crash":
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return {"error": kind, "message": said.replace("\n", " ")}
    told = {"error": kind, "message": str(error).partition("\n")[0] or type(error).__name__}
    return told | {"peak_memory": _peak_memory()} if kind == "out_of_memory" else told


def _peak_memory() -> int | None:
    """Bytes at the peak of the training in this process; None where none can have run."""
    if "torch" not in sys.modules:
        return None
    import torch

    from objectives.device.clock import peak_memory

    return peak_memory(torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))  # type: ignore[no-untyped-call]


def _sign() -> None:
    """Gives the process a name that says whose it is: should it outlive its parent, it can be recognised."""
    Path("/proc/self/comm").write_text(f"{COMMAND}{os.getppid()}")


def strays() -> list[int]:
    """Templates and workers on this host, of this user, whose parent is gone: the kernel should have ended them.

    Those of runs with another run directory are none of ours.
    """
    found = []
    ours = os.environ.get(RUN_DIRECTORY, "")
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, stat = (folder / "comm").read_bytes().strip(), (folder / "stat").read_bytes()  # of any encoding
            parent = stat.rpartition(b")")[2].split()[1]
            is_stray = name.startswith(COMMAND.encode()) and name.removeprefix(COMMAND.encode()) != parent
            if is_stray and folder.stat().st_uid == os.getuid() and _run_directory(folder) == ours:
                found.append(int(folder.name))
    return found


def _run_directory(process: Path) -> str:
    """The run directory in the environment of a process, '' where none was given."""
    variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
    return dict(v.split("=", 1) for v in variables if "=" in v).get(RUN_DIRECTORY, "")
