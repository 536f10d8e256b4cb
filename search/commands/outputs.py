"""Files that a command line names to be written. One that is there is replaced only if it is of the same kind.

Whatever else is there, a database, an image, a table of somebody's, stays as it is. That, and a place where nothing can
be written, is known before any work is done.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from objectives.host.durable import new_file
from objectives.words import expanded, printable
from search.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """What a command writes."""

    words: str  # what it is
    example: str  # how a file of it may be called
    beginnings: tuple[bytes, ...]  # every file of it begins as one of these


PAGE = Kind(
    "page of this program",
    "page.html",
    (
        b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        b'<meta http-equiv="Content-Security-Policy" content="default-src ',
    ),
)


@dataclass(frozen=True)
class Output:
    """A file to write."""

    named: str  # as the command line has it; of `~` the folder that it means
    place: Path  # the same behind all links
    kind: Kind
    flag: str

    def write(self, content: bytes) -> None:
        """Writes it.

        Raises:
            OSError, UsageError: as `opened`.
        """
        with self.opened() as file:
            file.write(content)

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Where to write it: a new file that is there whole or not at all, a device or a pipe.

        Raises:
            OSError: it cannot be written.
            UsageError: something else has come to lie there.
        """
        _check_replaceable(self)
        try:
            with self.place.open("wb") if _is_stream(self.place) else new_file(self.place) as file:
                yield file
        except OSError as error:
            if error.filename in (None, str(self.place)):
                error.filename = self.named
            raise


def checked(named: str, kind: Kind, flag: str = "-o") -> Output:
    """The file that a flag of a command names, to be called before the work.

    Raises:
        UsageError: it cannot be one, or something else is there.
        OSError: nothing can be written in its folder.
    """
    named = expanded(named)
    if os.path.isdir(named):
        raise UsageError(printable(f"{flag} {named} is a folder: name a file in it, {Path(named) / kind.example}"))
    # The target of a link that is written below /proc, as /dev/stdout is, need not be a path.
    place = os.path.abspath(named) if _is_stream(named) else os.path.realpath(named)
    folder = named if named.endswith(os.sep) else os.path.dirname(place)
    if not os.path.isdir(folder):
        raise UsageError(printable(f"there is no folder {folder}: make it, or name another file with {flag}"))
    output = Output(named, Path(place), kind, flag)
    _check_replaceable(output)
    if not _is_stream(place) and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), named)
    return output


def _check_replaceable(output: Output) -> None:
    """Refuses what is there and of another kind.

    Raises:
        UsageError: it is.
    """
    place = output.place
    if os.path.lexists(place) and not _is_stream(place) and not _begins_as(output.kind, place):
        what = f"{output.flag} {output.named} is there already, and is no {output.kind.words}"
        raise UsageError(printable(f"{what}: name another file with {output.flag}"))


def _begins_as(kind: Kind, place: Path) -> bool:
    """Whether a file is one of a kind, or empty as `mktemp` makes them; one that cannot be read is none."""
    if not os.path.isfile(place):
        return False
    try:
        with place.open("rb") as file:
            head = file.read(max(map(len, kind.beginnings)))
            return not head or head.startswith(kind.beginnings)
    except OSError:
        return False


def _is_stream(place: str | Path) -> bool:
    """Whether a path is that of a pipe or a device, which keeps nothing that could be lost."""
    try:
        mode = os.stat(place).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
