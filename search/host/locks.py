"""Locks between processes of one host: files that the kernel unlocks when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from search.errors import StorageError

POLL = 0.005  # seconds


class Held(Exception):
    """Another process has the lock; `holder` is what it wrote about itself."""

    def __init__(self, holder: Mapping[str, object]) -> None:
        super().__init__(f"held by {holder}")
        self.holder = holder


@contextmanager
def locked(
    path: Path, about: Mapping[str, object], wait: float = 0.0, elsewhere: str = "choose another place with --storage"
) -> Iterator[None]:
    """Holds the lock until the block ends, or the process does; `about` says to others who holds it.

    Its file goes when the block ends, so that what is refused meanwhile leaves none. `elsewhere`: the way out where
    the file cannot be written.

    Raises:
        Held: somebody else had it for all of `wait` seconds.
        StorageError: the file cannot be written.
    """
    with _taken(path, time.monotonic() + wait, elsewhere) as file:
        file.truncate(0)
        file.write(json.dumps(about).encode())
        try:
            yield
        finally:
            with suppress(OSError):  # as long as it is held: nobody else's is of that name
                path.unlink()


def holder(path: Path) -> dict[str, object] | None:
    """What the holder of a lock wrote about itself; None when nobody holds it."""
    try:
        with path.open("rb+" if os.access(path, os.W_OK) else "rb", buffering=0) as file:  # NFS wants the first
            if _try(file):
                return None
            found = json.loads(file.read() or b"{}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _taken(path: Path, deadline: float, elsewhere: str) -> FileIO:
    """The file, locked: the one that has the name now, not one that its last holder has removed."""
    while True:
        file = _opened(path, elsewhere)
        is_free = _try(file)
        if is_free and _is_there(file, path):
            return file
        file.close()
        if not is_free:
            if time.monotonic() > deadline:
                raise Held(holder(path) or {})
            time.sleep(POLL)


def _opened(path: Path, elsewhere: str) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab+", buffering=0)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}): {elsewhere}") from error


def _is_there(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _try(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
