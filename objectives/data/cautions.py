"""What a user should know of classes and splits: names that look alike, sizes that differ much, who validates."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from objectives.words import counted, printable, some

UNEVEN = 5  # times the images of the smallest class that the largest may have without a word
FEW_VALIDATED = 100  # images: by fewer an accuracy is known to 10 points at best


def of_classes(
    classes: Sequence[str], labels: npt.NDArray[np.int64], val: npt.NDArray[np.int64] | None
) -> tuple[str, ...]:
    """A line for each fault; `val`: the positions that validate, None before validation is split off."""
    lines = []
    if alike := look_alikes(classes):
        lines.append(
            f"class names that look alike ({some(alike)}): put the images into one folder if they are one class"
        )
    counts = np.bincount(labels, minlength=len(classes))
    small, large = int(counts.argmin()), int(counts.argmax())
    if counts[large] >= max(1, UNEVEN * counts[small]):
        sizes = f"{classes[small]} has {counted(counts[small], 'image')}, {classes[large]} {counts[large]}"
        way_out = 'metric = "balanced" in the study file counts every class alike'
        lines.append(f"classes are uneven: {sizes}: plain accuracy favours large classes, {way_out}")
    if val is None:
        return tuple(lines)
    validated = np.bincount(labels[val], minlength=len(classes))
    if len(unseen := np.flatnonzero(validated == 0)):
        which = some([classes[label] for label in unseen.tolist()])
        lines.append(
            f"classes without a validation image: {len(unseen)} of {len(classes)} ({which}): no accuracy sees them"
        )
    return tuple(lines)


def of_few(n_val: int, validation: str | None) -> tuple[str, ...]:
    """A line where the data come with a validation split, as `validation` says, of so few images that it tells little.

    Of few images that are split here each validates once.
    """
    if validation is None or not 0 < n_val < FEW_VALIDATED:  # none at all is refused
        return ()
    known = f"an accuracy is known to {98 / n_val**0.5:.0f} points or so"
    way_out = "add some, or put all into training, from which validation is then split off"
    return (f"few validation images: {n_val} ({validation}): {known}: {way_out}",)


def of_test(n_others: int, others: Sequence[str]) -> str:
    """A line for test images of other classes than those of training."""
    return printable(f"test images of classes that are not in training: {n_others} left out ({some(others)})")


def of_suspects(suspicious: Sequence[str]) -> tuple[str, ...]:
    """A line for images that can be used and perhaps should not; 'path: reason' each."""
    if not suspicious:
        return ()
    way_out = "look at them, remove what shows nothing of its class"
    return (f"suspicious images: {len(suspicious)} ({some(suspicious)}): {way_out}",)


def look_alikes(classes: Sequence[str]) -> list[str]:
    """Pairs of names that differ in Unicode form, case, blanks or invisible characters only."""
    seen: dict[str, str] = {}
    pairs = []
    for name in classes:
        visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
        first = seen.setdefault(" ".join(visible.casefold().split()), name)
        if first is not name:
            same = unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", name)
            pairs.append(f"{first!r} in two Unicode forms" if same else f"{first!r} and {name!r}")
    return pairs
