"""Data sets with a name: one function per source, each of which returns its whole training set as one `Labelled`.

With `test` it returns the test split instead, which is opened for `held_out` alone. Nothing is written into a data
folder: downloads lie in `cache_home() / "datasets"`, and appear there whole or not at all.
"""

from __future__ import annotations

import gzip
import http.client
import math
import os
import socket
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from objectives.data.cache.stored import Pixels
from objectives.data.vision import import_torchvision
from objectives.errors import DataError
from objectives.host.durable import sync_all, sync_folder
from objectives.words import expanded, printable

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian package dataset-fashion-mnist
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS_TEST, DIGITS_TEST_SEED = 297, 20240229  # the part of scikit-learn's digits that only `confirm` may open
NETWORK_SECONDS = 15.0  # without an answer, before a download is given up
# Images of the test splits, as published: a search opens none of them to count.
N_TEST = {"digits": DIGITS_TEST, "fashion_mnist": 10_000, "cifar10": 10_000, "cifar100": 10_000}
DATASETS = "datasets"  # the folder of downloads in the cache
NO_CACHE = "there is no home folder to keep a cache in: set HOME or XDG_CACHE_HOME"

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Labelled:
    """A training set as its source holds it: decoded, not yet split."""

    pixels: Pixels  # [n, height, width, channels]; of series float32 all the same, [n, 1, length, channels]
    labels: npt.NDArray[np.int64]  # [n], positions in `classes`
    classes: tuple[str, ...]
    flip: bool  # whether a horizontal flip keeps the label
    skipped: tuple[str, ...] = ()  # 'relative/path: reason'
    names: tuple[str, ...] = ()  # [n] relative paths; empty where images are no files of their own
    headers: npt.NDArray[np.void] | None = None  # [n] what those files say of themselves: `decoding.HEADER`
    validates: npt.NDArray[np.bool_] | None = None  # [n] the validation split that the data came with
    validation: str | None = None  # what says so, in words
    remarks: tuple[str, ...] = ()  # what was recognised in the source
    warnings: tuple[str, ...] = ()  # what should be known of it, a line each


def cache_home() -> Path | None:
    """The folder for all that this program may keep and can make again; None for a user without a home folder."""
    for base in (os.environ.get("XDG_CACHE_HOME", ""), expanded("~/.cache")):
        if os.path.isabs(base):
            return Path(base) / "frontrunner"
    return None


def digits(*, test: bool = False) -> Labelled:
    """scikit-learn's 8 x 8 digits without a test part of 297 images, which is the same for every seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(
        np.arange(len(labels)), test_size=DIGITS_TEST, stratify=labels, random_state=DIGITS_TEST_SEED
    )
    part = np.sort(parts[1] if test else parts[0])
    pixels = np.rint(bunch.images[part, :, :, None] * (255 / 16)).astype(np.uint8)
    return Labelled(pixels, labels[part], tuple(str(digit) for digit in range(10)), flip=False)


def fashion_mnist(root: Path | None, *, test: bool = False) -> Labelled:
    """Fashion-MNIST (Xiao et al. 2017), 28 x 28 grey, from idx files on this machine or else from the network."""
    given = [root, root / "FashionMNIST" / "raw", root / "fashion-mnist"] if root else []
    places = [*given, *(place / "FashionMNIST" / "raw" for place in _downloads()), DEBIAN_FASHION]
    found = (_fashion_files(place, "t10k" if test else "train") for place in places)
    files = next(filter(None, found), None)
    failure = ""
    if files is None:
        failure = _download(
            "FashionMNIST", lambda into: import_torchvision("datasets").FashionMNIST(into, train=True, download=True)
        )
        files = next(filter(None, (_fashion_files(place, "t10k" if test else "train") for place in places)), None)
    if files is None:
        ways = "apt-get install dataset-fashion-mnist, a network"
        raise DataError(_not_found("fashion_mnist", places, failure, ways))
    pixels, labels = read_idx(files[0], (28, 28)), read_idx(files[1], ())
    if len(pixels) != len(labels) or not len(labels) or labels.max() >= len(FASHION_CLASSES):
        raise DataError(
            printable(f"{files[0]} has {len(pixels)} images, {files[1].name} {len(labels)} labels up to ")
            + f"{labels.max(initial=0)}: they must be as many, from 0 to 9: get the files again"
        )
    return Labelled(pixels[..., None], labels.astype(np.int64), FASHION_CLASSES, flip=True)


def cifar(name: str, root: Path | None, *, test: bool = False) -> Labelled:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009), 32 x 32 colour, from torchvision's layout or else from the network.

    The files are pickles, which can run code. torchvision compares each with the MD5 sum of the original before it
    unpickles it; we accept that and never unpickle anything ourselves.
    """
    reader = getattr(import_torchvision("datasets"), name.upper())
    places = [*([root] if root else []), *_downloads()]
    found = next(filter(None, (_read_cifar(reader, place, test) for place in places)), None)
    failure = ""
    if found is None:
        failure = _download(reader.base_folder, lambda into: reader(into, train=True, download=True))
        found = next(filter(None, (_read_cifar(reader, place, test) for place in _downloads())), None)
    if found is None:
        raise DataError(_not_found(name, [place / reader.base_folder for place in places], failure, "a network"))
    return found


def series(path: Path, *, test: bool = False) -> Labelled | None:
    """Series from a NumPy archive; with `test` those of its test split, None where it has none.

    It holds x [n, channels, length], real numbers, and y [n], whole numbers or text; perhaps `classes`, the names in
    the order of those numbers, and the test split as x_test and y_test. Objects are never loaded: they could run code.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    wanted = ("x_test", "y_test", "classes") if test else ("x", "y", "classes")
    try:
        with open(path, "rb") as file:  # np.load leaves a damaged one open that it opened itself
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            with archive:
                found = {name: archive[name] for name in wanted if name in archive.files}
                others = archive.files
    except FileNotFoundError as error:
        raise DataError(printable(f"there is no file {path}: series lie in an archive of NumPy, FILE.npz")) from error
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        cause = " ".join(str(error).split())[:120]
        raise DataError(printable(f"{path} is no archive of NumPy ({cause}): write it again")) from error
    if test and not {"x_test", "y_test"} & set(others):
        return None
    if missing := [name for name in wanted[:2] if name not in found]:
        raise DataError(printable(f"{path} has no array {missing[0]!r}, only {', '.join(others) or 'none'}: add it"))
    x, y = (found[name] for name in wanted[:2])
    labels, classes = _series_labels(path, y, found.get("classes"))
    return Labelled(cast("Bytes", _series_values(path, x, y, wanted[0])), labels, classes, flip=False)


def _series_values(path: Path, x: npt.NDArray[Any], y: npt.NDArray[Any], name: str) -> npt.NDArray[np.float32]:
    """The series as [n, 1, length, channels], checked."""
    if x.dtype.kind not in "fiu" or x.ndim != 3 or not x.size:
        rule = "it must be [n, channels, length], real numbers"
        raise DataError(printable(f"{path}: {name} is {list(x.shape)} {x.dtype}: {rule}"))
    if len(y) != len(x):
        raise DataError(printable(f"{path}: {name} has {len(x)} series, there are {len(y)} labels: make them equal"))
    with np.errstate(over="ignore"):  # what float32 cannot hold is told below
        values = x.astype(np.float32)
    if not np.isfinite(values).all():
        n = int(np.count_nonzero(~np.isfinite(values).all((1, 2))))
        raise DataError(printable(f"{path}: {n} series of {name} hold what is no finite number: repair or remove them"))
    return np.ascontiguousarray(values.transpose(0, 2, 1)[:, None])


def _series_labels(
    path: Path, y: npt.NDArray[Any], named: npt.NDArray[Any] | None
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """(positions in the classes, the names of the classes) of labels that are whole numbers or text."""
    if y.ndim != 1 or y.dtype.kind not in "iuU":
        rule = "it must be [n], whole numbers or text"
        raise DataError(printable(f"{path}: y is {list(y.shape)} {y.dtype}: {rule}"))
    if named is None:
        values, labels = np.unique(y, return_inverse=True)
        return labels.astype(np.int64), tuple(map(str, values.tolist()))
    classes = tuple(map(str, named.tolist())) if named.ndim == 1 else ()
    if len(set(classes)) != len(classes) or not classes:
        raise DataError(printable(f"{path}: classes is {list(named.shape)} {named.dtype}: it must be names, each once"))
    place = {name: at for at, name in enumerate(classes)} if y.dtype.kind == "U" else None
    labels = y if place is None else np.array([place.get(label, -1) for label in y.tolist()], np.int64)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise DataError(printable(f"{path}: y has labels that are none of its {len(classes)} classes: correct them"))
    return labels.astype(np.int64), classes


def _read_cifar(reader: Callable[..., object], place: Path, test: bool) -> Labelled | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy dislikes how these old pickles spell their dtypes
        try:
            found: object = reader(place, train=not test)
        except RuntimeError:  # torchvision: not there, or not the original files
            return None
    pixels, labels, classes = (getattr(found, field) for field in ("data", "targets", "classes"))
    return Labelled(np.ascontiguousarray(pixels), np.asarray(labels, np.int64), tuple(classes), flip=True)


def _fashion_files(place: Path, part: str) -> tuple[Path, Path] | None:
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    found = [next((p for p in (place / name, place / f"{name}.gz") if p.is_file()), None) for name in names]
    return (found[0], found[1]) if found[0] and found[1] else None


def read_idx(path: Path, item: tuple[int, ...]) -> Bytes:
    """The array [n, *item] in an idx file, plain or gzipped (format: LeCun's MNIST page).

    Raises:
        DataError: the file is of another format or shape, or is cut off.
    """
    head = 4 + 4 * (1 + len(item))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = np.frombuffer(file.read(head), np.uint8)
            if start[:4].tolist() != [0, 0, 8, 1 + len(item)] or len(start) < head:
                raise DataError(printable(f"{path} is no idx file of {1 + len(item)}-dimensional bytes: get it again"))
            n, *shape = start[4:].view(">u4").tolist()
            n_bytes = n * math.prod(item)
            if tuple(shape) != item or n_bytes > 2**30:
                raise DataError(printable(f"{path} holds {n} items of shape {shape}, not {list(item)}: get it again"))
            body = file.read(n_bytes + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(printable(f"{path} is damaged ({error}): get it again")) from error
    if len(body) != n_bytes:
        raise DataError(printable(f"{path} should hold {n_bytes} bytes of data and does not: get it again"))
    return np.frombuffer(body, np.uint8).reshape(n, *item)


def _download(item: str, fetch: Callable[[Path], object]) -> str:
    """Why the download failed, or '': `fetch` fills a temporary folder, from which `item` moves into the cache."""
    for place in _downloads():
        return _download_to(place, item, fetch)
    return NO_CACHE


def _downloads() -> list[Path]:
    """Where downloads lie: one folder, or none."""
    home = cache_home()
    return [home / DATASETS] if home else []


def _download_to(place: Path, item: str, fetch: Callable[[Path], object]) -> str:
    try:
        place.mkdir(parents=True, exist_ok=True)
        # torchvision narrates on stdout, which belongs to the result of the command
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=place) as partial, redirect_stdout(sys.stderr):
            with _socket_timeout(NETWORK_SECONDS):
                fetch(Path(partial))
            sync_all(Path(partial) / item)
            if (place / item).exists():
                (place / item).rename(Path(partial) / "damaged")
            (Path(partial) / item).rename(place / item)
        sync_folder(place)
    except (OSError, RuntimeError, EOFError, tarfile.TarError, http.client.HTTPException) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _not_found(name: str, places: Sequence[Path], failure: str, ways: str) -> str:
    looked = ", ".join(str(place) for place in places) or "any folder"
    return printable(
        f"data set {name!r} is not found intact in {looked}, and the download failed ({failure or 'incomplete'}): "
        f"to get it: --data-root FOLDER, {ways}"
    )
