"""Images in a file, some of which are read into memory at a time: `Stored`, an array that nobody holds as a whole.

They are read by the file and not by a mapping of it: a page of a mapping that cannot be read kills the process, a read
that fails says why. The file stays open, so that whoever removes it takes away its name and not the images.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from objectives.errors import DataError
from objectives.words import printable

AT_ONCE = 4 << 20  # bytes of images that are looked at together, where all of them are

Array = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


class File:
    """An open file of images, one behind the other. It can be handed to a child, which opens it once more."""

    def __init__(self, path: str, shape: tuple[int, ...], offset: int, name: str | None = None) -> None:
        """`shape`: of an image; `offset`: bytes before the first one; `name`: of the file, where `path` is none."""
        self.shape, self.name = shape, name or path
        self._offset, self._n_bytes = offset, math.prod(shape)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[type[File], tuple[str, tuple[int, ...], int, str]]:
        # by the number that it has here: the file may have no name any more
        return File, (f"/proc/{os.getpid()}/fd/{self._descriptor}", self.shape, self._offset, self.name)

    def read(self, rows: Positions) -> Array:
        """[n, height, width, channels] the images at these positions; what lies side by side is read at once.

        Raises:
            DataError: the file cannot be read, or does not hold them any more.
        """
        found = np.empty((len(rows), *self.shape), np.uint8)
        if len(rows):
            n, into = self._n_bytes, found.data.cast("B")
            starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
            for start, end in pairwise([*starts, len(rows)]):
                self._fill(into[start * n : end * n], self._offset + int(rows[start]) * n)
        return found

    def _fill(self, into: memoryview, offset: int) -> None:
        while len(into):
            try:
                n = os.preadv(self._descriptor, [into], offset)
            except OSError as error:
                raise self._unreadable(error.strerror or str(error)) from error
            if not n:
                raise self._unreadable("it was cut off")
            into, offset = into[n:], offset + n

    def _unreadable(self, why: str) -> DataError:
        way_out = "look at that disk, then the same command goes on, and decodes what is damaged again"
        return DataError(printable(f"images cannot be read from {self.name} ({why}): {way_out}"))


@dataclass(frozen=True, eq=False)
class Stored:
    """Images [n, height, width, channels] uint8 of a file, any of them in any order, in grey or in colour."""

    file: File
    rows: Positions  # [n] where in the file
    channels: int  # 1 or 3, whichever the file has

    @classmethod
    def at(cls, path: Path) -> Stored:
        """All images in a file of NumPy.

        Raises:
            OSError, ValueError: it is none, or cannot be read.
        """
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            (n, *shape), _, _ = np.lib.format.read_array_header_1_0(file)
            return cls(File(str(path), tuple(shape), file.tell()), np.arange(n), shape[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, height, width, channels]"""
        return len(self.rows), *self.file.shape[:2], self.channels

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """That of the arrays that are read."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Array:
        """Some of the images, read now.

        Raises:
            DataError: they cannot be.
        """
        return converted(self.file.read(self.rows[chosen]), self.channels)

    def part(self, chosen: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Stored:
        """Some of the images, where they lie."""
        return replace(self, rows=self.rows[chosen])


Pixels = Array | Stored  # [n, height, width, channels] in memory, or in a file


def part(pixels: Pixels, chosen: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Pixels:
    """Some of the images: copied where they lie in memory."""
    return pixels.part(chosen) if isinstance(pixels, Stored) else pixels[chosen]


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """`pixels` as grey or colour; those in a file become it as they are read."""
    if isinstance(pixels, Stored):
        return replace(pixels, channels=channels)
    return converted(pixels, channels)


def at_once(n_bytes: int) -> int:
    """How many images of so many bytes each are looked at together."""
    return max(1, AT_ONCE // max(1, n_bytes))


def piecewise(pixels: Pixels | Positions) -> Iterator[npt.NDArray[np.generic]]:
    """All images in their order, some of them at once."""
    n = at_once(math.prod(pixels.shape[1:]) * pixels.dtype.itemsize)
    for start in range(0, len(pixels), n):
        yield pixels[start : start + n]


def converted(pixels: Array, channels: int) -> Array:
    """`pixels` [n, height, width, any] as grey or colour: luminance is ITU-R 601 in Pillow's fixed point."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    grey = np.empty((*pixels.shape[:-1], 1), np.uint8)
    for image, result in zip(pixels, grey, strict=True):  # one by one: all at once would take eight times their memory
        luminance = np.full(image.shape[:-1], 1 << 15, np.uint32)
        for channel, weight in enumerate((19595, 38470, 7471)):  # 0.299, 0.587, 0.114 times 2 ** 16
            luminance += image[..., channel].astype(np.uint32) * np.uint32(weight)
        result[..., 0] = luminance >> 16
    return grey
