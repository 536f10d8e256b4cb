"""Many shards made into one, in the order in which it is used: row by row, so that memory holds none as a whole."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from objectives.data.cache import shards
from objectives.data.cache.progress import Progress
from objectives.data.cache.shards import ABOUT, PIXELS, ROW, ROWS, Rows, Shard
from objectives.data.content import digests
from objectives.data.sources import Bytes
from objectives.host import durable

ARRANGING = "arranging"  # what a Progress is told
MOST_OPEN = 256  # files at a time: a process may have 1024, and a large data set has more parts
_EVERY = 1024  # images between two words of progress

Held = Mapping[str, tuple[int, int]]  # content: (which of the shards, its row; -1: it is no image)


def held(sources: Sequence[Shard]) -> Held:
    """Where each content is."""
    found: dict[str, tuple[int, int]] = {}
    for number, shard in enumerate(sources):
        found |= dict.fromkeys(shard.faults, (number, -1))
        found |= {content.decode(): (number, row) for row, content in enumerate(shard.rows["content"].tolist())}
    return found


def arrange(
    folder: Path,
    sources: Sequence[Shard],
    top: str,
    labels: Sequence[int],
    contents: Sequence[str],
    size: int,
    progress: Progress,
) -> None:
    """Writes a shard of all the images, by class and by the digest of their pixels: names and places decide nothing.

    Raises:
        OSError: it cannot be written.
    """
    known = held(sources)
    positions = [at for at, content in enumerate(contents) if known.get(content, (0, -1))[1] >= 0]
    places = np.array([known[contents[at]] for at in positions], np.int64).reshape(-1, 2)
    rows = _rows(sources, places)
    rows["position"] = positions
    channels = 1 if rows["is_grey"].all() else 3
    with _Reader(sources, channels) as reader, durable.new_folder(folder) as partial:
        found = np.empty((len(rows), 2), np.uint64)
        for at, (number, row) in enumerate(places.tolist()):
            found[at] = digests(reader.image(number, row)[None])[0]
        order = np.lexsort((found[:, 1], found[:, 0], np.array(labels, np.int64)[positions]))
        with (partial / PIXELS).open("wb") as file:
            shards.write_head(file, (len(rows), size, size, channels))
            for done, (number, row) in enumerate(places[order].tolist(), start=1):
                file.write(reader.image(number, row).data)
                if done % _EVERY == 0 or done == len(order):
                    progress(ARRANGING, done, len(order))
        np.save(partial / ROWS, rows[order])
        wanted = set(contents)
        faults = {content: why for shard in sources for content, why in shard.faults.items() if content in wanted}
        (partial / ABOUT).write_bytes(shards.about(folder, top, faults))


def _rows(sources: Sequence[Shard], places: shards.Places) -> Rows:
    """What the shards say of the images in these places."""
    rows = np.zeros(len(places), ROW)
    for number, shard in enumerate(sources):
        of_shard = np.flatnonzero(places[:, 0] == number)
        rows[of_shard] = shard.rows[places[of_shard, 1]]
    return rows


class _Reader:
    """Reads single images of shards, by the file: what is mapped stays in memory as long as there is room."""

    def __init__(self, sources: Sequence[Shard], channels: int) -> None:
        self._sources, self._channels = sources, channels
        self._files: dict[int, int] = {}  # shard: descriptor, the one that was opened last at the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)

    def image(self, number: int, row: int) -> Bytes:
        """[size, size, channels], contiguous."""
        shape, offset = self._sources[number].layout
        n_bytes = math.prod(shape)
        read = os.pread(self._file(number), n_bytes, offset + row * n_bytes)
        image = np.frombuffer(read, np.uint8).reshape(shape)
        if shape[-1] == self._channels:
            return image
        return np.repeat(image, 3, axis=-1) if shape[-1] == 1 else np.ascontiguousarray(image[..., :1])

    def _file(self, number: int) -> int:
        if number not in self._files:
            if len(self._files) == MOST_OPEN:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[number] = os.open(self._sources[number].folder / PIXELS, os.O_RDONLY)
        return self._files[number]
