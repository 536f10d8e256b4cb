"""Standard streams as a process may inherit them: closed, of a reader that leaves, on a full disk, in any encoding.

Nothing that is said there is worth a study: what cannot be written is dropped. Standard library only.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import ParamSpec, TextIO

STORAGE = 4  # exit code
READABLE = "frontrunner_readable"  # error handler of encodings
SPELLED = {"±": "+-"}  # what we write ourselves, where an encoding lacks it

P = ParamSpec("P")


class Kept(io.RawIOBase):
    """A descriptor that takes whatever is written, and remembers the first failure to pass it on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]  # a buffer: typing has no name for it in 3.11
        while self.failure is None:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # somebody else who has this terminal or pipe made it so
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = error
        return len(data)


def guarded(main: Callable[P, int]) -> Callable[P, int]:
    """The main function of a command, with streams that do not fail while it runs.

    A reader that leaves has seen enough; a result that finds no space is one line and exit code 4.
    """

    @wraps(main)
    def run(*arguments: P.args, **named: P.kwargs) -> int:
        if isinstance(_raw(sys.stdout), Kept):  # called by one that is guarded
            return main(*arguments, **named)
        with _kept() as out:
            code = main(*arguments, **named)
            sys.stdout.flush()
            lost = out.failure if out is not None else None
            if lost is not None and lost.errno != errno.EPIPE:
                print(f"error: standard output takes no result ({lost.strerror}): mend that", file=sys.stderr)
                code = code or STORAGE
        return code

    return run


@contextmanager
def _kept() -> Iterator[Kept | None]:
    """Replaces the streams; the raw standard output, None where it is no descriptor."""
    _fill()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _like(sys.stdout, 1), _like(sys.stderr, 2)
    raw = _raw(sys.stdout)
    try:
        yield raw if isinstance(raw, Kept) else None
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _fill() -> None:
    """Opens what is closed of the first three descriptors: a database that got one would be printed into."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _like(stream: TextIO | None, descriptor: int) -> TextIO:
    """A stream of the same encoding that does not fail. One without a descriptor, as in tests, stays as it is."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(Kept(descriptor)), encoding="utf-8", errors=READABLE)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        kept = Kept(stream.fileno())
    except OSError:
        return stream
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(kept),
        encoding=stream.encoding,
        errors=READABLE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _raw(stream: TextIO | None) -> object:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _readable(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, spelled or as escapes: bytes of a path that were no text as such, others by number."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(map(_escape, lacking)), error.end


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return SPELLED.get(character) or character.encode("ascii", "backslashreplace").decode()


codecs.register_error(READABLE, _readable)
