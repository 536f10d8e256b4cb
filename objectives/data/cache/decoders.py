"""Processes that decode: as many as there are cores, each writes what it decoded, so that only names cross the pipes.

Subprocesses, because they must start anywhere: in daemons, which may have no children of `multiprocessing`, and beside
threads, where a fork is unsafe. A process holds one chunk: at most CHUNK_BYTES of pixels, twice while it writes them,
beside the one image that it decodes (50 megapixels: 150 MB).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from objectives.data.cache.shards import Chunk, write_part
from objectives.errors import DataError
from objectives.host.children import die_with_parent
from objectives.words import counted, printable

CHUNK_FILES = 1024
CHUNK_BYTES = 16 << 20  # of pixels
CHUNK_SOURCE = 64 << 20  # bytes of files: seconds of work, which is what a process that is killed loses
ALONE = 256  # files; fewer are decoded before a process has started
_ROOT = Path(__file__).parents[3]  # where `objectives` is


class Advance(Protocol):
    """Told of the files that were decoded."""

    def __call__(self, n_files: int) -> None:
        """So many more."""


def decode(chunks: Sequence[Chunk], advance: Advance) -> None:
    """Decodes chunks into their parts, in any order.

    Raises:
        OSError: a part cannot be written.
        DataError: a process died of its files.
    """
    if sum(len(chunk.files) for chunk in chunks) <= ALONE:
        for chunk in chunks:
            write_part(chunk)
            advance(len(chunk.files))
        return
    for chunk, death in written(chunks, min(n_cores(), len(chunks))):
        if death is not None:
            raise death
        advance(len(chunk.files))


def written(chunks: Iterable[Chunk], n_processes: int) -> Iterator[tuple[Chunk, DataError | None]]:
    """Every chunk once its part is written, in any order; one whose process died of it with what to say of that.

    Chunks are drawn as processes are free, which are no more than one part ahead of who asks.

    Raises:
        OSError: a part cannot be written.
    """
    waiting, busy = iter(chunks), dict[subprocess.Popen[str], Chunk]()
    with ExitStack() as running:

        def employ(process: subprocess.Popen[str]) -> None:
            for following in islice(waiting, 1):
                busy[process] = following
                _send(process, following)

        for _ in range(n_processes):
            employ(running.enter_context(_started()))
        while busy:
            for process in _answering(list(busy)):
                done = busy.pop(process)
                death = _death(process, done)
                employ(process if death is None else running.enter_context(_started()))
                yield done, death


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def _started() -> Iterator[subprocess.Popen[str]]:
    """A process that decodes until the block ends; a group of its own, so that Ctrl-C reaches who decides."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # words that it never read
                process.stdin.close()


def _answering(processes: Sequence[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Those that have something to say, waited for. Each says a line for a chunk: none is left in a buffer."""
    # not `select`: it takes no descriptor above 1023
    ready = wait([process.stdout.fileno() for process in processes if process.stdout is not None])
    return [process for process in processes if process.stdout is not None and process.stdout.fileno() in ready]


def _send(process: subprocess.Popen[str], chunk: Chunk) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(vars(chunk)) + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it died: its answer, which is none, says so
        return


def _death(process: subprocess.Popen[str], chunk: Chunk) -> DataError | None:
    """What befell the process, in words; None where the chunk is written.

    Raises:
        OSError: it cannot be.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        where = f"{counted(len(chunk.files), 'file')} from {chunk.files[0][0]} to {chunk.files[-1][0]}"
        cause = f"exit code {process.wait()}"
        return DataError(printable(f"the process that decoded {where} died ({cause}): find the one, and remove it"))
    if error := json.loads(line)["error"]:
        raise OSError(*error)
    return None


def _serve() -> None:
    """Decodes the chunks that standard input names, and says of each whether it is written."""
    die_with_parent()
    for line in sys.stdin:
        error = None
        try:
            write_part(Chunk(**json.loads(line)))
        except OSError as failed:
            error = [failed.errno, failed.strerror, failed.filename and str(failed.filename)]
        try:
            print(json.dumps({"error": error}), flush=True)
        except BrokenPipeError:  # who asked is gone, and the kernel about to end this process, too
            os._exit(1)


if __name__ == "__main__":
    _serve()
