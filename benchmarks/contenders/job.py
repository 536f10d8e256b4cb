"""What a contender of `benchmarks.ten_minutes` is given, and what it hands over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.folders import images

Bytes = npt.NDArray[np.uint8]

BATCH = 64  # of training, in all of them
VALIDATION = 0.2  # share of the images that a choice is made by
LARGE = 64  # pixels: from here on networks halve images at once, and gradients are taken over larger cells


@dataclass(frozen=True)
class Job:
    """What a contender is given."""

    shown: Path  # holds train/CLASS
    seconds: float  # of CPU, from the start of the process on
    seed: int

    @property
    def files(self) -> list[Path]:
        """The training images."""
        return images(self.shown / "train")

    @property
    def left(self) -> float:
        """CPU seconds that may still be used."""
        return self.seconds - time.process_time()


@dataclass(frozen=True)
class Ready:
    """A classifier at the end of its budget."""

    predict: Callable[[Sequence[Path]], list[str]]  # classes of images
    about: dict[str, object]  # how it came about
    told: float | None = None  # accuracy on the images that it was chosen by
    curve: tuple[tuple[float, float], ...] = ()  # (CPU seconds, that accuracy so far)


def pixels_of(files: Sequence[Path]) -> Bytes:
    """Images of one size as [n, height, width, channels]."""
    found = []
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image)
        found.append(pixels[:, :, None] if pixels.ndim == 2 else pixels)
    return np.stack(found)
