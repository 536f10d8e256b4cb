"""A front as a small plot of characters: what it costs against accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from search.pareto import kinds
from search.study.snapshot import Snapshot

NARROWEST, LOWEST = 42, 6  # columns and lines below which there is no plot
GUTTER = 9  # columns left of the plot: a label, a blank, the axis
LEAST_SPAN = 0.05  # decades that an axis shows: equal points stand in its middle
GAP = 2  # blanks between two labels


class Kind(IntEnum):
    """What a point is. Where several share a cell, the last of these is shown."""

    DOMINATED = 0
    FRONT = 1
    BASELINE = 2  # on the front or not


LINES = {False: tuple("│┤└─┬"), True: tuple("|++-+")}  # vertical, with a tick, corner, horizontal, with a tick
WORDS = ("dominated", "front", "BASELINE")


@dataclass(frozen=True)
class Mark:
    """A point of the plot."""

    cost: float  # above 0; or what else the subject is over
    accuracy: float  # in [0, 1]
    kind: Kind


def marks(now: Snapshot) -> tuple[Mark, ...]:
    """The finished runs of a study that reached its floor, and BASELINE."""
    on_front, baseline = {point.trial for point in now.front}, now.baseline
    found = [
        Mark(each.cost, each.accuracy, Kind.FRONT if each.trial in on_front else Kind.DOMINATED)
        for each in now.outcomes
        if baseline is None or each.trial != baseline.number
    ]
    return (*found, *([] if baseline is None else [Mark(baseline.values[0], baseline.values[1], Kind.BASELINE)]))


@dataclass(frozen=True)
class _Axis:
    """Cells of what lies between two values."""

    low: float
    high: float
    n_cells: int

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def cell(self, value: float) -> int:
        span = max(self.high - self.low, LEAST_SPAN)
        return round(((value - self.middle) / span + 0.5) * (self.n_cells - 1))


@dataclass(frozen=True)
class Subject:
    """What a plot shows over what."""

    titles: Sequence[str]  # the longest first
    label: Callable[[float], str]  # of a value of the horizontal axis
    words: Sequence[str] = WORDS  # of each kind of point
    characters: Sequence[str] = ("·●B", ".oB")  # likewise; and in ASCII


def front_of(kind: kinds.Kind) -> Subject:
    """The front of a study of a kind."""
    titles = (f"accuracy over {kind.words}", f"accuracy over {kind.column}", "accuracy")

    return Subject(titles, kind.brief)


TRAININGS = front_of(kinds.PARETO)


def plot(
    points: Sequence[Mark], width: int, height: int, *, ascii_only: bool, subject: Subject = TRAININGS
) -> list[str]:
    """The points in at most `height` lines of at most `width` columns; [] where there are none, or no room.

    Both axes are decades, of the cost and of errors, as those of the hypervolume: in accuracy itself a whole front
    would lie in the uppermost line. Where all was right, half of the least other error is drawn.
    """
    if not points or width < NARROWEST or height < LOWEST:
        return []
    errors = [1.0 - point.accuracy for point in points]
    least = min((error for error in errors if error > 0.0), default=1.0) / 2
    xs = [math.log10(point.cost) for point in points]
    ys = [math.log10(max(error, least)) for error in errors]
    across, down = _Axis(min(xs), max(xs), width - GUTTER), _Axis(min(ys), max(ys), height - 3)
    shown: dict[tuple[int, int], Kind] = {}
    for x, y, point in zip(xs, ys, points, strict=True):
        cell = down.cell(y), across.cell(x)
        shown[cell] = max(point.kind, shown.get(cell, point.kind))
    accuracies = [point.accuracy for point in points]
    labels = {
        down.cell(down.middle): f"{1.0 - 10.0**down.middle:.2%}",
        down.cell(down.high): f"{min(accuracies):.2%}",
        down.cell(down.low): f"{max(accuracies):.2%}",
    }
    vertical, tick, *_ = LINES[ascii_only]
    characters = subject.characters[ascii_only]
    lines = [_header({point.kind for point in points}, width, characters, subject)]
    for row in range(down.n_cells):
        cells = [characters[shown[row, i]] if (row, i) in shown else " " for i in range(across.n_cells)]
        label = labels.get(row, "")
        lines.append(f"{label:>{GUTTER - 2}} {tick if label else vertical}{''.join(cells)}".rstrip())
    return lines + _below(across, width, LINES[ascii_only], subject.label)


def _header(kinds: set[Kind], width: int, characters: str, subject: Subject) -> str:
    """What is plotted, in as many words as there is room for, and what the marks mean."""
    order = (Kind.FRONT, Kind.DOMINATED, Kind.BASELINE)
    legend = "  ".join(f"{characters[kind]} {subject.words[kind]}" for kind in order if kind in kinds)
    headers = [f"{title}  {legend}" for title in subject.titles]
    return next((header for header in headers if len(header) <= width), headers[-1])


def _below(axis: _Axis, width: int, characters: Sequence[str], label_of: Callable[[float], str]) -> list[str]:
    """The horizontal axis, and its labels: the ends, and the middle where there is room."""
    *_, corner, horizontal, tick = characters
    line, said = [horizontal] * axis.n_cells, [" "] * width
    for value in (axis.low, axis.high, axis.middle):
        label, cell = label_of(10.0**value), axis.cell(value)
        start = max(0, min(GUTTER + cell - len(label) // 2, width - len(label)))
        if not "".join(said[max(0, start - GAP) : start + len(label) + GAP]).strip():
            said[start : start + len(label)] = label
            line[cell] = tick
    return [f"{' ' * (GUTTER - 1)}{corner}{''.join(line)}", "".join(said).rstrip()]
