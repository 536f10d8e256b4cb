"""Who runs a trial: enough to tell later whether that process still lives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Fate = Literal["alive", "dead", "unknown"]  # unknown: on another host, only its heartbeats tell


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other one, also across reboots."""

    host: str
    boot: str  # of the host's kernel
    pid: int
    started: int | None  # clock ticks after boot
    namespace: str | None = None  # that the number is of: containers of one name count their processes apart

    def to_json(self) -> dict[str, object]:
        """This owner as plain JSON data: what is stored with a trial and in a lock."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Owner:
        """The owner that `to_json` wrote."""
        known = {name: plain[name] for name in ("host", "boot", "pid", "started")}
        return cls(**known, namespace=plain.get("namespace"))  # type: ignore[arg-type]

    @property
    def fate(self) -> Fate:
        """Whether the process still lives; one that is stopped or suspended does."""
        if self.host != socket.gethostname() or self.namespace not in (None, _namespace()):
            return "unknown"
        return "alive" if self.boot == _boot_id() and self.started == start_time(self.pid) else "dead"


def this_process() -> Owner:
    """The process that asks."""
    return Owner(socket.gethostname(), _boot_id(), os.getpid(), start_time(os.getpid()), _namespace())


def age() -> float:
    """Seconds since this process started; 0 where nobody knows."""
    ticks = start_time(os.getpid())
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return 0.0 if ticks is None else now - ticks / os.sysconf("SC_CLK_TCK")


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started (field 22 of /proc/PID/stat); None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may be of any encoding
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def _namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
