"""Pipelines as rows of numbers, read from their JSON: for models of recorded trainings that know nothing of spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Plain = Mapping[str, Any]  # a pipeline as JSON

WIDE = 8.0  # a positive number that varies by more than this factor is seen on a logarithmic scale


@dataclass(frozen=True)
class Features:
    """The columns: numbers on the scale of [0, 1] within the table, one column per word that a setting may be."""

    numbers: Mapping[str, tuple[float, float, bool]]  # name -> (least, most, whether on a logarithmic scale)
    words: tuple[tuple[str, str], ...]  # (name, word)

    @classmethod
    def of(cls, table: Sequence[Plain]) -> Features:
        """The columns in which the rows of a table differ."""
        rows = [flat(each) for each in table]
        numbers: dict[str, tuple[float, float, bool]] = {}
        words: list[tuple[str, str]] = []
        for name in sorted({name for row in rows for name in row}):
            values = [row[name] for row in rows if name in row]
            if any(isinstance(value, str) for value in values):
                words += [(name, word) for word in sorted({str(value) for value in values})]
                continue
            least, most = min(values), max(values)
            if least < most or len(values) < len(rows):
                numbers[name] = least, most, least > 0 and most / least > WIDE
        return cls(numbers, tuple(words))

    def rows(self, table: Sequence[Plain]) -> Array:
        """[len(table), columns]; a number that a pipeline does not have is -1."""
        flats = [flat(each) for each in table]
        columns = [[_place(row.get(name), *known) for row in flats] for name, known in self.numbers.items()]
        columns += [[float(row.get(name) == word) for row in flats] for name, word in self.words]
        return np.array(columns, dtype=float).T.reshape(len(flats), len(columns))


def flat(pipeline: Plain) -> dict[str, Any]:
    """The settings of a pipeline, and those of its strategies by kind, under one name each."""
    found = {name: _number(value) for name, value in pipeline.items() if isinstance(value, (bool, int, float, str))}
    for strategy in pipeline.get("strategies", ()):
        kind = strategy["strategy"]
        found[kind] = 1.0
        for name, value in strategy.items():
            if isinstance(value, (bool, int, float)):
                found[f"{kind}.{name}"] = _number(value)
    return found


def _number(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def _place(value: float | None, least: float, most: float, is_log: bool) -> float:
    if value is None:
        return -1.0
    if most <= least:
        return 1.0
    if is_log:
        return (log10(max(value, least / 10)) - log10(least)) / (log10(most) - log10(least))
    return (value - least) / (most - least)
