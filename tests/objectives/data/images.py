"""Small folders of images, and what a data set made of them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from objectives.data.dataset import Dataset, Images, load
from objectives.task import DataSpec

CPU = torch.device("cpu")


def grey(seed: int, side: int = 4) -> bytes:
    """A square PGM file; another image for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, side * side, np.uint8)
    return b"P5 %d %d 255\n" % (side, side) + pixels.tobytes()


def make_folder(path: Path, counts: Sequence[int], names: Sequence[str] = (), side: int = 4) -> Path:
    """A folder with `counts[i]` distinct square grey images in class i."""
    seeds = iter(range(sum(counts)))
    for i, count in enumerate(counts):
        place = path / (names[i] if names else f"class{i:03}")
        place.mkdir(parents=True)
        for j in range(count):
            (place / f"{j:04}.pgm").write_bytes(grey(next(seeds), side))
    return path


def load_folder(path: Path, size: int | None = 4, **settings: object) -> Dataset:
    return load(DataSpec(f"folder:{path}", size=size, **settings), CPU)  # type: ignore[arg-type]


def as_set(images: Images) -> set[bytes]:
    return {x.numpy().tobytes() for x in images.x}  # in the order channel, row, column


def everything(data: Dataset) -> dict[int, set[bytes]]:
    """All pixels in use, by class."""
    x, y = torch.cat([data.train.x, data.val.x]), torch.cat([data.train.y, data.val.y])
    return {label: as_set(Images(x[y == label], y)) for label in range(data.n_classes)}


def files_under(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as file:
        file.write(head + array.tobytes())


def write_fashion(place: Path, labels: np.ndarray, images: np.ndarray, suffix: str = "") -> None:
    write_idx(place / f"train-images-idx3-ubyte{suffix}", images)
    write_idx(place / f"train-labels-idx1-ubyte{suffix}", labels)
