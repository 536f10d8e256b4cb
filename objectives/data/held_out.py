"""The test split: images that nothing of a study has seen, opened once, when its front has been confirmed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.data.cache.stored import Stored, at_once, part, with_channels
from objectives.data.cautions import of_test
from objectives.data.content import digests
from objectives.data.dataset import Dataset, Images, as_images, resized
from objectives.data.duplicates import n_shared
from objectives.data.reading import read
from objectives.errors import DataError
from objectives.task import DataSpec
from objectives.words import counted, some


@dataclass(frozen=True)
class HeldOut:
    """The images of a test split."""

    images: Images
    warnings: tuple[str, ...]  # what should be known of them, a line each


def load_test(spec: DataSpec, dataset: Dataset) -> HeldOut | None:
    """The test split of the data that `dataset` was made from, with its classes, size and channels, on its device.

    None where the data have none. Images of a class that is not in training are left out.

    Raises:
        DataError: they cannot be read.
    """
    found = read(spec, test=True)
    if found is None:
        return None
    position = np.array([dataset.classes.index(name) if name in dataset.classes else -1 for name in found.classes])
    labels = position[found.labels]
    known = np.flatnonzero(labels >= 0)
    warnings = list(found.warnings)
    if len(known) < len(labels):
        others = [name for name in found.classes if name not in dataset.classes]
        warnings.append(of_test(len(labels) - len(known), others))
    if found.skipped:
        warnings.append(f"{counted(len(found.skipped), 'test file')} cannot be used ({some(found.skipped)})")
    if not len(known):
        return None
    pixels = found.pixels
    if not dataset.is_series:
        pixels = resized(with_channels(pixels, dataset.channels), dataset.size)
    elif (shape := pixels.shape[2:]) != (dataset.size, dataset.channels):
        raise DataError(f"x_test has {shape[1]} channels of length {shape[0]}, x has others: make them alike")
    seen = [_digests(images) for images in (dataset.train, dataset.val)]
    if n := n_shared(digests(part(pixels, known)), np.concatenate(seen)):
        warnings.append(
            f"test images that are training or validation images as well: {n} of {len(known)}: "
            "the test accuracy is too high, remove the copies"
        )
    images = as_images(pixels, labels, known, streamed=isinstance(pixels, Stored))  # each is looked at now and then
    # where a memory does not hold those that train, these would not have room beside what trains either
    return HeldOut(images.on(dataset.train.x.device, streamed=dataset.is_streamed), tuple(warnings))


def _digests(images: Images) -> npt.NDArray[np.uint64]:
    """[n, 2] of images as data sets have them."""
    parts = images.piecewise(at_once(math.prod(images.x.shape[1:])))
    return np.concatenate([digests(x.permute(0, 2, 3, 1).contiguous().cpu().numpy()) for x, _ in parts])
