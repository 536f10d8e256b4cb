"""What lies in the cache, and what of it is removed. Nothing outside of the cache is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from objectives.data.cache import shards
from objectives.data.cache.index import FOLDER, Index
from objectives.data.cache.kept import IMAGES, LOCK, alone
from objectives.data.sources import DATASETS


@dataclass(frozen=True)
class Entry:
    """Something in the cache."""

    what: str  # 'images', 'part' (of images whose decoding did not end), 'index', 'download', 'other'
    path: str
    belongs_to: str | None  # the folder that the images are of, where it is known
    side: int | None  # of decoded images: pixels
    n_images: int | None
    n_bytes: int
    last_used: str  # local time, ISO 8601; of a download: when it was made


def entries(home: Path) -> list[Entry]:
    """All that lies in the cache, what was used last at the end."""
    found: list[Entry] = []
    for describe, paths in ((_entry, _images(home)), (_download, _children(home / DATASETS))):
        for path in paths:
            with suppress(FileNotFoundError):  # what a run at work has moved or removed meanwhile
                found.append(describe(path))
    return sorted(found, key=lambda entry: entry.last_used)


def clear(home: Path, before: datetime | None) -> list[Entry]:
    """Removes decoded images, all or those that were not used since; downloads stay: they may not come again.

    Waits for whoever fills the cache.

    Raises:
        OSError: the cache cannot be changed.
    """
    removed: list[Entry] = []
    if not (home / IMAGES).is_dir():
        return removed
    with alone(home / IMAGES):
        for path in list(_images(home)):
            if before is None or _used(path) < before:
                removed.append(_entry(path))
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
    return removed


def _images(home: Path) -> Iterator[Path]:
    for path in _children(home / IMAGES):
        if path.name == FOLDER:
            yield from _children(path)
        elif path.name != LOCK:
            yield path


def _children(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else []


def _entry(path: Path) -> Entry:
    """What a file or folder of the decoded images is; anything may lie there."""
    if path.parent.name == FOLDER:
        index = Index.at(path)
        what, top = ("other", None) if index is None else ("index", index.top)
        return Entry(what, str(path), top, None, None, _bytes(path), _said(path))
    said, is_written = shards.table(path), not path.name.startswith(".")  # else it gets its name once it is whole
    side = path.name.removeprefix(".").partition("-")[0]
    if said is None or not side.isdecimal():
        return Entry("other", str(path), None, None, None, _bytes(path), _said(path))
    what = "images" if is_written and not shards.is_part(path) else "part"
    return Entry(what, str(path), shards.whose(path), int(side), len(said[0]), _bytes(path), _said(path))


def _download(path: Path) -> Entry:
    return Entry("download", str(path), None, None, None, _bytes(path), _said(path))


def _bytes(path: Path) -> int:
    return path.lstat().st_size + sum(each.lstat().st_size for each in path.rglob("*") if not path.is_symlink())


def _used(path: Path) -> datetime:
    return datetime.fromtimestamp(os.lstat(path).st_mtime)


def _said(path: Path) -> str:
    return _used(path).isoformat(timespec="seconds")
