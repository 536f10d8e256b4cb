"""Data sets as tensors on the device: what is trained on, what validates it, and hashes that say which data it was.

Splits are stratified and depend on the labels and a seed alone. The test split of a data set is never opened here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from objectives.data.duplicates import Positions, repetitions
from objectives.data.folders import read_folder
from objectives.data.sources import Bytes, Labelled, cifar, digits, fashion_mnist, printable, some
from objectives.errors import DataError
from objectives.task import DataSpec

DEFAULT_SIZE = 32  # pixels; side of the images of a folder when the study names none
RESIZED_AT_ONCE = 256  # images: what lies between the old pixels and the new ones takes memory too
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
    found = _without_small_classes(_read(spec), spec.drop_small_classes)
    pixels = _resized(_with_channels(found.pixels, spec.channels or found.pixels.shape[-1]), spec.size)
    found = replace(found, pixels=pixels)
    train, val = _split(found.labels, spec)
    images = [_images(pixels, found.labels, chosen) for chosen in (train, val)]
    mean, std = _statistics(images[0].x)
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
        warnings=repetitions(found, train, val),
    )


def _read(spec: DataSpec) -> Labelled:
    kind, _, path = spec.name.partition(":")
    root = Path(spec.root).expanduser() if spec.root else None
    try:
        if kind == "folder" and path:
            return read_folder(_find_folder(path, root), spec.size or DEFAULT_SIZE)
        if spec.name == "digits":
            return digits()
        if spec.name == "fashion_mnist":
            return fashion_mnist(root)
        if spec.name in ("cifar10", "cifar100"):
            return cifar(spec.name, root)
    except ModuleNotFoundError as error:
        raise DataError(f"data set {spec.name!r} needs the Python package {error.name!r}: install it") from error
    except OSError as error:
        raise DataError(printable(f"data set {spec.name!r} cannot be read: {error}")) from error
    known = "digits, fashion_mnist, cifar10, cifar100 or folder:PATH"
    raise DataError(printable(f"unknown data set {spec.name!r}: choose {known}"))


def _find_folder(path: str, root: Path | None) -> Path:
    """`path` under `root` if it is there, else as it stands."""
    plain = Path(path).expanduser()
    places = [root / plain, plain] if root and not plain.is_absolute() else [plain]
    for place in places:
        if place.is_dir():
            return place
    raise DataError(printable(f"there is no folder {' or '.join(map(str, places))}: check the path after 'folder:'"))


def _without_small_classes(found: Labelled, drop: bool) -> Labelled:
    """`found` with at least two images in every class: one to train on, one to spare for validation."""
    counts = np.bincount(found.labels, minlength=len(found.classes))
    large = np.flatnonzero(counts >= 2)
    if len(large) == len(found.classes) >= 2:
        return found
    small = [name for name, count in zip(found.classes, counts, strict=True) if count < 2]
    if small and not drop:
        way_out = "add images or set drop_small_classes = true"
        raise DataError(f"{len(small)} classes have fewer than two images ({some(small)}): {way_out}")
    if len(large) < 2:
        dropped = f" once {some(small)} are dropped" if small else ""
        raise DataError(f"there are {len(large)} classes{dropped}: a classifier needs at least two, add images")
    position = np.full(len(found.classes), -1)
    position[large] = np.arange(len(large))
    kept = position[found.labels] >= 0
    classes = tuple(found.classes[i] for i in large)
    names = tuple(name for name, keep in zip(found.names, kept, strict=True) if keep) if found.names else ()
    return replace(found, pixels=found.pixels[kept], labels=position[found.labels[kept]], classes=classes, names=names)


def _with_channels(pixels: Bytes, channels: int) -> Bytes:
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


def _resized(pixels: Bytes, size: int | None) -> Bytes:
    """Square `pixels` [n, any, any, channels] at another size: bilinear, antialiased, as folders are decoded."""
    if size is None or pixels.shape[1] == size:
        return pixels
    resized = np.empty((len(pixels), size, size, pixels.shape[-1]), np.uint8)
    for start in range(0, len(pixels), RESIZED_AT_ONCE):
        x = torch.tensor(pixels[start : start + RESIZED_AT_ONCE]).permute(0, 3, 1, 2)
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        resized[start : start + RESIZED_AT_ONCE] = x.permute(0, 2, 3, 1).numpy()
    return resized


def _split(labels: npt.NDArray[np.int64], spec: DataSpec) -> tuple[Positions, Positions]:
    """Positions of the images to train on and to validate with; validation depends on the seed, not on `n_train`."""
    random = np.random.default_rng(spec.seed)
    n_classes = int(labels.max()) + 1
    val = _set_aside(labels, max(1, min(MAX_VALIDATION, len(labels) // 5)), random)
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


def _images(pixels: Bytes, labels: npt.NDArray[np.int64], chosen: Positions) -> Images:
    x = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return Images(x, torch.from_numpy(labels[chosen]))


def _statistics(x: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of `x` scaled to [0, 1]: exact, from a histogram of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in x.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(share @ values)
        means.append(mean)
        deviations.append(max(float(share @ (values - mean) ** 2) ** 0.5, 1 / 255))
    return tuple(means), tuple(deviations)


def _hash(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic], names: tuple[str, ...]) -> str:
    whole = hashlib.sha256(json.dumps([first.shape, second.shape, names]).encode())
    for array in (first, second):
        whole.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return whole.hexdigest()
