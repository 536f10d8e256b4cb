"""Decoded images, kept in `cache_home() / "images"`: never others than those in the files. No cache costs time only.

What the cache lacks is decoded into parts by all cores; killed on the way, the next run decodes only the rest. Then
the images are written in the order of their use into one file, of which some are read at a time: the disk holds them
twice for a moment, memory never as a whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from objectives.data.cache import shards
from objectives.data.cache.arranging import arrange, held
from objectives.data.cache.decoders import CHUNK_BYTES, CHUNK_FILES, CHUNK_SOURCE, decode
from objectives.data.cache.index import UNREADABLE, Index
from objectives.data.cache.progress import Progress, silent
from objectives.data.cache.shards import Chunk, Shard
from objectives.data.decoding import HEADER, NO_IMAGE, Decoded
from objectives.data.layout.listing import File
from objectives.data.sources import NO_CACHE, cache_home
from objectives.host import durable
from objectives.words import printable

IMAGES = "images"  # the folder in the cache
DECODING = "decoding"  # what a Progress is told
SUPERSEDED = 0.9  # share of the images of a shard that are in its successor: few were added, removed or changed
LOCK = ".lock"  # held by who fills or clears the cache
_NO_CONTENT = (NO_IMAGE, UNREADABLE)
_CANNOT_READ = "it cannot be read: look at its permissions"


def decoded(
    top: Path, files: Sequence[File], size: int, progress: Progress = silent
) -> tuple[Decoded, tuple[str, ...]]:
    """The images of some files by class and content, from the cache where they are there, and warnings.

    Raises:
        DataError: files of which decoding dies.
        OSError: neither the cache nor the folder for temporary files can be written.
    """
    home = cache_home()
    if home is None:
        warning = f"{NO_CACHE}: images are decoded at every start"
    else:
        try:
            return _kept(home / IMAGES, top, files, size, progress), ()
        except OSError as error:
            way_out = "images are decoded at every start; set XDG_CACHE_HOME elsewhere"
            warning = printable(f"cannot write {home / IMAGES} ({error}): {way_out}")
    with tempfile.TemporaryDirectory(prefix="frontrunner-") as place:  # what is open stays until it is let go
        return _kept(Path(place), top, files, size, progress), (warning,)


def fill(top: Path, files: Sequence[File], size: int, progress: Progress) -> tuple[int, ...] | None:
    """Decodes what the cache lacks, and returns the shape of all images; where there is no cache, nothing.

    Raises:
        DataError: as `decoded`.
    """
    home = cache_home()
    try:
        return None if home is None else _kept(home / IMAGES, top, files, size, progress).pixels.shape
    except OSError:  # whoever needs the images says so
        return None


def _kept(place: Path, top: Path, files: Sequence[File], size: int, progress: Progress) -> Decoded:
    index = Index.of(place, top)
    contents = index.known(files)
    if contents is not None and (whole := shards.opened(place / _name(files, contents, size))) is not None:
        _touch(index.path, whole.folder)
        return _as_decoded(whole, files, contents)
    place.mkdir(parents=True, exist_ok=True)
    with alone(place):
        contents = index.read(files, progress)
        read = index.written(files, contents, index.wholes)  # before hours of decoding that may be killed
        folder = place / _name(files, contents, size)
        whole = shards.opened(folder)
        if whole is None:
            sources = _filled(place, index.top, files, contents, size, progress)
            arrange(folder, sources, index.top, [file.label for file in files], contents, size, progress)
            for part in sources:
                if shards.is_part(part.folder):
                    part.remove()
            whole = shards.opened(folder)
            if whole is None:
                raise OSError(f"{folder} does not hold what was written")
        now = read.written(files, contents, {**read.wholes, str(size): folder.name})
        _remove_superseded(place, index, now, size)
        _touch(index.path, whole.folder)
        return _as_decoded(whole, files, contents)


def _touch(*paths: Path) -> None:
    """Notes that these were used."""
    with suppress(OSError):  # of a disk that is only read
        for path in paths:
            os.utime(path)


def _name(files: Sequence[File], contents: Sequence[str], size: int) -> str:
    pairs = [(file.label, content) for file, content in zip(files, contents, strict=True)]
    return shards.name(size, hashlib.sha256(json.dumps(pairs).encode()).hexdigest())


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Nobody else fills the cache meanwhile; what somebody left unfinished who was killed is removed."""
    with (place / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in place.glob(f".*{durable.PARTIAL}"):
            shutil.rmtree(folder, ignore_errors=True)
        yield


def _filled(
    place: Path, top: str, files: Sequence[File], contents: Sequence[str], size: int, progress: Progress
) -> list[Shard]:
    """Shards that hold all that the files hold."""
    wanted = {content: file for content, file in zip(contents, files, strict=True) if content not in _NO_CONTENT}
    found = list(shards.holding(place, size, wanted))
    done = held(found)
    missing = [(file, content) for content, file in wanted.items() if content not in done]
    if not missing:
        return found
    chunks = list(_chunks(place, top, missing, size))
    n_done = len(wanted) - len(missing)

    def advance(n_files: int) -> None:
        nonlocal n_done
        n_done += n_files
        progress(DECODING, n_done, len(wanted))

    advance(0)
    decode(chunks, advance)
    for chunk in chunks:
        made = shards.opened(Path(chunk.folder))
        if made is None:
            raise OSError(f"{chunk.folder} does not hold what was written")
        found.append(made)
    return found


def _chunks(place: Path, top: str, missing: Sequence[tuple[File, str]], size: int) -> Iterator[Chunk]:
    """The files in parts of a few seconds' work."""
    most = max(1, min(CHUNK_FILES, CHUNK_BYTES // (3 * size * size)))
    pairs: list[tuple[str, str]] = []
    source = 0
    for file, content in missing:
        if len(pairs) == most or (pairs and source + file.stamp[0] > CHUNK_SOURCE):
            yield _chunk(place, top, pairs, size)
            pairs, source = [], 0
        pairs.append((file.path, content))
        source += file.stamp[0]
    yield _chunk(place, top, pairs, size)


def _chunk(place: Path, top: str, pairs: Sequence[tuple[str, str]], size: int) -> Chunk:
    key = hashlib.sha256("".join(content for _, content in pairs).encode()).hexdigest()
    return Chunk(str(place / shards.name(size, key, part=True)), size, top, pairs)


def _as_decoded(whole: Shard, files: Sequence[File], contents: Sequence[str]) -> Decoded:
    """The images of a whole, and why the other files are none."""
    faults = {}
    kept = whole.rows["position"].astype(np.int64)
    for at in np.setdiff1d(np.arange(len(files)), kept).tolist():
        content = contents[at]
        faults[at] = {NO_IMAGE: NO_IMAGE, UNREADABLE: _CANNOT_READ}.get(content) or whole.faults.get(content, NO_IMAGE)
    return Decoded(whole.stored, kept, whole.rows[list(HEADER.names or ())], whole.rows["is_grey"], faults)


def _remove_superseded(place: Path, before: Index, now: Index, size: int) -> None:
    """Removes the whole that a folder had before it changed a little, unless it is that of another folder as well."""
    old, fresh = (index.wholes.get(str(size)) for index in (before, now))
    if old is None or old == fresh:
        return
    contents = {content for _, content in before.contents.values()}
    if len(contents & {content for _, content in now.contents.values()}) < SUPERSEDED * len(contents):
        return
    if not any(old in other.wholes.values() for other in Index.all(place) if other.path != now.path):
        shutil.rmtree(place / old, ignore_errors=True)
