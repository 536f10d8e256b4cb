"""Folders of images: `folder:PATH`, one subfolder per class, decoded once and kept in `cache_home() / "images"`.

Nothing is written into the folder itself, and nothing outside it is read: links that lead out are skipped and listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from objectives.data.sources import Bytes, Labelled, cache_home, printable, some
from objectives.durable import sync_folder
from objectives.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

DECODE_VERSION = 1  # raised by hand when `decode` changes what it returns; part of the key of every cached array
MAX_PIXELS = 50_000_000  # of one image file
LARGE_FILE = 200_000  # bytes; folders whose files are as large on average are decoded by several threads
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"))
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # Pillow's other readers stay shut


@dataclass(frozen=True)
class _File:
    path: str
    relative: str  # to the folder that holds the class folders
    label: int
    stamp: tuple[int, int, int]  # bytes, mtime, ctime: ctime too, because archives unpack with one mtime for all


def read_folder(path: Path, size: int) -> Labelled:
    """The images in `path/train/<class>/` or else `path/<class>/`, centre-cropped to squares of `size` pixels.

    Classes and files are sorted by name, hidden ones left out; folders within a class belong to it. What cannot be
    decoded and links that lead out of `path` are skipped and listed.

    Raises:
        DataError: no classes, an empty class, or too much that cannot be decoded.
    """
    top = _class_parent(path)
    boundary = os.path.realpath(path)
    names: list[str] = []
    files: list[_File] = []
    skipped: list[str] = []
    for class_folder, fault in _listed(str(top), boundary):
        if fault:
            skipped.append(f"{class_folder.name}: {fault}")
        elif class_folder.is_dir():
            before, lost = len(files), len(skipped)
            for entry, fault in _images(class_folder.path, boundary):
                relative = os.path.relpath(entry.path, top)
                if fault:
                    skipped.append(f"{relative}: {fault}")
                else:
                    files.append(_File(entry.path, relative, len(names), _stamp(entry)))
            if len(files) == before:
                raise DataError(_empty_class(class_folder.path, skipped[lost:]))
            names.append(class_folder.name)
    if not files:
        hint = f" ({some(skipped)})" if skipped else ""
        raise DataError(printable(f"{top} has no class folders{hint}: put the images of class X into {top / 'X'}"))
    decoded = _cached(top, files, tuple(map(printable, names)), size)
    decoded = replace(decoded, skipped=(*map(printable, skipped), *decoded.skipped))
    _check_losses(top, decoded)
    return decoded


def _class_parent(path: Path) -> Path:
    """`path/train` if it holds class folders, else `path`: a class may be called 'train', too."""
    train = path / "train"
    if not train.is_dir() or not any(entry.is_dir() for entry in train.iterdir()):
        return path
    if not _inside(os.path.realpath(train), os.path.realpath(path)):
        raise DataError(printable(f"{train} is a link out of {path}: pass folder:{os.path.realpath(train)}"))
    return train


def _inside(target: str, boundary: str) -> bool:
    return os.path.commonpath((target, boundary)) == boundary


def _listed(place: str, boundary: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Visible entries of a folder, sorted, each with the reason why it must not be followed, or ''."""
    with os.scandir(place) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        fault = ""
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not _inside(target, boundary):
                fault = "a link that leads out of the folder"
            elif not os.path.exists(target):
                fault = "a broken link"
        yield entry, fault


def _images(place: str, boundary: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Image files in a class folder and the folders below it, each with the reason why it is skipped, or ''."""
    for entry, fault in _listed(place, boundary):
        if fault:
            yield entry, fault
        elif entry.is_dir() and entry.is_symlink():
            yield entry, "a link to a folder"  # it may lead round in a circle
        elif entry.is_dir():
            yield from _images(entry.path, boundary)
        elif entry.is_file() and os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            yield entry, ""


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    stat = entry.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _empty_class(path: str, lost: Sequence[str]) -> str:
    hint = f" ({some(lost)})" if lost else ""
    return printable(
        f"class folder {path!r} has no images{hint}: add some ({' '.join(sorted(EXTENSIONS))}) or remove it"
    )


def _check_losses(top: Path, decoded: Labelled) -> None:
    """Raises DataError if a whole class is lost, or more than 1 % of all images and more than three."""
    counts = np.bincount(decoded.labels, minlength=len(decoded.classes))
    for name, count in zip(decoded.classes, counts, strict=True):
        if not count:
            lost = some([line for line in decoded.skipped if line.startswith(f"{name}{os.sep}")])
            raise DataError(printable(f"no image of class {name!r} in {top} can be read: repair or remove: {lost}"))
    total = len(decoded.labels) + len(decoded.skipped)
    if len(decoded.skipped) > max(3, total // 100):
        lost = f"{len(decoded.skipped)} of {total} images in {top} cannot be used, and the limit is 1 %"
        raise DataError(printable(f"{lost}: repair or remove: {some(decoded.skipped)}"))


def decode(path: str, size: int) -> tuple[Bytes, bool]:
    """One image file as [size, size, 3], and whether it is grey.

    EXIF orientation is applied; of an animation the first frame counts; colour profiles are ignored. 16-bit grey is
    scaled by 255 / 65535 and rounded, 16-bit colour keeps its high bytes; transparency is composited on white; palettes
    and CMYK become RGB as Pillow does it. The shorter side is scaled to `size` (bilinear, antialiased) and the centre
    kept.

    Raises:
        Exception: of nearly any type: Pillow's readers raise what their parsers run into.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    oversized = f"over {MAX_PIXELS // 1_000_000} megapixels"
    try:
        opened = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(oversized) from error
    except UnidentifiedImageError as error:
        raise ValueError("not an image of a known format") from error
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(oversized)
        image.draft(None, (2 * size, 2 * size))  # JPEG only: decodes at 1/2, 1/4, 1/8 if that leaves twice the size
        ImageOps.exif_transpose(image, in_place=True)
        grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        whole = _to_rgb(image)
    side = min(whole.size)
    left, top = (whole.width - side) / 2, (whole.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)), grey


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM to 65535
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range: convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _decode_all(files: Sequence[_File], classes: tuple[str, ...], size: int) -> Labelled:
    """All images that can be decoded, with one channel if every one is grey, else three."""
    from PIL import Image

    def attempt(file: _File) -> tuple[Bytes, bool] | str:
        if not file.stamp[0]:
            return "an empty file"
        try:
            return decode(file.path, size)
        except Exception as error:
            return " ".join(str(error).split()) or type(error).__name__

    pixels = np.empty((len(files), size, size, 3), np.uint8)
    kept: list[_File] = []
    skipped: list[str] = []
    all_grey = True
    # Pillow decodes outside the interpreter lock, but a pool has its price. Images a second on two cores, plain loop
    # against two threads: 32 x 32 JPEGs 11,000 and 9,000, 512 x 512 (105 kB) 1,180 and 1,120, 1600 x 1200 400 and 750.
    large = sum(file.stamp[0] for file in files) >= LARGE_FILE * len(files)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        warnings.simplefilter("ignore")  # on metadata that nobody reads; the size is checked in `decode`
        Image.init()  # here, because threads would race to register the readers
        for file, result in zip(files, (pool.map if large else map)(attempt, files), strict=True):
            if isinstance(result, str):
                skipped.append(printable(f"{file.relative}: {result}"))
                continue
            pixels[len(kept)], grey = result
            all_grey &= grey
            kept.append(file)
    used = pixels[: len(kept), ..., : 1 if all_grey else 3]
    labels = np.array([file.label for file in kept], np.int64)
    names = tuple(printable(file.relative) for file in kept)
    return Labelled(np.ascontiguousarray(used), labels, classes, flip=True, skipped=tuple(skipped), names=names)


def _cached(top: Path, files: Sequence[_File], classes: tuple[str, ...], size: int) -> Labelled:
    """The decoded images of a folder, from the cache if the same bytes were decoded before.

    The key of an array is the content of all its files. `index` remembers that content for a folder whose paths, sizes
    and times have not changed, so that a second start reads none of its files. A damaged cache file is built again.
    """
    cache = cache_home() / "images"
    stamps = json.dumps([os.path.realpath(top), [(file.relative, file.stamp) for file in files]])
    index = cache / "index" / hashlib.sha256(stamps.encode()).hexdigest()
    content = _indexed(index)
    if content is None:
        content = _content(files)
        _keep(index, lambda file: file.write_text(_index_line(index.name, content), "ascii"))
    key = hashlib.sha256(f"{content} {size} {DECODE_VERSION}".encode()).hexdigest()
    stored = cache / f"{key}.safetensors"
    known = _load(stored)
    if known is not None:
        return known
    fresh = _decode_all(files, classes, size)
    _keep(stored, lambda file: _save(fresh, file))
    return fresh


def _index_line(name: str, content: str) -> str:
    """A file of the index: a digest, and the digest of it and its file's name, so that no other file can stand in."""
    return f"{content} {hashlib.sha256(f'{name} {content}'.encode()).hexdigest()}"


def _indexed(index: Path) -> str | None:
    """The content that a file of the index names; None if there is no such file or it is damaged."""
    try:
        line = index.read_text("ascii")
    except (OSError, ValueError):
        return None
    content = line.partition(" ")[0]
    return content if line == _index_line(index.name, content) else None


def _content(files: Sequence[_File]) -> str:
    whole = hashlib.sha256()
    for file in files:
        with open(file.path, "rb") as stream:
            whole.update(json.dumps([file.relative, hashlib.file_digest(stream, "sha256").hexdigest()]).encode())
    return whole.hexdigest()


def _digest(labelled: Labelled, key: str) -> str:
    about = [key, labelled.classes, labelled.skipped, labelled.names, labelled.pixels.shape]
    whole = hashlib.sha256(json.dumps(about).encode())
    whole.update(labelled.pixels.data)
    whole.update(labelled.labels.data)
    return whole.hexdigest()


def _save(labelled: Labelled, file: Path) -> None:
    from safetensors.numpy import save_file

    about = {
        **{"classes": labelled.classes, "skipped": labelled.skipped, "names": labelled.names},
        "sha256": _digest(labelled, file.stem),
    }
    arrays: dict[str, npt.NDArray[np.generic]] = {"pixels": labelled.pixels, "labels": labelled.labels}
    save_file(arrays, file, metadata={"about": json.dumps(about)})


def _load(file: Path) -> Labelled | None:
    """What `_save` wrote; None if there is no such file or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stored:
            about = json.loads(stored.metadata()["about"])
            pixels, labels = stored.get_tensor("pixels"), stored.get_tensor("labels")
        classes, skipped, names = (tuple(about[key]) for key in ("classes", "skipped", "names"))
        found = Labelled(pixels, labels, classes, flip=True, skipped=skipped, names=names)
        return found if _digest(found, file.stem) == about["sha256"] else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _keep(file: Path, write: Callable[[Path], object]) -> None:
    """Writes a cache file so that it is there whole or not at all; a cache that cannot be written only costs time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=file.parent) as partial:
            fresh = Path(partial) / file.name
            write(fresh)
            with fresh.open("rb") as stream:
                os.fsync(stream.fileno())
            fresh.replace(file)
            sync_folder(file.parent)
    except Exception as error:  # safetensors has its own exception for a full disk
        message = f"cannot write {file} ({error}): images are decoded at every start; set XDG_CACHE_HOME elsewhere"
        warnings.warn(printable(message), stacklevel=2)
