"""Data sets as tensors on the device: what is trained on, what validates it, and hashes that say which data it was.

Splits are stratified and depend on the labels, a seed and the images that a study claims to train on. Few images are
split several times, so that each validates once. The test split of a data set is opened by `held_out`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from objectives.data import cautions, content
from objectives.data.cache.scaled import scaled
from objectives.data.cache.stored import Pixels, at_once, piecewise, with_channels
from objectives.data.card import essentials, sides_of
from objectives.data.duplicates import Positions, repetitions
from objectives.data.reading import check_validation, read, without_small_classes
from objectives.data.room import check_fits, free_on_host, holds, told
from objectives.data.sources import Bytes, Labelled
from objectives.data.streaming import Streamed
from objectives.errors import DataError
from objectives.task import DataSpec

RESIZED_AT_ONCE = 256  # images: what lies between the old pixels and the new ones takes memory too
WATCHED = 256  # images that a training on all of them is looked at by
MAX_VALIDATION = 5000  # images; a fifth of the training set where that is less
FEW = 300  # images: fewer are split several times: by a third of them an accuracy is known to 10 points at best

Splits = Sequence[tuple[Positions, Positions]]  # images to train on and to validate with, of each split


@dataclass(frozen=True)
class Images:
    """Labelled images, on the device or streamed to it."""

    # [n, channels, size, size] uint8; series [n, channels, 1, length] float32. Memory format channels_last
    x: torch.Tensor | Streamed
    y: torch.Tensor  # [n] int64, on the device

    def on(self, device: torch.device, *, streamed: bool = False) -> Images:
        """The same images on a device, or `streamed` to it from where they are."""
        x = self.x
        if streamed and isinstance(x, torch.Tensor):
            x = Streamed(x.permute(0, 2, 3, 1).cpu().numpy())
        return Images(x.on(device) if isinstance(x, Streamed) else x.to(device), self.y.to(device))

    def part(self, chosen: torch.Tensor) -> Images:
        """Those at some positions: copied, or where they are streamed left where they lie."""
        if isinstance(self.x, Streamed):
            return Images(self.x.part(chosen), self.y[chosen])
        return Images(self.x[chosen].contiguous(memory_format=torch.channels_last), self.y[chosen])

    def joined(self, other: Images) -> Images:
        """These and then others."""
        y = torch.cat((self.y, other.y))
        if isinstance(self.x, Streamed) and isinstance(other.x, Streamed):
            return Images(self.x.joined(other.x), y)
        assert isinstance(self.x, torch.Tensor)
        assert isinstance(other.x, torch.Tensor)
        return Images(torch.cat((self.x, other.x)).contiguous(memory_format=torch.channels_last), y)

    def piecewise(self, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(x, y) of all images in their order, at most `n` at once, on the device."""
        x, ys = self.x, torch.split(self.y, n)
        if isinstance(x, Streamed):
            return zip(x.ahead(torch.split(torch.arange(len(self.y)), n)), ys, strict=True)
        return zip(torch.split(x, n), ys, strict=True)


@dataclass(frozen=True)
class Dataset:
    """Training and validation images of one study, or series in their place."""

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    mean: tuple[float, ...]  # per channel of the training images in use, of pixels scaled to [0, 1]; of series raw
    std: tuple[float, ...]  # likewise; at least one grey level, so that it can divide
    flip: bool  # whether a horizontal flip keeps the label
    content_hash: str  # SHA-256 over all training images before the split, their labels, the class names
    split_hash: str  # SHA-256 over the positions of validation and training images
    skipped: tuple[str, ...]  # files that cannot be used: 'relative/path: reason'
    warnings: tuple[str, ...]  # what a user should know of the images that are used, a line each
    about: str = ""  # how many images of what classes and sizes, and how they are split: three lines
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
        some = torch.arange(min(WATCHED, len(self.val.y)), device=self.val.y.device)
        return replace(self, train=self.train.joined(self.val), val=self.val.part(some), again=())

    @property
    def is_streamed(self) -> bool:
        """Whether images are fetched as they are used; else a memory of the device holds them."""
        return isinstance(self.train.x, Streamed)

    @property
    def is_series(self) -> bool:
        """Whether these are series instead of images."""
        return self.train.x.is_floating_point()

    @property
    def size(self) -> int:
        """Side of the square images, pixels, or length of the series."""
        return self.train.x.shape[-1]

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour); of series any number."""
        return self.train.x.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def on(self, device: torch.device) -> Dataset:
        """The same images on a device, streamed to a GPU whose memory does not hold them."""
        about, streamed = self.about, False
        if device.type == "cuda" and not self.is_series and not self.is_streamed:
            n, free = len(self.train.y) + len(self.val.y), torch.cuda.mem_get_info(device)[0]
            words = told(n, self.size, self.channels, free, "GPU memory", 1 + len(self.splits))
            streamed = words is not None
            about = "\n".join(filter(None, (about, words)))

        def there(split: Dataset) -> Dataset:
            train, val = (images.on(device, streamed=streamed) for images in (split.train, split.val))
            return replace(split, train=train, val=val, again=tuple(map(there, split.again)))

        return replace(there(self), about=about)


def load(spec: DataSpec, device: torch.device) -> Dataset:
    """The data that `spec` describes, decoded, split and on `device`.

    Raises:
        DataError: the data set is unknown, not to be found, or not usable as it is.
    """
    source = read(spec)
    assert source is not None
    found = without_small_classes(source, spec)
    sides = sides_of(found)
    pixels = found.pixels
    if not spec.is_series:
        pixels = resized(with_channels(pixels, spec.channels or pixels.shape[-1]), spec.size)
    found = replace(found, pixels=pixels)
    splits = splits_of(found, spec)
    known = content.digests(pixels)
    trains, vals = (np.concatenate(part) for part in zip(*splits, strict=True))
    why, labels = _streamed_because(pixels, splits, spec), found.labels
    (train, val), *others = (
        [as_images(pixels, labels, part, streamed=why is not None) for part in split] for split in splits
    )
    mean, std = _statistics(train)
    dataset = Dataset(
        name=spec.name,
        classes=found.classes,
        train=train,
        val=val,
        mean=mean,
        std=std,
        flip=found.flip if spec.flip is None else spec.flip,
        content_hash=digest(pixels, found.labels, found.classes),
        split_hash=digest(vals, trains, ()),
        skipped=found.skipped,
        warnings=(*found.warnings, *_warnings(found, splits, known)),
        about="\n".join(
            filter(None, (essentials(found, sides, len(splits[0][0]), len(splits[0][1]), len(splits)), why))
        ),
        by_class=content.by_class(known, found.labels, found.classes),
        named=content.names_of(known, found.labels, found.classes, found.names),
    )
    return replace(dataset, again=tuple(_otherwise(dataset, *split) for split in others)).on(device)


def _otherwise(dataset: Dataset, train: Images, val: Images) -> Dataset:
    """The same data in another split."""
    mean, std = _statistics(train)
    return replace(dataset, train=train, val=val, mean=mean, std=std)


def _streamed_because(pixels: Pixels, splits: Splits, spec: DataSpec) -> str | None:
    """Why images are streamed, in a line; None: memory is to hold them, of each split by themselves."""
    if spec.is_series or spec.streamed is False:
        return None
    _, size, _, channels = pixels.shape
    if spec.streamed:
        return "images are streamed as they are used: the study began so, or its workers share the memory of this host"
    return told(sum(map(len, splits[0])), size, channels, free_on_host(), copies=1 + len(splits))


def _warnings(found: Labelled, splits: Splits, known: npt.NDArray[np.uint64]) -> tuple[str, ...]:
    """What a user should know of the images that are used, a line each."""
    val = np.concatenate([val for _, val in splits])
    copies = max((repetitions(found, *split, known) for split in splits), key=len)  # the same in others, or fewer
    return (
        *cautions.of_classes(found.classes, found.labels, val),
        *cautions.of_few(len(val), found.validation),
        *copies,
    )


def resized(pixels: Pixels, size: int | None) -> Pixels:
    """Square `pixels` [n, any, any, channels] at another size: bilinear, antialiased, as folders are decoded.

    What memory does not hold is written to the cache, and stays there.

    Raises:
        DataError: neither memory nor the cache takes them.
    """
    if size is None or pixels.shape[1] == size:
        return pixels
    n, channels = len(pixels), pixels.shape[-1]

    def parts() -> Iterator[Bytes]:
        for start in range(0, n, RESIZED_AT_ONCE):
            x = torch.tensor(pixels[start : start + RESIZED_AT_ONCE]).permute(0, 3, 1, 2)
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
            yield x.permute(0, 2, 3, 1).numpy()

    if not holds(n * size * size * channels, free_on_host()):
        kept = scaled((digest(pixels, np.empty(0, np.int64), ()), n, size, channels), parts())
        if kept is not None:
            return kept
        check_fits(n, size, channels, free_on_host())
    made = np.empty((n, size, size, channels), np.uint8)
    for number, some in enumerate(parts()):
        made[number * RESIZED_AT_ONCE :][: len(some)] = some
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
    check_validation(found)
    if found.validates is not None:
        vals = [np.flatnonzero(found.validates)]
    elif (k := n_splits(n, spec.n_train)) > 1:
        vals = _dealt(labels, k, random)
    else:
        vals = [_set_aside(labels, n_validated(n, spec.n_train), random, spares_none=True)]
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


def as_images(pixels: Pixels, labels: npt.NDArray[np.int64], chosen: Positions, *, streamed: bool = False) -> Images:
    """The chosen of some decoded images, on the CPU: copied into its memory, or left where they lie."""
    y = torch.from_numpy(labels[chosen])
    if streamed:
        return Images(Streamed(pixels, chosen), y)
    x = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return Images(x, y)


def _statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, bytes scaled to [0, 1]: exact, from a histogram of 256 values."""
    if isinstance(images.x, torch.Tensor) and images.x.is_floating_point():
        spread, centre = torch.std_mean(images.x.double(), (0, 2, 3), correction=0)
        varies = spread > 1e-7 * centre.abs()  # what float32 can tell; a constant channel is left at its scale
        return tuple(centre.tolist()), tuple(torch.where(varies, spread, 1.0).tolist())
    n_channels, height, width = images.x.shape[1:]
    counts = torch.zeros(n_channels, 256, dtype=torch.int64)
    for x, _ in images.piecewise(at_once(n_channels * height * width)):
        for channel, of_channel in zip(x.unbind(1), counts, strict=True):
            of_channel += torch.bincount(channel.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for of_channel in counts:
        share = of_channel.double() / (len(images.y) * height * width)
        mean = float(share @ values)
        means.append(mean)
        deviations.append(max(float(share @ (values - mean) ** 2) ** 0.5, 1 / 255))
    return tuple(means), tuple(deviations)


def digest(first: Pixels | Positions, second: Positions, names: tuple[str, ...]) -> str:
    """SHA-256 over two arrays, their shapes, and names: of pixels, labels and classes, what data are."""
    whole = hashlib.sha256(json.dumps([first.shape, second.shape, names]).encode())
    for array in (first, second):
        for part in piecewise(array):
            whole.update(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data)
    return whole.hexdigest()
