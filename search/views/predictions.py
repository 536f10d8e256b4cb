"""Predictions as a table in CSV, which spreadsheets open without running anything, and a summary of them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Protocol, TextIO

from objectives.words import counted, printable, some
from search.pareto.intervals import Interval, wilson

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # begin what a spreadsheet computes; an apostrophe makes text of it
COLUMNS = ("id", "label", "probability", "margin", "label_2", "probability_2", "label_3", "probability_3", "reason")
HEADERS = COLUMNS, (*COLUMNS, "truth")  # without, and with what the images show
STDOUT = "-"  # as the file to write
MAX_LISTED = 20  # files that have no prediction


class Told(Protocol):
    """A prediction of an image: see `objectives.inference.predictions`."""

    @property
    def top(self) -> tuple[tuple[str, float], ...]: ...

    @property
    def margin(self) -> float: ...


def cell(text: str) -> str:
    """A text on one line of UTF-8 that no spreadsheet takes for a formula."""
    clean = printable(text)
    return f"'{clean}" if clean.startswith(FORMULAS) else clean


@dataclass(frozen=True)
class Accuracies:
    """How good predictions are."""

    n: int  # images
    accuracy: float
    interval: Interval  # of 95 %, from the number of images
    balanced_accuracy: float  # mean of the recalls of the classes that there are

    @property
    def words(self) -> str:
        """This in a line."""
        low, high = self.interval
        known = f"accuracy {self.accuracy:.2%} of {counted(self.n, 'image')} (95 %: {low:.2%} to {high:.2%})"
        return f"{known}, balanced {self.balanced_accuracy:.2%}"


@dataclass
class Table:
    """Writes a row for each file and keeps count."""

    stream: TextIO
    knows_truth: bool = False  # whether it has a column for what the images show
    n: int = 0  # images with a prediction
    labels: Counter[str] = field(default_factory=Counter)  # images of each class, as predicted
    missing: list[tuple[str, str]] = field(default_factory=list)  # (name, reason) of files without
    judged: list[tuple[str, str, float]] = field(default_factory=list)  # (truth, label, probability) where it is known

    def __post_init__(self) -> None:
        self._writer = csv.writer(self.stream, lineterminator="\n")
        self._writer.writerow(HEADERS[self.knows_truth])

    def add(self, name: str, answer: Told | str, truth: str = "") -> None:
        """A row for a file: what was predicted, or why nothing was, and what it shows: empty where nobody knows."""
        row = [cell(name), *[""] * (len(COLUMNS) - 1)]
        if isinstance(answer, str):
            row[-1] = cell(answer)
            self.missing.append((name, answer))
        else:
            (label, probability), *others = answer.top
            row[1:4] = [cell(label), f"{probability:.6f}", f"{answer.margin:.6f}"]
            for at, (other, chance) in enumerate(others):
                row[4 + 2 * at : 6 + 2 * at] = [cell(other), f"{chance:.6f}"]
            self.n += 1
            self.labels[label] += 1
            if truth:
                self.judged.append((truth, label, probability))
        self._writer.writerow([*row, *([cell(truth)] if self.knows_truth else [])])

    @property
    def accuracies(self) -> Accuracies | None:
        """How good the predictions are where the truth is known; None where it nowhere is."""
        if not self.judged:
            return None
        by_class: dict[str, list[bool]] = {}
        for truth, label, _ in self.judged:
            by_class.setdefault(truth, []).append(truth == label)
        right, n = sum(map(sum, by_class.values())), len(self.judged)
        return Accuracies(n, right / n, wilson(right / n, n), fmean(map(fmean, by_class.values())))


def as_json(
    table: Table, model: str, output: str, n_others: int, calibration: Mapping[str, object]
) -> dict[str, object]:
    """What a program is told."""
    return {
        "model": model,
        "output": output,
        "images": table.n,
        "not_predicted": [{"id": printable(name), "reason": printable(reason)} for name, reason in table.missing],
        "other_files": n_others,
        "labels": dict(sorted(table.labels.items())),
        "truth": asdict(table.accuracies) if table.accuracies is not None else None,
        "calibration": dict(calibration),
    }


def lines(table: Table, output: str, n_others: int, calibration: Mapping[str, object]) -> list[str]:
    """What people are told."""
    names = [f"{name} {n}" for name, n in table.labels.most_common()]
    where = "" if output == STDOUT else f": {output}"
    said = [f"{counted(table.n, 'image')} predicted{where}" + (f" ({some(names, 5)})" if names else "")]
    if table.missing:
        said.append(f"without a prediction: {counted(len(table.missing), 'file')}, with the reason in the table")
    if n_others:
        said.append(f"{counted(n_others, 'file')} of other kinds left out")
    if table.accuracies is not None:
        said.append(table.accuracies.words)
    return [*map(printable, said), *calibrated(calibration)]


def calibrated(calibration: Mapping[str, object]) -> list[str]:
    """How far probabilities can be taken at their word."""
    before, after, n = (calibration[name] for name in ("error_before", "error_after", "n_images"))
    if after is None:
        return [f"probabilities at temperature {calibration['temperature']:.3g}: {calibration['source']}"]
    return [
        f"probabilities at temperature {calibration['temperature']:.3g}, fitted on {n} validation images: off by "
        f"{100 * after:.1f} points in the mean there, {100 * before:.1f} without it"  # type: ignore[operator]
    ]


def missing(files: Sequence[tuple[str, str]]) -> list[str]:
    """The files without a prediction, a line each, the first of many."""
    said = [f"  {printable(name)}: {printable(reason)}" for name, reason in files[:MAX_LISTED]]
    if len(files) > MAX_LISTED:
        said.append(f"  ... and {len(files) - MAX_LISTED} more, in the table")
    return said
