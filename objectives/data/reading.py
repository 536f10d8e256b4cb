"""Any data set that a spec may name, as its source holds it, with classes that can be learned. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from objectives.data import cautions
from objectives.data.cache.progress import Progress
from objectives.data.cache.stored import part
from objectives.data.folders import keep_folder, read_folder, read_test
from objectives.data.sources import Labelled, cifar, digits, fashion_mnist, series
from objectives.errors import DataError
from objectives.task import DataSpec
from objectives.words import counted, expanded, printable, some


def read(spec: DataSpec, *, test: bool = False) -> Labelled | None:
    """The images that `spec` names as their source holds them; with `test` those of the test split, where there is one.

    Raises:
        DataError: they are not to be found, or cannot be read.
    """
    root = Path(expanded(spec.root)) if spec.root is not None else None
    with readable(spec):
        if is_folder(spec):
            return read_test(spec) if test else read_folder(spec)
        if spec.is_series:
            path = Path(expanded(spec.name.removeprefix("series:")))
            under = root / path if root is not None and (root / path).is_file() else path
            return series(under, test=test)
        if spec.name == "digits":
            return digits(test=test)
        if spec.name == "fashion_mnist":
            return fashion_mnist(root, test=test)
        if spec.name in ("cifar10", "cifar100"):
            return cifar(spec.name, root, test=test)
    known = "digits, fashion_mnist, cifar10, cifar100, folder:PATH or series:FILE.npz"
    raise DataError(printable(f"unknown data set {spec.name!r}: choose {known}"))


def keep(spec: DataSpec, progress: Progress) -> int | None:
    """Fills the cache with what a folder lacks there; of data with a name, which need no decoding, nothing.

    Returns the bytes of the images of a folder, as memory would hold them, where they are known.

    Raises:
        DataError: as `read`, but for what only the decoded images show.
    """
    if is_folder(spec):
        with readable(spec):
            return keep_folder(spec, progress)
    return None


def is_folder(spec: DataSpec) -> bool:
    """Whether a spec means a folder of images."""
    return spec.kind == "folder" and spec.name != "folder:"


@contextmanager
def readable(spec: DataSpec) -> Iterator[None]:
    """Raises DataError where the block cannot read the data."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DataError(f"data set {spec.name!r} needs the Python package {error.name!r}: install it") from error
    except OSError as error:
        raise DataError(printable(f"data set {spec.name!r} cannot be read: {error}")) from error


def check_validation(found: Labelled) -> None:
    """Checks that a validation split which the data came with holds an image.

    Raises:
        DataError: none that can be used.
    """
    if found.validates is not None and not found.validates.any():
        raise DataError(f"the validation split has no image that can be used ({found.validation}): add some")


def without_small_classes(found: Labelled, spec: DataSpec) -> Labelled:
    """`found` with an image to train on in every class, and one to spare where validation is not given."""
    least = 2 if found.validates is None else 1
    may_train = found.labels if found.validates is None else found.labels[~found.validates]
    counts = np.bincount(may_train, minlength=len(found.classes))
    large = np.flatnonzero(counts >= least)
    if len(large) == len(found.classes) >= 2:
        return found
    small = [name for name, count in zip(found.classes, counts, strict=True) if count < least]
    where = printable(spec.labels or spec.name.removeprefix("folder:").removeprefix("series:"))
    if small and not spec.drop_small_classes:
        alike = cautions.look_alikes(found.classes)
        hint = f"; some look alike: {some(alike)}" if alike else ""
        needed = "fewer than two images" if least == 2 else "no image to train on"
        way_out = "add images" + (" or set drop_small_classes = true" if len(large) >= 2 else "")
        raise DataError(f"{counted(len(small), 'class')} with {needed} in {where} ({some(small)}): {way_out}{hint}")
    if len(large) < 2:
        dropped = f" once {some(small)} are dropped" if small else ""
        what = f"only {counted(len(large), 'class')} in {where}{dropped}"
        raise DataError(f"{what}: a classifier needs at least two, add images")
    position = np.full(len(found.classes), -1)
    position[large] = np.arange(len(large))
    kept = position[found.labels] >= 0
    return replace(
        found,
        pixels=part(found.pixels, kept),
        labels=position[found.labels[kept]],
        classes=tuple(found.classes[i] for i in large),
        names=tuple(name for name, stays in zip(found.names, kept, strict=True) if stays) if found.names else (),
        headers=None if found.headers is None else found.headers[kept],
        validates=None if found.validates is None else found.validates[kept],
        remarks=(*found.remarks, f"without {counted(len(small), 'small class')} ({some(small)})"),
    )
