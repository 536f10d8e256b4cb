"""Decoded images, kept in `cache_home() / "images"`: never others than those in the files. No cache costs time only."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from objectives.data.decoding import DECODE_VERSION, NO_IMAGE, Decoded, decode_all
from objectives.data.layout.listing import HEAD, File, kind, named_as_image
from objectives.data.sources import NO_CACHE, cache_home
from objectives.durable import sync_folder
from objectives.words import printable

UNREADABLE = "unreadable"


def decoded(top: Path, files: Sequence[File], size: int) -> tuple[Decoded, tuple[str, ...]]:
    """The images of some files, from the cache if the same bytes were decoded before, and warnings.

    The key of an array is the content of all its files. `index` remembers that content for a folder whose paths, sizes
    and times have not changed, so that a second start reads none of its files. A damaged cache file is built again.
    """
    home = cache_home()
    if home is None:
        return decode_all(files, size), (f"{NO_CACHE}: images are decoded at every start",)
    cache, warnings = home / "images", []
    stamps = json.dumps([os.path.realpath(top), [(file.relative, file.stamp) for file in files]])
    index = cache / "index" / hashlib.sha256(stamps.encode()).hexdigest()
    content = _indexed(index)
    if content is None:
        digests = [_digest_of(file.path) for file in files]
        content = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
        if UNREADABLE not in digests:  # what cannot be read today may be readable tomorrow, with the same times
            warnings.append(_keep(index, lambda file: file.write_text(_index_line(index.name, content), "ascii")))
    key = hashlib.sha256(f"{content} {size} {DECODE_VERSION}".encode()).hexdigest()
    stored = cache / f"{key}.safetensors"
    known = _load(stored)
    if known is not None:
        return known, tuple(filter(None, warnings))
    fresh = decode_all(files, size)
    warnings.append(_keep(stored, lambda file: _save(fresh, file)))
    return fresh, tuple(filter(None, warnings))[:1]


def _digest_of(path: str) -> str:
    """The SHA-256 of a file; of one that is no image nothing is read but its beginning."""
    try:
        with open(path, "rb") as stream:
            if kind(stream.read(HEAD)) is None and not named_as_image(path):
                return NO_IMAGE
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return UNREADABLE


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


def _digest(images: Decoded, key: str) -> str:
    about = [key, sorted(images.faults.items()), images.pixels.shape]
    whole = hashlib.sha256(json.dumps(about).encode())
    whole.update(images.pixels.data)
    whole.update(images.kept.data)
    return whole.hexdigest()


def _save(images: Decoded, file: Path) -> None:
    from safetensors.numpy import save_file

    about = {"faults": sorted(images.faults.items()), "sha256": _digest(images, file.stem)}
    arrays: dict[str, npt.NDArray[np.generic]] = {"pixels": images.pixels, "kept": images.kept}
    save_file(arrays, file, metadata={"about": json.dumps(about)})


def _load(file: Path) -> Decoded | None:
    """What `_save` wrote; None if there is no such file or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stored:
            about = json.loads(stored.metadata()["about"])
            pixels, kept = stored.get_tensor("pixels"), stored.get_tensor("kept")
        found = Decoded(pixels, kept, dict(about["faults"]))
        return found if _digest(found, file.stem) == about["sha256"] else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _keep(file: Path, write: Callable[[Path], object]) -> str:
    """Writes a cache file so that it is there whole or not at all; the warning where it cannot be written, or ''."""
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
        way_out = "images are decoded at every start; set XDG_CACHE_HOME elsewhere"
        return printable(f"cannot write {file.parent} ({error}): {way_out}")
    return ""
