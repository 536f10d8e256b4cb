"""Images that a data set holds more than once: the same in training and validation, the same under two labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from objectives.data.content import digests
from objectives.data.sources import Labelled
from objectives.words import some

Positions = npt.NDArray[np.int64]  # into all training images of a data set, ascending


def repetitions(
    found: Labelled, train: Positions, val: Positions, known: npt.NDArray[np.uint64] | None = None
) -> tuple[str, ...]:
    """What should be known of images that come more than once: a line with count and examples for each fault.

    Images are the same when all their pixels are. The test split is not looked at: a search never opens it. `known`:
    the digests of the images, where they are at hand.
    """
    first = _first_positions(digests(found.pixels) if known is None else known)
    lines = []
    trained = dict(zip(first[train].tolist(), train.tolist(), strict=True))
    leaked = [(trained[first[at]], at) for at in val.tolist() if first[at] in trained]
    if leaked:
        what = f"validation images that are training images as well: {len(leaked)} of {len(val)}"
        lines.append(f"{what} ({_examples(found, leaked)}): accuracies are too high, remove the copies")
    twins = np.flatnonzero(found.labels != found.labels[first])
    if len(twins):
        pairs = list(zip(first[twins].tolist(), twins.tolist(), strict=True))
        what = f"images that are copies of one of another class: {len(pairs)}"
        lines.append(f"{what} ({_examples(found, pairs)}): one of the labels is wrong, remove or correct it")
    return tuple(lines)


def copies(found: Labelled, part: Positions, what: str, known: npt.NDArray[np.uint64]) -> tuple[str, ...]:
    """A line for images of one part, `what`, that are there more than once under one label, where there are any."""
    first = _first_positions(known[part])
    again = np.flatnonzero((first != np.arange(len(part))) & (found.labels[part] == found.labels[part][first]))
    if not len(again):
        return ()
    pairs = list(zip(part[first[again]].tolist(), part[again].tolist(), strict=True))
    line = f"{what} images that are copies of another one of their class: {len(pairs)} ({_examples(found, pairs)})"
    parted = ", and validation that is split off may get some of them" if found.validates is None else ""
    return (f"{line}: they count double{parted}, remove the copies",)


def n_shared(found: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]) -> int:
    """How many images of digests `found` have the same pixels as one of `others`."""
    known = set(map(tuple, others.tolist()))
    return sum(tuple(digest) in known for digest in found.tolist())


def _first_positions(found: npt.NDArray[np.uint64]) -> Positions:
    """[n] for every image the position of the first one with the same pixels."""
    order = np.lexsort((found[:, 1], found[:, 0]))  # of equal ones the first comes first
    ranked = found[order]
    begins = np.concatenate([[True], (ranked[1:] != ranked[:-1]).any(1)])[: len(found)]
    first = np.empty(len(found), np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _examples(found: Labelled, pairs: list[tuple[int, int]]) -> str:
    return some([f"{_name(found, one)} = {_name(found, other)}" for one, other in pairs])


def _name(found: Labelled, position: int) -> str:
    """The path of an image, or its number and class where it is no file of its own."""
    if found.names:
        return found.names[position]
    return f"image {position} ({found.classes[found.labels[position]]})"
