"""A point that was taken apart as one HTML page that needs nothing else; and as a section of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.ablation.result import Ablation, Effect
from search.host.called import command
from search.study import records
from search.study.snapshot import Snapshot
from search.views.ablation import words
from search.views.drawing import waterfall
from search.views.report import offline

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """An ingredient in the table of a page: as `words.cells`, intervals apart."""

    name: str
    off: str
    pairs: str
    without: str
    seconds: tuple[str, str]
    points: tuple[str, str]


@dataclass(frozen=True)
class Shown:
    """An ablation, as a page shows it."""

    point: int
    title: str
    pipeline: str
    figure: str  # its name in the page
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def shown(found: Ablation, now: Snapshot) -> Shown:
    """What a page says of an ablation."""
    pipeline = records.in_words(now.trials[found.point])
    rows = tuple(map(_row, words.rows(found)))
    notes = tuple(words.notes(found))
    return Shown(found.point, words.title(found), pipeline, f"ablation-{found.point}", rows, notes)


def _row(each: Effect) -> Row:
    name, pairs, without, seconds, points, off = words.cells(each)
    return Row(name, off, pairs, without, _parts(seconds), _parts(points))


def _parts(cell: str) -> tuple[str, str]:
    """(value, what follows it) of a cell."""
    value, opened, rest = cell.partition(" (")
    return value, f"({rest}" if opened else ""


def page(found: Ablation, now: Snapshot, left_out: Sequence[str] = ()) -> str:
    """The page. An ablation without a pair has none."""
    each = shown(found, now)
    figures = {each.figure: waterfall.figure(found)}
    offline.untitled(figures)
    again = (
        f"{command('ablate')} --study {now.name} --trial {found.point} --seeds {found.n_rounds}{now.database.option}"
    )
    template = offline.environment(HERE, offline.HERE).get_template("ablation.html")
    return template.render(now=now, each=each, left_out=left_out, again=again, **offline.trusted(figures))
