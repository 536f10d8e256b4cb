"""Images that memory does not hold: some of them are fetched as they are used, by threads that are a few batches ahead.

What is fetched is bit for bit what a tensor of all images would give. Where images lie in a file, what the kernel keeps
of it in memory that nobody needs otherwise makes it fast; where they lie in the memory of the host, they are streamed
to a GPU. Waiting for images happens on the clock of whoever asks for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from objectives.data.cache.stored import Array, Pixels

MOST_AHEAD = 4  # batches, each of which a thread of its own reads: a disk answers several at once
AHEAD = 32 << 20  # bytes of images: fewer batches, where they are large
READERS = "frontrunner-reads"  # how the threads are called

Positions = npt.NDArray[np.int64]
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Joined:
    """Images of two places, one behind the other."""

    first: Pixels | Joined
    second: Pixels | Joined

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, height, width, channels]"""
        return len(self), *self.first.shape[1:]

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """That of both."""
        return self.first.dtype

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, rows: Positions) -> Array:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        is_first = rows < len(self.first)
        found[is_first] = self.first[rows[is_first]]
        found[~is_first] = self.second[rows[~is_first] - len(self.first)]
        return found


class Streamed:
    """Images [n, channels, height, width] that lie elsewhere, as a device sees them: asked for some, it fetches those.

    Of a tensor it has what those need who take a few images at a time: shape, device, and the images at some positions.
    """

    def __init__(self, pixels: Pixels | Joined, rows: Positions | None = None, device: torch.device = CPU) -> None:
        """`rows`: which of the images these are, all of them unless given; `device`: where they are fetched to."""
        self._pixels, self.device = pixels, device
        self._rows = np.arange(len(pixels)) if rows is None else rows

    @property
    def shape(self) -> torch.Size:
        """[n, channels, height, width]"""
        _, height, width, channels = self._pixels.shape
        return torch.Size((len(self._rows), channels, height, width))

    def __len__(self) -> int:
        return len(self._rows)

    def is_floating_point(self) -> bool:
        """Whether these are series."""
        return self._pixels.dtype.kind == "f"

    def __getitem__(self, chosen: slice | Tensor) -> Tensor:
        """The images at some positions, on the device in channels_last.

        Raises:
            DataError: they cannot be read.
        """
        rows = self._rows[chosen if isinstance(chosen, slice) else chosen.cpu().numpy()]
        return self._there(self._fetched(rows))

    def part(self, chosen: Tensor) -> Streamed:
        """The images at some positions, which stay where they are."""
        return Streamed(self._pixels, self._rows[chosen.cpu().numpy()], self.device)

    def on(self, device: torch.device) -> Streamed:
        """The same images, fetched to another device."""
        return Streamed(self._pixels, self._rows, device)

    def joined(self, other: Streamed) -> Streamed:
        """These images and then others like them, where they lie."""
        pixels, others = self._pixels, other._rows
        if other._pixels is not pixels:
            pixels, others = Joined(pixels, other._pixels), others + len(pixels)
        return Streamed(pixels, np.concatenate([self._rows, others]), self.device)

    def ahead(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """`self[part]` of each of the parts, in their order, fetched by threads while those before are in use.

        Closed, or left by an error, it waits for what is being read, and no thread stays.

        Raises:
            DataError: images cannot be read.
        """
        if not parts:
            return
        # one transfer for all parts: each would wait until a GPU is idle
        ends = np.cumsum([len(part) for part in parts])
        rows = iter(np.split(self._rows[torch.cat(list(parts)).cpu().numpy()], ends[:-1]))
        largest = max(map(len, parts)) * prod(self.shape[1:]) * self._pixels.dtype.itemsize
        n_ahead = max(1, min(MOST_AHEAD, len(parts), AHEAD // max(1, largest)))
        pending = deque[Future[Tensor]]()
        with ThreadPoolExecutor(n_ahead, READERS) as readers:
            try:
                pending.extend(readers.submit(self._fetched, each) for each in islice(rows, n_ahead))
                while pending:
                    found = pending.popleft().result()
                    pending.extend(readers.submit(self._fetched, each) for each in islice(rows, 1))
                    yield self._there(found)
            finally:
                for future in pending:
                    future.cancel()

    def _fetched(self, rows: Positions) -> Tensor:
        """The images in the memory of the host, of a kind that a GPU copies from by itself."""
        found = torch.from_numpy(self._pixels[rows])
        return (found.pin_memory() if self.device.type == "cuda" else found).permute(0, 3, 1, 2)

    def _there(self, found: Tensor) -> Tensor:
        return found.to(self.device, non_blocking=True)
