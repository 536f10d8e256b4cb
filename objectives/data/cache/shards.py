"""Shards: decoded images in folders that are there whole or not at all, each image known by the content of its file.

A shard is `SIZE-VERSION-NAME`: `pixels.npy`, `rows.npy` (ROW), `about.json`, checksums. One of a whole data set has the
order in which it is used; parts, `SIZE-VERSION-part-NAME`, lie there until the whole is made of them.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from objectives.data.cache.stored import Stored
from objectives.data.decoding import DECODE_VERSION, HEADER, decode_all
from objectives.host import durable

PIXELS, ROWS, ABOUT = "pixels.npy", "rows.npy", "about.json"
# SHA-256 of the file; its position in the list of files of a whole; whether it has no colour; HEADER.
ROW = np.dtype([("content", "S64"), ("position", "<i8"), ("is_grey", "?"), *HEADER.descr])
Rows = npt.NDArray[np.void]  # [n] of ROW
Places = npt.NDArray[np.int64]  # [n, 2] which of some shards, and which row of it
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError)  # as what is not as it was written shows
_PART = "part-"


@dataclass(frozen=True)
class Shard:
    """A shard that is known to be whole."""

    folder: Path
    rows: Rows
    faults: Mapping[str, str]  # content of files that are no images: why

    @cached_property
    def stored(self) -> Stored:
        """[n, size, size, channels], which stay in the file."""
        return Stored.at(self.folder / PIXELS)

    @cached_property
    def layout(self) -> tuple[tuple[int, ...], int]:
        """(shape of an image, bytes before the first one) in the file of pixels."""
        with (self.folder / PIXELS).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
            return shape[1:], file.tell()

    def remove(self) -> None:
        """Takes it off the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Chunk:
    """Files to decode into one part."""

    folder: str
    size: int
    top: str  # the folder that the files belong to
    files: Sequence[tuple[str, str]]  # (path, content)


def name(size: int, key: str, *, part: bool = False) -> str:
    """What the folder of a shard is called."""
    return f"{size}-{DECODE_VERSION}-{_PART if part else ''}{key}"


def opened(folder: Path) -> Shard | None:
    """The shard in a folder; None where there is none, or it is damaged."""
    try:
        about = json.loads((folder / ABOUT).read_text("ascii"))
        if about["name"] != folder.name or durable.damaged(folder):
            return None
        return Shard(folder, np.load(folder / ROWS), about["faults"])
    except DAMAGE:
        return None


def holding(place: Path, size: int, contents: Iterable[str]) -> Iterator[Shard]:
    """Shards of a size that hold some of the contents, wholes first. What is damaged is removed."""
    missing = set(contents)
    for folder in sorted(place.glob(name(size, "*")), key=lambda folder: (is_part(folder), folder.name)):
        if not missing:
            return
        said = table(folder)
        known = {*map(bytes.decode, said[0]["content"].tolist()), *said[1]} if said else set()
        if said and missing.isdisjoint(known):
            continue
        if said and (shard := opened(folder)) is not None:
            missing -= known
            yield shard
        else:
            shutil.rmtree(folder, ignore_errors=True)


def write_part(chunk: Chunk) -> None:
    """Decodes the files of a chunk and writes their part.

    Raises:
        OSError: it cannot be written.
    """
    decoded = decode_all([path for path, _ in chunk.files], chunk.size)
    rows = np.zeros(len(decoded.kept), ROW)
    rows["content"] = [chunk.files[position][1].encode() for position in decoded.kept]
    rows["is_grey"] = decoded.is_grey
    for field in HEADER.names or ():
        rows[field] = decoded.headers[field]
    faults = {chunk.files[position][1]: why for position, why in decoded.faults.items()}
    folder = Path(chunk.folder)
    files = {PIXELS: _npy(decoded.pixels[:]), ROWS: _npy(rows), ABOUT: about(folder, chunk.top, faults)}
    durable.write_folder(folder, files)


def about(folder: Path, top: str, faults: Mapping[str, str]) -> bytes:
    """What a shard says of itself: its name, whose files they are, what is no image."""
    return json.dumps({"name": folder.name, "top": top, "faults": dict(faults)}).encode()


def whose(folder: Path) -> str | None:
    """The folder that the files of a shard belong to; None where that is no shard."""
    try:
        said: dict[str, Any] = json.loads((folder / ABOUT).read_text("ascii"))
        return str(said["top"])
    except DAMAGE:
        return None


def write_head(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Begins a file of pixels, which follow row by row."""
    described: dict[str, object] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def table(folder: Path) -> tuple[Rows, Mapping[str, str]] | None:
    """(rows, faults) of a shard, as it says and without a look at its pixels; None where that is no shard."""
    try:
        faults: dict[str, str] = json.loads((folder / ABOUT).read_text("ascii"))["faults"]
        return np.load(folder / ROWS), faults
    except DAMAGE:
        return None


def is_part(folder: Path) -> bool:
    """Whether a shard is there until a whole is made of it and others."""
    return folder.name.partition("-")[2].partition("-")[2].startswith(_PART)


def _npy(array: npt.NDArray[np.generic] | Rows) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
