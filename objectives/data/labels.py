"""A table that says what its images show: columns `file`, `label`, and `split` where the images come in splits."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from objectives.data.listing import File, Layout, Walk, is_image, stamp
from objectives.data.sources import counted, printable, some
from objectives.data.splits import TABLES, role
from objectives.errors import DataError

DELIMITERS = ",;\t"  # spreadsheets of half of Europe write ';'


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    label: str
    split: str | None  # 'train', 'val', 'test'; None: the table has no such column


def tabled(path: Path, table: Path, follow_links: bool, *, test: bool = False) -> Layout:
    """The images of a folder that a table names. Rows of a test split are left alone; with `test` all others are.

    Raises:
        DataError: the table cannot be understood, or names what is not there.
    """
    rows = _rows(table)
    base = _base(path, table, rows)
    walk = Walk(str(path), follow_links)
    used = [row for row in rows if (row.split == "test") == test]
    classes = sorted({row.label for row in used})
    position = {name: number for number, name in enumerate(classes)}
    files, skipped, missing = [], [], []
    for row in sorted(used, key=lambda row: row.file):
        place = os.path.normpath(base / row.file)
        if not os.path.isfile(place):
            missing.append(row)
        elif not follow_links and not walk.inside(os.path.realpath(place)):
            skipped.append(printable(f"{row.file}: leads out of the folder (follow_links = true allows it)"))
        else:
            relative = os.path.relpath(place, path)
            files.append(File(place, relative, position[row.label], row.split == "val", stamp(place)))
    if missing:
        first = f"line {missing[0].line}: {missing[0].file}"
        what = f"{table} names what is not in {base}: {counted(len(missing), 'file')} ({first})"
        raise DataError(printable(f"{what}: paths are relative to it, with the extension"))
    named = {os.path.normpath(base / row.file) for row in rows}
    validates = any(file.validates for file in files)
    if not validates and any(row.split == "val" for row in used):
        raise DataError(printable(f"no validation image of {table} can be used: {some(skipped)}"))
    return Layout(
        path,
        tuple(map(printable, classes)),
        tuple(files),
        tuple(skipped),
        printable(f"as {table.name} says") if validates else None,
        _remarks(table, rows),
        _unnamed(walk, base, table, named),
    )


def _remarks(table: Path, rows: Sequence[_Row]) -> tuple[str, ...]:
    n_test = sum(row.split == "test" for row in rows)
    return (printable(f"{counted(n_test, 'test image')} of {table.name} left unopened"),) if n_test else ()


def _unnamed(walk: Walk, base: Path, table: Path, named: set[str]) -> tuple[str, ...]:
    """A warning of the images that lie in the folder and not in the table."""
    entries = ((entry, os.path.normpath(entry.path)) for entry, fault in walk.files(str(base)) if not fault)
    others = ((os.path.relpath(path, base), path) for entry, path in entries if path not in named)
    left = [name for name, path in others if role(name) != "test" and _may_be_image(path)]
    return (
        (printable(f"left out, because not in {table.name}: {counted(len(left), 'image')} ({some(left)})"),)
        if left
        else ()
    )


def _may_be_image(path: str) -> bool:
    return not path.lower().endswith(TABLES) and is_image(path)


def _base(path: Path, table: Path, rows: Sequence[_Row]) -> Path:
    """The folder that the table's paths start from: the data folder, the table's own, or the only one in there."""
    inner = [
        Path(entry.path) for entry, fault in Walk(str(path), False).entries(str(path)) if entry.is_dir() and not fault
    ]
    places = [path, *([table.parent] if table.parent != path else []), *(inner if len(inner) == 1 else [])]
    return next((place for place in places if os.path.isfile(place / rows[0].file)), path)


def _rows(table: Path) -> list[_Row]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            delimiter = max(DELIMITERS, key=head.count)
            columns = [cell.strip().casefold() for cell in next(csv.reader([head], delimiter=delimiter), [])]
            reader = csv.reader(stream, delimiter=delimiter)
            lines = [(1 + reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(printable(f"{table} is no table in UTF-8: {error}")) from error
    if not {"file", "label"} <= set(columns):
        found = ", ".join(filter(None, columns)) or "none"
        raise DataError(printable(f"{table} has columns {found}: it needs file and label, and may have split"))
    at = {name: columns.index(name) for name in ("file", "label", "split") if name in columns}
    rows: list[_Row] = []
    seen: dict[str, int] = {}
    for line, cells in lines:
        if not any(cells):
            continue
        if len(cells) <= max(at.values()):
            raise DataError(printable(f"{table}, line {line}: {len(cells)} columns, the first line has {len(columns)}"))
        row = _row(table, line, {name: cells[place] for name, place in at.items()})
        if (before := seen.setdefault(os.path.normpath(row.file), line)) != line:
            raise DataError(printable(f"{table}, line {line}: {row.file} is named in line {before} already"))
        rows.append(row)
    if not rows:
        raise DataError(printable(f"{table} names no files: a line for each image"))
    return rows


def _row(table: Path, line: int, cells: dict[str, str]) -> _Row:
    """A line of the table.

    Raises:
        DataError: a cell is empty, or its split is none.
    """
    for name in ("file", "label"):
        if not cells[name]:
            raise DataError(printable(f"{table}, line {line}: the {name} is empty"))
    split = None
    if "split" in cells and (split := role(cells["split"])) is None:
        raise DataError(printable(f"{table}, line {line}: split is {cells['split']!r}: write train, val or test"))
    return _Row(line, cells["file"], cells["label"], split)
