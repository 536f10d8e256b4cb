"""What the files of a folder say of themselves: from the cache where they were decoded before, else by their heads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from objectives.data.cache import shards
from objectives.data.cache.index import Index
from objectives.data.cache.kept import IMAGES
from objectives.data.cache.progress import Progress
from objectives.data.decoding import HEADER, NO_IMAGE, Decoded, fault, is_grey, read_header
from objectives.data.layout.listing import File
from objectives.data.sources import cache_home

EXAMINING = "examining"  # what a Progress is told
_EVERY = 256  # files between two words of progress

Said = tuple[bytes, bytes, int, int] | str  # a header, or why there is none


def headers(top: Path, files: Sequence[File], progress: Progress) -> Decoded:
    """What all files say of themselves; no pixel is decoded: the images have no sides."""
    known = _known(top, files)
    faults: dict[int, str] = {}
    kept: list[int] = []
    found: list[tuple[bytes, bytes, int, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on metadata that nobody reads
        for position, file in enumerate(files):
            said = known[position] if known is not None else None
            said = _read(file.path) if said is None else said
            if isinstance(said, str):
                faults[position] = said
            else:
                kept.append(position)
                found.append(said)
            if (position + 1) % _EVERY == 0 or position + 1 == len(files):
                progress(EXAMINING, position + 1, len(files))
    grey = np.array([is_grey(mode) for _, mode, _, _ in found], np.bool_)
    pixels = np.empty((len(kept), 0, 0, 1 if grey.all() else 3), np.uint8)
    return Decoded(pixels, np.array(kept, np.int64), np.array(found, HEADER), grey, faults)


def _read(path: str) -> Said:
    try:
        return read_header(path)
    except Exception as error:
        return fault(error)


def _known(top: Path, files: Sequence[File]) -> list[Said | None] | None:
    """What the cache knows of the files; None where they are not as it knows them."""
    home = cache_home()
    index = Index.of(home / IMAGES, top) if home is not None else None
    contents = index.known(files) if index is not None else None
    if home is None or index is None or contents is None:
        return None
    known: dict[str, Said] = {NO_IMAGE: NO_IMAGE}
    for whole in set(index.wholes.values()):
        if (said := shards.table(home / IMAGES / whole)) is not None:
            rows, faults = said
            named = map(bytes.decode, rows["content"].tolist())
            known |= {**faults, **dict(zip(named, rows[list(HEADER.names or ())].tolist(), strict=True))}
    return [known.get(content) for content in contents]
