"""Which devices a run trains on, and the locks that keep two runs off one device. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.errors import StorageError, UsageError
from search.host.locks import Held, holder, locked
from search.host.owner import this_process
from search.host.places import RUN_DIRECTORY, run_folder

MAX_WORKERS = 64  # of a study on the GPUs of a host
PATIENCE = 30.0  # seconds for another process to take its devices
ELSEWHERE = f"set {RUN_DIRECTORY} to a folder that can be"
A_LOOK = 0.1  # seconds: somebody who only looks who holds a lock has it for a moment


@dataclass(frozen=True)
class Slot:
    """Room for one worker: a GPU, or one core of the CPU."""

    device: str  # as torch names it
    name: str  # of its lock: 'gpu-0', 'cpu-1'

    @property
    def shown(self) -> str:
        """As the command line names it: 'cuda:0', 'cpu:1'."""
        return self.device if self.device != "cpu" else self.name.replace("-", ":")


@dataclass(frozen=True)
class Request:
    """What `--devices` asks for."""

    slots: tuple[Slot, ...]  # the first free ones of these are taken
    n: int  # so many of them
    workers: int  # of the study on this host, in all its runs: seconds depend on how many share the machine


def requested(devices: str, workers: int | None = None) -> Request:
    """What a word such as `auto`, `cpu`, `cpu:2` (two workers), `cuda`, `cuda:1`, `0,1` asks for.

    Raises:
        UsageError: it is no device, more workers than the machine has room for, or than the study has on a host.
    """
    if devices == "auto":
        devices = "cuda" if n_gpus() else "cpu"
    if count := re.fullmatch(r"cpu(?::([1-9]\d*))?", devices):
        n = _at_most(n_cores(), count[1] or "1", "--devices cpu:", "this process may use")
        _at_most(n_cores_of_host(), str(workers or 1), "--workers ", "this machine has")
        slots = tuple(Slot("cpu", f"cpu-{number}") for number in range(max(n_cores(), workers or 0)))
    else:
        _at_most(MAX_WORKERS, str(workers or 1), "--workers ", "a study may have", "workers")
        slots = _gpus(devices)
        n = 1 if devices == "cuda" else len(slots)
    if workers is not None and workers < n:
        raise UsageError(f"--devices {devices} starts {n} workers, --workers {workers} allows fewer: raise it")
    return Request(slots, n, workers or n)


def _at_most(most: int, number: str, flag: str, who: str, what: str = "cores") -> int:
    """A number of workers, of which more would share a core: all of them, and the machine, would crawl."""
    if len(number) > 9 or int(number) > most:
        shown = number if len(number) <= 9 else f"{number[:6]}..."
        raise UsageError(f"{flag}{shown}: {who} {most} {what}: at most {flag}{most}")
    return int(number)


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def n_cores_of_host() -> int:
    """Cores of this machine: other runs of a study may be kept on others than this one."""
    return os.cpu_count() or 1


def n_gpus() -> int:
    """GPUs that this process may use, as far as the file system tells."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([word for word in visible.split(",") if word and word != "-1"])
    return len([entry for entry in Path("/dev").glob("nvidia*") if entry.name.removeprefix("nvidia").isdecimal()])


@contextmanager
def taken(request: Request, study: str, database: str) -> Iterator[tuple[Slot, ...]]:
    """Holds devices for a run of a study until the block ends, or the process does.

    Raises:
        StorageError: another process holds them, or the study has its workers on this host already.
    """
    about = {**this_process().to_json(), "study": study, "database": database}
    try:
        with ExitStack() as held:
            with locked(run_folder() / "devices.lock", about, PATIENCE, ELSEWHERE):
                slots = _take(request, study, database, about, held)
            yield slots
    except Held as error:
        raise StorageError(f"process {error.holder.get('pid', '?')} does not finish taking its devices") from error


def held_devices() -> dict[str, dict[str, object]]:
    """Who holds which device on this host, by the name of its lock."""
    found = {path.stem: holder(path) for path in sorted(run_folder().glob("[cg]pu-*.lock"))}
    return {name: about for name, about in found.items() if about is not None}


def _take(request: Request, study: str, database: str, about: dict[str, object], held: ExitStack) -> tuple[Slot, ...]:
    holders = held_devices()
    ours = {name: who for name, who in holders.items() if (who.get("study"), who.get("database")) == (study, database)}
    if len(ours) + request.n > request.workers:
        raise StorageError(
            f"study {study!r} is being run by {_in_words(ours)}: wait for it, end it with: "
            f"kill {next(iter(ours.values())).get('pid', 'PID')}, or begin a study with more --workers"
        )
    chosen: list[Slot] = []
    for slot in request.slots:
        if len(chosen) == request.n:
            break
        try:
            held.enter_context(locked(run_folder() / f"{slot.name}.lock", about, A_LOOK, ELSEWHERE))
        except Held:
            continue
        chosen.append(slot)
    if len(chosen) < request.n:
        names = {slot.name for slot in request.slots}
        busy = {name: who for name, who in holders.items() if name in names}
        raise StorageError(
            f"{request.n} of {', '.join(slot.shown for slot in request.slots)} asked for, but taken: "
            f"{_in_words(busy)}: wait, or choose others with --devices"
        )
    return tuple(chosen)


def _in_words(holders: dict[str, dict[str, object]]) -> str:
    return ", ".join(
        f"process {who.get('pid', '?')} on {name.replace('-', ':')} (study {who.get('study', '?')!r})"
        for name, who in holders.items()
    )


def _gpus(devices: str) -> tuple[Slot, ...]:
    """The GPUs that a word names."""
    if devices == "cuda":
        return tuple(map(_gpu, range(max(1, n_gpus()))))
    found = [re.fullmatch(r"(?:cuda:)?(\d{1,2})", word) for word in devices.split(",")]
    if not all(found):
        raise UsageError(f"--devices {devices!r}: no such device: choose cpu, cpu:2, cuda, cuda:1 or 0,1")
    slots = tuple(_gpu(int(each[1])) for each in found if each)
    if len(set(slots)) < len(slots):
        raise UsageError(f"--devices {devices}: names a device twice")
    return slots


def _gpu(ordinal: int) -> Slot:
    """A GPU as this process counts them; its lock is named for the machine's own count."""
    visible = [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word]
    return Slot(f"cuda:{ordinal}", f"gpu-{visible[ordinal] if ordinal < len(visible) else ordinal}")
