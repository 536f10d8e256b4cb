"""Data sets as tensors on the device: what is trained on, what validates it, and hashes that say which data it was.

Splits are stratified and depend on the labels and a seed alone. The test split of a data set is opened by `held_out`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from objectives.data import cautions, content
from objectives.data.card import essentials, sides_of
from objectives.data.duplicates import Positions, repetitions
from objectives.data.reading import read, without_small_classes
from objectives.data.room import check_fits, free_on_host
from objectives.data.sources import Bytes, Labelled
from objectives.errors import DataError
from objectives.task import DataSpec

RESIZED_AT_ONCE = 256  # images: what lies between the old pixels and the new ones takes memory too
COUNTED_AT_ONCE = 4096  # images: their channel is copied
MAX_VALIDATION = 5000  # images; a fifth of the training set where that is less


@dataclass(frozen=True)
class Images:
    """Labelled images on the device."""

    x: torch.Tensor  # [n, channels, size, size] uint8, memory format channels_last
    y: torch.Tensor  # [n] int64

    def on(self, device: torch.device) -> Images:
        """The same images on a device."""
        return Images(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Dataset:
    """Training and validation images of one study."""

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    mean: tuple[float, ...]  # per channel of the training images in use, of pixel values scaled to [0, 1]
    std: tuple[float, ...]  # likewise; at least one grey level, so that it can divide
    flip: bool  # whether a horizontal flip keeps the label
    content_hash: str  # SHA-256 over all training images before the split, their labels, the class names
    split_hash: str  # SHA-256 over the positions of validation and training images
    skipped: tuple[str, ...]  # images that cannot be used: 'relative/path: reason'
    warnings: tuple[str, ...]  # what a user should know of the images that are used, a line each
    about: str = ""  # how many images of what classes and sizes, and how they are split: three lines
    by_class: tuple[content.Class, ...] = ()  # what tells two data sets apart in words
    named: content.Names = field(default_factory=dict)  # every image; empty where they are no files, or many

    @property
    def size(self) -> int:
        """Side of the square images, pixels."""
        return self.train.x.shape[-1]

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour)."""
        return self.train.x.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def on(self, device: torch.device) -> Dataset:
        """The same images on a device."""
        return replace(self, train=self.train.on(device), val=self.val.on(device))


def load(spec: DataSpec, device: torch.device) -> Dataset:
    """The data that `spec` describes, decoded, split and on `device`.

    Raises:
        DataError: the data set is unknown, not to be found, or not usable as it is.
    """
    source = read(spec)
    assert source is not None
    found = without_small_classes(source, spec)
    sides = sides_of(found)
    pixels = resized(with_channels(found.pixels, spec.channels or found.pixels.shape[-1]), spec.size)
    found = replace(found, pixels=pixels)
    train, val = _split(found, spec)
    images = [as_images(pixels, found.labels, chosen) for chosen in (train, val)]
    mean, std = _statistics(images[0].x)
    known = content.digests(pixels)
    return Dataset(
        name=spec.name,
        classes=found.classes,
        train=images[0].on(device),
        val=images[1].on(device),
        mean=mean,
        std=std,
        flip=found.flip if spec.flip is None else spec.flip,
        content_hash=_hash(pixels, found.labels, found.classes),
        split_hash=_hash(val, train, ()),
        skipped=found.skipped,
        warnings=(
            *found.warnings,
            *cautions.of_classes(found.classes, found.labels, val),
            *repetitions(found, train, val, known),
        ),
        about=essentials(found, sides, len(train), len(val)),
        by_class=content.by_class(known, found.labels, found.classes),
        named=content.names_of(known, found.labels, found.classes, found.names),
    )


def with_channels(pixels: Bytes, channels: int) -> Bytes:
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


def resized(pixels: Bytes, size: int | None) -> Bytes:
    """Square `pixels` [n, any, any, channels] at another size: bilinear, antialiased, as folders are decoded.

    Raises:
        DataError: memory does not hold them.
    """
    if size is None or pixels.shape[1] == size:
        return pixels
    check_fits(len(pixels), size, pixels.shape[-1], free_on_host())
    made = np.empty((len(pixels), size, size, pixels.shape[-1]), np.uint8)
    for start in range(0, len(pixels), RESIZED_AT_ONCE):
        x = torch.tensor(pixels[start : start + RESIZED_AT_ONCE]).permute(0, 3, 1, 2)
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        made[start : start + RESIZED_AT_ONCE] = x.permute(0, 2, 3, 1).numpy()
    return made


def _split(found: Labelled, spec: DataSpec) -> tuple[Positions, Positions]:
    """Positions of the images to train on and to validate with; validation depends on the seed, not on `n_train`."""
    random = np.random.default_rng(spec.seed)
    labels, n_classes = found.labels, len(found.classes)
    if found.validates is None:
        val = _set_aside(labels, max(1, min(MAX_VALIDATION, len(labels) // 5)), random)
    else:
        val = np.flatnonzero(found.validates)
    if not len(val):
        raise DataError(f"the validation split has no image that can be used ({found.validation}): add some")
    rest = np.setdiff1d(np.arange(len(labels)), val)
    if spec.n_train is None:
        return rest, val
    if not n_classes <= spec.n_train <= len(rest):
        counts = f"{len(rest)} images are left after validation and each of {n_classes} classes needs one"
        raise DataError(f"n_train is {spec.n_train}: {counts}, choose {n_classes} to {len(rest)}")
    unused = _set_aside(labels[rest], len(rest) - spec.n_train, random)
    return np.delete(rest, unused), val


def _set_aside(labels: npt.NDArray[np.int64], n: int, random: np.random.Generator) -> Positions:
    """Positions of `n` images, drawn from every class in proportion to its size, but never the last image of a class.

    Not scikit-learn's `train_test_split`: it refuses parts with fewer images than there are classes, may take the last
    image of a class, and would make every training need scikit-learn. What proportion leaves open goes to the classes
    furthest below their share, by lot among equals.
    """
    counts = np.bincount(labels)
    assert n <= len(labels) - len(counts)
    share = n * counts / len(labels)
    quota = np.minimum(share.astype(np.int64), counts - 1)
    while missing := n - int(quota.sum()):
        able = np.flatnonzero(quota < counts - 1)
        neediest = able[np.lexsort((random.random(len(able)), (quota - share)[able]))]
        quota[neediest[:missing]] += 1
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # within the class
    return np.sort(by_class[rank < np.repeat(quota, counts)])


def as_images(pixels: Bytes, labels: npt.NDArray[np.int64], chosen: Positions) -> Images:
    """The chosen of some decoded images, on the CPU."""
    x = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return Images(x, torch.from_numpy(labels[chosen]))


def _statistics(x: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of `x` scaled to [0, 1]: exact, from a histogram of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in x.unbind(1):
        counts = torch.zeros(256, dtype=torch.int64)
        for start in range(0, len(channel), COUNTED_AT_ONCE):
            counts += torch.bincount(channel[start : start + COUNTED_AT_ONCE].flatten(), minlength=256)
        share = counts.double() / channel.numel()
        mean = float(share @ values)
        means.append(mean)
        deviations.append(max(float(share @ (values - mean) ** 2) ** 0.5, 1 / 255))
    return tuple(means), tuple(deviations)


def _hash(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic], names: tuple[str, ...]) -> str:
    whole = hashlib.sha256(json.dumps([first.shape, second.shape, names]).encode())
    for array in (first, second):
        whole.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return whole.hexdigest()
