"""Folders of images for `benchmarks.ten_minutes`: what a contender may train on, and images that it never sees.

`ROOT/NAME-SEED/shown/train/CLASS` holds the former, `ROOT/NAME-SEED/hidden/CLASS` the latter. Every seed draws images
of its own, the hidden ones from the test split of the source. What is there is not made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from objectives.data.sources import Labelled, fashion_mnist

TRAIN, TEST = "train", "test"  # splits of a source
THREE = ("cat", "dog", "horse")  # classes of cifar10-3
Write = Callable[[Path], object]  # of one image, to a path without a suffix
Pool = dict[str, list[Write]]  # images of a split by class


@dataclass(frozen=True)
class Drawn:
    """The folders of one data set and seed."""

    name: str
    seed: int
    folder: Path

    @property
    def shown(self) -> Path:
        """What a contender is given: a folder with `train` in it."""
        return self.folder / "shown"

    @property
    def hidden(self) -> Path:
        """A folder a class of images that it is not told of."""
        return self.folder / "hidden"


@dataclass(frozen=True)
class Source:
    """Where the images of a data set come from, and how many of them are drawn."""

    pool: Callable[[str, Path | None], Pool]  # of a split and the folder of CIFAR-10
    n_train: int  # images a class
    n_test: int  # likewise


def cifar10(split: str, cifar: Path | None) -> Pool:
    """CIFAR-10 as files that are copied."""
    return {name: [_copied(file) for file in files] for name, files in _cifar_files(split, cifar)}


def three_classes(split: str, cifar: Path | None) -> Pool:
    """Three classes of CIFAR-10, three times as large: what photographs of one's own often are, blurred."""
    return {name: [_enlarged(file) for file in files] for name, files in _cifar_files(split, cifar) if name in THREE}


def fashion(split: str, cifar: Path | None) -> Pool:
    """Fashion-MNIST as PNG."""
    found = _fashion(split)
    names = [name.replace("/", " or ") for name in found.classes]
    return {
        name: [_pixels(found.pixels[i, :, :, 0]) for i in np.flatnonzero(found.labels == label)]
        for label, name in enumerate(names)
    }


SOURCES = {
    "cifar10": Source(cifar10, 500, 200),
    "fashion_mnist": Source(fashion, 600, 200),
    "cifar10-3": Source(three_classes, 500, 667),
}


def drawn(name: str, seed: int, root: Path, cifar: Path | None) -> Drawn:
    """The folders of a data set and seed, made where they are not there yet."""
    folder, source = root / f"{name}-{seed}", SOURCES[name]
    if not folder.exists():
        partial = root / f".{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        made = Drawn(name, seed, partial)
        _write(source.pool(TRAIN, cifar), source.n_train, np.random.default_rng((seed, 0)), made.shown / "train")
        _write(source.pool(TEST, cifar), source.n_test, np.random.default_rng((seed, 1)), made.hidden)
        partial.rename(folder)
    return Drawn(name, seed, folder)


def images(folder: Path) -> list[Path]:
    """The images below a folder a class, in a fixed order."""
    return sorted(path for path in folder.glob("*/*") if path.is_file())


def _write(pool: Pool, n: int, random: np.random.Generator, folder: Path) -> None:
    for name, writes in sorted(pool.items()):
        if len(writes) < n:
            raise SystemExit(f"{len(writes)} images of class {name}, {n} are to be drawn: use the whole data set")
        (folder / name).mkdir(parents=True)
        for position, chosen in enumerate(random.choice(len(writes), n, replace=False)):
            writes[chosen](folder / name / f"{position:04d}")


def _cifar_files(split: str, cifar: Path | None) -> Iterator[tuple[str, Iterable[Path]]]:
    if cifar is None or not (cifar / split).is_dir():
        raise SystemExit(f"no folder {split} of CIFAR-10 as images: --cifar FOLDER that holds train and test")
    for folder in sorted((cifar / split).iterdir()):
        yield folder.name, sorted(folder.iterdir())


def _copied(file: Path) -> Write:
    return lambda path: shutil.copyfile(file, path.with_suffix(file.suffix))


def _enlarged(file: Path, side: int = 96) -> Write:
    def write(path: Path) -> None:
        with Image.open(file) as image:
            image.resize((side, side), Image.Resampling.BILINEAR).save(path.with_suffix(".jpg"), quality=95)

    return write


def _pixels(pixels: np.ndarray) -> Write:
    return lambda path: Image.fromarray(pixels).save(path.with_suffix(".png"))


@cache
def _fashion(split: str) -> Labelled:
    return fashion_mnist(None, test=split == TEST)
