"""Image files of any kind as a network takes them: found, decoded as in training by other processes, in order.

No more than a few parts of them are held at a time, so that a million images take the memory of a thousand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from objectives.data.cache import shards
from objectives.data.cache.decoders import CHUNK_BYTES, CHUNK_FILES, n_cores, written
from objectives.data.cache.shards import Chunk
from objectives.data.decoding import NO_IMAGE, NOT_AN_IMAGE
from objectives.data.layout.listing import NO_FILE, Walk, folder_fault, is_image
from objectives.data.sources import Bytes
from objectives.errors import DataError
from objectives.words import expanded, printable

FEWEST = 32  # files of a chunk, as far as there are so many: fewer cost more to hand over than to decode
HIDDEN = "hidden: name it, or rename what begins with a dot"


@dataclass(frozen=True)
class Found:
    """A file that may be an image."""

    path: str
    name: str  # relative to the folder that was named; with that folder where several places were
    is_named: bool  # by the user: where it is no image, that is told
    fault: str = ""  # why it is not even opened


@dataclass(frozen=True)
class Part:
    """What some of the files hold."""

    positions: tuple[int, ...]  # of the files, all of them
    kept: tuple[int, ...]  # positions of those that are images
    pixels: Bytes  # [n, size, size, channels] of these
    faults: dict[int, str]  # position of every other one: why, or NO_IMAGE


def found(places: Sequence[str], *, follow_links: bool = False) -> list[Found]:
    """The files that places name: each file itself, each folder all that it holds, however deep, in order of names.

    A folder that cannot be read stands for what it holds, with the reason; hidden images are not opened, and say so.

    Raises:
        DataError: there is no such place.
    """
    files: list[Found] = []
    for place in map(expanded, places):
        if os.path.isdir(place) and (why := folder_fault(place)):
            files.append(Found(place, place, is_named=True, fault=why))
        elif os.path.isdir(place):
            folder, inside = place if len(places) > 1 else "", len(os.path.join(place, ""))
            for path, fault in _inside(place, follow_links):
                name = os.path.join(folder, path[inside:])
                why = fault.replace("follow_links = true", "--follow-links")
                files.append(Found(path, name, is_named=False, fault=why))
        elif os.path.exists(place):
            fault = "" if os.path.isfile(place) else NO_FILE  # a pipe would be waited for
            files.append(Found(place, place, is_named=True, fault=fault))
        else:
            raise DataError(printable(f"there is no file or folder {place}: check the path"))
    return files


def _inside(place: str, follow_links: bool) -> Iterator[tuple[str, str]]:
    """Paths of the files in a folder, then of its hidden images, each with the reason why it is not opened, or ''."""
    walk = Walk(place, follow_links, skips_unreadable=True)
    yield from ((entry.path, fault) for entry, fault in walk.files(place))
    yield from ((path, HIDDEN) for path in walk.concealed() if is_image(path))


def each_once(files: Sequence[Found]) -> dict[str, Found]:
    """The files by what tells them apart, in their order: each once, under its first name, however often it was named.

    Where one was named itself as well as found in a folder, what holds is that it was named.
    """
    once: dict[str, Found] = {}
    for file in files:
        key = known_as(file.path)
        first = once.setdefault(key, file)
        if file.is_named and not first.is_named:
            once[key] = replace(first, is_named=True, fault=file.fault)
    return once


def known_as(path: str) -> str:
    """What tells a file from others: its path behind all links to folders. A link to a file is one of its own."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def decoded(files: Sequence[Found], size: int) -> Iterator[Part]:
    """What the files hold, part by part in any order, as squares of `size` pixels a side.

    A file that a process dies of, whatever it does to it, is one that cannot be read.

    Raises:
        OSError: the folder for temporary files cannot be written.
    """
    faults = {position: file.fault for position, file in enumerate(files) if file.fault}
    yield Part(tuple(faults), (), np.empty((0, size, size, 1), np.uint8), faults)
    wanted = [(file.path, str(position)) for position, file in enumerate(files) if not file.fault]
    with tempfile.TemporaryDirectory(prefix="frontrunner-predict-") as place:
        pending: Iterable[Chunk] = _chunks(Path(place), wanted, size)
        n_processes = min(n_cores(), -(-len(wanted) // FEWEST))
        while n_processes:
            deadly: list[Chunk] = []
            for chunk, death in written(pending, n_processes):
                if death is None:
                    yield _read(chunk)
                elif len(chunk.files) == 1:
                    position = int(chunk.files[0][1])
                    why = {position: "the process that decoded it died"}
                    yield Part((position,), (), np.empty((0, size, size, 1), np.uint8), why)
                else:
                    deadly.append(chunk)
            pending = [half for chunk in deadly for half in _halves(chunk)]
            n_processes = min(n_processes, len(pending))


def _chunks(place: Path, wanted: Sequence[tuple[str, str]], size: int) -> Iterator[Chunk]:
    """The files in parts of a second's work at most, and small enough that each process has some."""
    most = min(CHUNK_FILES, CHUNK_BYTES // (3 * size * size), -(-len(wanted) // n_cores()))
    n = max(most, 1)
    for start in range(0, len(wanted), n):
        yield Chunk(str(place / shards.name(size, str(start), part=True)), size, "", wanted[start : start + n])


def _halves(chunk: Chunk) -> list[Chunk]:
    middle = len(chunk.files) // 2
    halves = chunk.files[:middle], chunk.files[middle:]
    return [replace(chunk, folder=f"{chunk.folder}-{n}", files=files) for n, files in enumerate(halves)]


def _read(chunk: Chunk) -> Part:
    """What a chunk holds; its part is removed."""
    shard = shards.opened(Path(chunk.folder))
    if shard is None:
        raise OSError(f"{chunk.folder} does not hold what was written")
    kept = tuple(int(content) for content in shard.rows["content"].tolist())
    faults = {int(content): fault for content, fault in shard.faults.items()}
    part = Part(tuple(int(position) for _, position in chunk.files), kept, shard.stored[:], faults)
    shard.remove()
    return part


def told(file: Found, fault: str) -> str | None:
    """Why there is no prediction, in words; None for what was never meant as an image."""
    if fault != NO_IMAGE:
        return fault
    return NOT_AN_IMAGE if file.is_named else None
