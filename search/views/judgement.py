"""How good a network is on labelled images: by class, what is taken for what, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from objectives.words import counted
from search.pareto.intervals import wilson
from search.views.columns import columns

MOST_CLASSES = 12  # of a table of all confusions; of more, the most frequent ones
MOST_CONFUSIONS = 12


class Judged(Protocol):
    """What a network told of images: see `objectives.inference.judging`."""

    @property
    def split(self) -> str: ...
    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def calibration_error(self) -> float: ...
    @property
    def uncalibrated_error(self) -> float: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...
    @property
    def per_class(self) -> tuple[int, ...]: ...
    @property
    def n(self) -> int: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def recalls(self) -> tuple[float | None, ...]: ...
    @property
    def balanced_accuracy(self) -> float: ...


def as_json(found: Judged, classes: Sequence[str], model: str, data: str) -> dict[str, object]:
    """What a program is told."""
    rows = zip(classes, found.per_class, found.recalls, strict=True)
    return {
        "model": model,
        "data": data,
        "split": found.split,
        "n": found.n,
        "accuracy": found.accuracy,
        "interval": wilson(found.accuracy, found.n),
        "balanced_accuracy": found.balanced_accuracy,
        "classes": [
            {"class": name, "n": n, "recall": recall, "interval": wilson(recall, n) if recall is not None else None}
            for name, n, recall in rows
        ],
        "confusion": found.confusion,
        "calibration_error": found.calibration_error,
        "uncalibrated_error": found.uncalibrated_error,
        "remarks": list(found.remarks),
    }


def lines(found: Judged, classes: Sequence[str], width: int | None = None) -> list[str]:
    """What people are told."""
    low, high = wilson(found.accuracy, found.n)
    what = {"all": "all", "test": "the test split", "validation": "those that validated it"}[found.split]
    return [
        f"accuracy  {found.accuracy:.2%} of {counted(found.n, 'image')}, {what} (95 %: {low:.2%} to {high:.2%})",
        f"balanced  {found.balanced_accuracy:.2%}",
        f"sureness  off by {100 * found.calibration_error:.1f} points in the mean, "
        f"{100 * found.uncalibrated_error:.1f} at temperature 1 (expected calibration error)",
        "",
        *_by_class(found, classes, width),
        *_confusions(found, classes, width),
    ]


def _by_class(found: Judged, classes: Sequence[str], width: int | None) -> list[str]:
    rows = []
    for name, n, recall in zip(classes, found.per_class, found.recalls, strict=True):
        low, high = wilson(recall, n) if recall is not None else (0.0, 0.0)
        told = ["", ""] if recall is None else [f"{recall:.1%}", f"{low:.1%} to {high:.1%}"]
        rows.append([str(n), *told, name])
    return columns(["images", "recall", "95 %", "class"], rows, width)


def _confusions(found: Judged, classes: Sequence[str], width: int | None) -> list[str]:
    """Which class is taken for which: all of a few, else the most frequent."""
    if len(classes) <= MOST_CLASSES:
        numbers = [str(at + 1) for at in range(len(classes))]
        rows = [
            [number, *map(str, row), name] for number, row, name in zip(numbers, found.confusion, classes, strict=True)
        ]
        return [
            "",
            "images of a class (row) that are told as another (column):",
            *columns(["", *numbers, ""], rows, width),
        ]
    pairs = [(n, i, j) for i, row in enumerate(found.confusion) for j, n in enumerate(row) if n and i != j]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:MOST_CONFUSIONS]
    rows = [[str(n), f"{classes[i]} as {classes[j]}"] for n, i, j in worst]
    return ["", *columns(["images", "told"], rows, width)] if rows else []
