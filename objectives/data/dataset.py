"""Data sets as tensors on the device: what is trained on, what validates it, and hashes that say which data it was.

Splits are stratified and depend on the labels, a seed and the images that a study claims to train on. Few images are
split several times, so that each validates once. The test split of a data set is opened by `held_out`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from objectives.data import cautions, content
from objectives.data.duplicates import Positions, repetitions
from objectives.data.folders import read_folder, read_test
from objectives.data.sources import Bytes, Labelled, cifar, digits, fashion_mnist
from objectives.errors import DataError
from objectives.task import DataSpec
from objectives.words import counted, expanded, printable, some

DEFAULT_SIZE = 32  # pixels; side of the images of a folder when the study names none
RESIZED_AT_ONCE = 256  # images: what lies between the old pixels and the new ones takes memory too
WATCHED = 256  # images that a training on all of them is looked at by
MAX_VALIDATION = 5000  # images; a fifth of the training set where that is less
FEW = 300  # images: fewer are split several times: by a third of them an accuracy is known to 10 points at best

Splits = Sequence[tuple[Positions, Positions]]  # images to train on and to validate with, of each split


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
    about: str = ""  # how many images of what kind, and how they are split: a line
    by_class: tuple[content.Class, ...] = ()  # what tells two data sets apart in words
    named: content.Names = field(default_factory=dict)  # every image; empty where they are no files, or many
    again: tuple[Dataset, ...] = ()  # few images split otherwise: no image validates twice

    @property
    def splits(self) -> tuple[Dataset, ...]:
        """This split and the others: trained side by side."""
        return (self, *self.again)

    @property
    def validated(self) -> torch.Tensor:
        """Labels of all images that validate, in one split or another."""
        return torch.cat([split.val.y for split in self.splits])

    @property
    def whole(self) -> Dataset:
        """All images to train on; a few of them are looked at, too, to see whether a training diverges."""
        x = torch.cat((self.train.x, self.val.x)).contiguous(memory_format=torch.channels_last)
        seen = Images(self.val.x[:WATCHED], self.val.y[:WATCHED])
        return replace(self, train=Images(x, torch.cat((self.train.y, self.val.y))), val=seen, again=())

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
        again = tuple(split.on(device) for split in self.again)
        return replace(self, train=self.train.on(device), val=self.val.on(device), again=again)


def load(spec: DataSpec, device: torch.device) -> Dataset:
    """The data that `spec` describes, decoded, split and on `device`.

    Raises:
        DataError: the data set is unknown, not to be found, or not usable as it is.
    """
    source = read(spec)
    assert source is not None
    found = _without_small_classes(source, spec)
    pixels = resized(with_channels(found.pixels, spec.channels or found.pixels.shape[-1]), spec.size)
    found = replace(found, pixels=pixels)
    splits = splits_of(found, spec)
    known = content.digests(pixels)
    trains, vals = (np.concatenate(part) for part in zip(*splits, strict=True))
    (train, val), *others = ([as_images(pixels, found.labels, part) for part in split] for split in splits)
    mean, std = _statistics(train.x)
    dataset = Dataset(
        name=spec.name,
        classes=found.classes,
        train=train,
        val=val,
        mean=mean,
        std=std,
        flip=found.flip if spec.flip is None else spec.flip,
        content_hash=_hash(pixels, found.labels, found.classes),
        split_hash=_hash(vals, trains, ()),
        skipped=found.skipped,
        warnings=(*found.warnings, *_warnings(found, splits, known)),
        about=_about(found, splits),
        by_class=content.by_class(known, found.labels, found.classes),
        named=content.names_of(known, found.labels, found.classes, found.names),
    )
    return replace(dataset, again=tuple(_otherwise(dataset, *split) for split in others)).on(device)


def _otherwise(dataset: Dataset, train: Images, val: Images) -> Dataset:
    """The same data in another split."""
    mean, std = _statistics(train.x)
    return replace(dataset, train=train, val=val, mean=mean, std=std)


def _warnings(found: Labelled, splits: Splits, known: npt.NDArray[np.uint64]) -> tuple[str, ...]:
    """What a user should know of the images that are used, a line each."""
    val = np.concatenate([val for _, val in splits])
    copies = max((repetitions(found, *split, known) for split in splits), key=len)  # the same in others, or fewer
    return (
        *cautions.of_classes(found.classes, found.labels, val),
        *cautions.of_few(len(val), found.validation),
        *copies,
    )


def _about(found: Labelled, splits: Splits) -> str:
    n, height, width, channels = found.pixels.shape
    what = f"{n} images of {height}x{width} in {'colour' if channels == 3 else 'grey'}, {len(found.classes)} classes"
    n_train, n_val = map(len, splits[0])
    unused = n - n_train - n_val
    train = f"{n_train} of {n_train + unused} to train" if unused else f"{n_train} to train"
    origin = found.validation or "split off"
    if len(splits) > 1:
        origin = f"split off, {len(splits)} times: each image validates once"
    return "; ".join((f"{what}: {train}, {n_val} to validate ({origin})", *found.remarks))


def read(spec: DataSpec, *, test: bool = False) -> Labelled | None:
    """The images that `spec` names as their source holds them; with `test` those of the test split, where there is one.

    Raises:
        DataError: they are not to be found, or cannot be read.
    """
    kind, _, path = spec.name.partition(":")
    root = Path(expanded(spec.root)) if spec.root is not None else None
    try:
        if kind == "folder" and path:
            folder = _find_folder(path, root)
            table = _find_table(spec.labels, [folder, *([root] if root else [])]) if spec.labels is not None else None
            size = DEFAULT_SIZE if spec.size is None else spec.size
            if test:
                return read_test(folder, size, table, spec.follow_links)
            return read_folder(folder, size, table, spec.follow_links, spec.drop_small_classes)
        if spec.name == "digits":
            return digits(test=test)
        if spec.name == "fashion_mnist":
            return fashion_mnist(root, test=test)
        if spec.name in ("cifar10", "cifar100"):
            return cifar(spec.name, root, test=test)
    except ModuleNotFoundError as error:
        raise DataError(f"data set {spec.name!r} needs the Python package {error.name!r}: install it") from error
    except OSError as error:
        raise DataError(printable(f"data set {spec.name!r} cannot be read: {error}")) from error
    known = "digits, fashion_mnist, cifar10, cifar100 or folder:PATH"
    raise DataError(printable(f"unknown data set {spec.name!r}: choose {known}"))


def _find_folder(path: str, root: Path | None) -> Path:
    """`path` under `root` if it is there, else as it stands."""
    plain = Path(expanded(path))
    places = [root / plain, plain] if root and not plain.is_absolute() else [plain]
    for place in places:
        if place.is_dir():
            return place
    if files := [place for place in places if place.is_file()]:
        raise DataError(printable(f"{files[0]} is a file: unpack it, or pass folder:{files[0].parent}"))
    raise DataError(printable(f"there is no folder {' or '.join(map(str, places))}: check the path after 'folder:'"))


def _find_table(table: str, places: Sequence[Path]) -> Path:
    """The table as it stands, or in one of the places."""
    plain = Path(expanded(table))
    for place in (plain, *(place / plain for place in places)):
        if place.is_file():
            return place
    looked = ", ".join(map(str, ("here", *places)))
    raise DataError(printable(f"there is no table of labels {table} ({looked}): check the path after --labels"))


def _without_small_classes(found: Labelled, spec: DataSpec) -> Labelled:
    """`found` with an image to train on in every class, and one to spare where validation is not given."""
    least = 2 if found.validates is None else 1
    may_train = found.labels if found.validates is None else found.labels[~found.validates]
    counts = np.bincount(may_train, minlength=len(found.classes))
    large = np.flatnonzero(counts >= least)
    if len(large) == len(found.classes) >= 2:
        return found
    small = [name for name, count in zip(found.classes, counts, strict=True) if count < least]
    where = printable(spec.labels or spec.name.removeprefix("folder:"))
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
        pixels=found.pixels[kept],
        labels=position[found.labels[kept]],
        classes=tuple(found.classes[i] for i in large),
        names=tuple(name for name, keep in zip(found.names, kept, strict=True) if keep) if found.names else (),
        validates=None if found.validates is None else found.validates[kept],
        remarks=(*found.remarks, f"without {counted(len(small), 'small class')} ({some(small)})"),
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
    """Square `pixels` [n, any, any, channels] at another size: bilinear, antialiased, as folders are decoded."""
    if size is None or pixels.shape[1] == size:
        return pixels
    made = np.empty((len(pixels), size, size, pixels.shape[-1]), np.uint8)
    for start in range(0, len(pixels), RESIZED_AT_ONCE):
        x = torch.tensor(pixels[start : start + RESIZED_AT_ONCE]).permute(0, 3, 1, 2)
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        made[start : start + RESIZED_AT_ONCE] = x.permute(0, 2, 3, 1).numpy()
    return made


def n_validated(n: int, n_train: int | None = None) -> int:
    """How many of `n` images are split off for validation: a fifth, at most 5000; of fewer than 2000 images more.

    Below 2000 it falls by one image in seven, up to a third of all at 600 and below: what few images teach is little
    more with a fifth of them less, what they tell of an accuracy is. It leaves what a study claims to train on, as far
    as a fifth for validation allows.
    """
    grown = min(n // 3, (n + 800) // 7, n - (n_train or 0))
    return min(MAX_VALIDATION, max(1, n // 5, grown))


def n_splits(n: int, n_train: int | None = None) -> int:
    """How often `n` images are split: once, or fewer than 300 as often as parts of them cover all.

    Three parts are a third each, which is what so few images give to validation, and a fourth split would only repeat
    them. Where a study claims more than two thirds to train on, four or five smaller ones leave that.
    """
    if n >= FEW:
        return 1
    return min(n, next((k for k in (3, 4) if n - -(-n // k) >= (n_train or 0)), 5))


def splits_of(found: Labelled, spec: DataSpec) -> Splits:
    """Every split; what validates depends on the seed, and on `n_train` only where that claims most of the images."""
    random = np.random.default_rng(spec.seed)
    labels, n = found.labels, len(found.labels)
    if found.validates is not None:
        vals = [np.flatnonzero(found.validates)]
    elif (k := n_splits(n, spec.n_train)) > 1:
        vals = _dealt(labels, k, random)
    else:
        vals = [_set_aside(labels, n_validated(n, spec.n_train), random, spares_none=True)]
    if not len(vals[0]):
        raise DataError(f"the validation split has no image that can be used ({found.validation}): add some")
    rests = [np.setdiff1d(np.arange(n), val) for val in vals]
    if spec.n_train is None:
        return list(zip(rests, vals, strict=True))
    n_classes, most = len(found.classes), _most_to_train(found)
    if not n_classes <= spec.n_train <= most:
        counts = f"{most} images are left after validation and each of {n_classes} classes needs one"
        raise DataError(f"n_train is {spec.n_train}: {counts}, choose {n_classes} to {most}")
    unused = [_set_aside(labels[rest], len(rest) - spec.n_train, random) for rest in rests]
    return [(np.delete(rest, some), val) for rest, some, val in zip(rests, unused, vals, strict=True)]


def _most_to_train(found: Labelled) -> int:
    """Images that can be trained on at most."""
    if found.validates is not None:
        return int(np.count_nonzero(~found.validates))
    n = len(found.labels)
    return n - (n_validated(n, n) if n >= FEW else -(-n // n_splits(n, n)))


def _dealt(labels: npt.NDArray[np.int64], k: int, random: np.random.Generator) -> list[Positions]:
    """All images in `k` parts: of sizes that differ by one at most, as are those of every class in them."""
    by_class = _shuffled(labels, random)
    return [np.sort(by_class[start::k]) for start in range(k)]


def _set_aside(
    labels: npt.NDArray[np.int64], n: int, random: np.random.Generator, *, spares_none: bool = False
) -> Positions:
    """Positions of `n` images, drawn from every class in proportion to its size, but never the last image of a class.

    Not scikit-learn's `train_test_split`: it refuses parts with fewer images than there are classes, may take the last
    image of a class, and would make every training need scikit-learn. What proportion leaves open goes to the classes
    furthest below their share, by lot among equals. `spares_none`: every class of at least two images gives one, where
    `n` suffices; classes that miss an image least make up for it.
    """
    counts = np.bincount(labels)
    assert n <= len(labels) - len(counts)
    share = n * counts / len(labels)
    least = np.minimum(counts - 1, 1) if spares_none and n >= np.count_nonzero(counts > 1) else 0 * counts
    quota = np.clip(share.astype(np.int64), least, counts - 1)
    while (missing := n - int(quota.sum())) > 0:
        able = np.flatnonzero(quota < counts - 1)
        neediest = able[np.lexsort((random.random(len(able)), (quota - share)[able]))]
        quota[neediest[:missing]] += 1
    for _ in range(-missing):
        quota[np.argmax(np.where(quota > least, (quota - 1) / share, -1.0))] -= 1
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # within the class
    return np.sort(_shuffled(labels, random)[rank < np.repeat(quota, counts)])


def _shuffled(labels: npt.NDArray[np.int64], random: np.random.Generator) -> Positions:
    """Positions class by class, shuffled within each."""
    shuffled = random.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def as_images(pixels: Bytes, labels: npt.NDArray[np.int64], chosen: Positions) -> Images:
    """The chosen of some decoded images, on the CPU."""
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
