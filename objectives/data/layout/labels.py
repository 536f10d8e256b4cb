"""A table that says what its images show: columns `file`, `label`, and `split` where the images come in splits."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path

from objectives.data.layout.listing import File, Layout, Walk, is_image, role, stamp
from objectives.errors import DataError
from objectives.words import counted, printable, some

TABLES = (".csv", ".tsv")
DELIMITERS = ",;\t"  # spreadsheets of half of Europe write ';'
NEEDED = ("file", "label")
KNOWN = (*NEEDED, "split")
SPLITS = ("train", "val", "test")  # words of the column `split`


@dataclass(frozen=True)
class Row:
    """A line of the table."""

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
    if not test and not any(row.split in (None, "train") for row in used):
        found = " and ".join(sorted({str(row.split) for row in rows}))
        raise DataError(printable(f"{table} names no image to train on: split is {found} in every line: write train"))
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
        _unnamed(walk, base, table, rows),
        are_named=True,
    )


def told(places: Sequence[Path], table: Path) -> dict[str, Row]:
    """What a table says of every file that it names, whatever its split, by absolute path.

    Paths are relative to the first of the places, or to the folder of the table, in which the file lies.

    Raises:
        DataError: the table cannot be understood.
    """
    found, bases = {}, [os.path.abspath(place) for place in (*places, table.parent)]
    for row in _rows(table):
        paths = [os.path.normpath(os.path.join(base, row.file)) for base in bases]
        found[next(filter(os.path.isfile, paths), paths[0])] = row
    return found


def named(tables: Sequence[Path]) -> Path | None:
    """The table among these that has the columns which name classes; None where there is none, or more than one."""
    found = []
    for table in tables:
        try:
            columns, _ = _read(table)
        except (DataError, OSError):
            continue
        if set(NEEDED) <= set(columns):
            found.append(table)
    return found[0] if len(found) == 1 else None


def _remarks(table: Path, rows: Sequence[Row]) -> tuple[str, ...]:
    n_test = sum(row.split == "test" for row in rows)
    return (printable(f"{counted(n_test, 'test image')} of {table.name} left unopened"),) if n_test else ()


def _unnamed(walk: Walk, base: Path, table: Path, rows: Sequence[Row]) -> tuple[str, ...]:
    """A warning of the images that lie in the folder and not in the table."""
    behind_links: Callable[[str], str] = cache(os.path.realpath)  # a folder once: that takes 44 us
    named = {_known_as(os.path.join(base, row.file), behind_links) for row in rows}
    seen = (entry.path for entry, fault in walk.files(str(base)) if not fault)
    others = (path for path in chain(seen, walk.concealed()) if _known_as(path, behind_links) not in named)
    left = [name for path in others if role(name := os.path.relpath(path, base)) != "test" and _may_be_image(path)]
    return (
        (printable(f"left out, because not in {table.name}: {counted(len(left), 'image')} ({some(left)})"),)
        if left
        else ()
    )


def _known_as(path: str, behind_links: Callable[[str], str]) -> str:
    """What tells a file from others, however its folder is reached."""
    folder, name = os.path.split(os.path.normpath(path))
    return os.path.join(behind_links(folder), name)


def _may_be_image(path: str) -> bool:
    return not path.lower().endswith(TABLES) and is_image(path)


def _base(path: Path, table: Path, rows: Sequence[Row]) -> Path:
    """The folder that the table's paths start from: the data folder, the table's own, or the only one in there."""
    inner = [
        Path(entry.path) for entry, fault in Walk(str(path), False).entries(str(path)) if entry.is_dir() and not fault
    ]
    places = [path, *([table.parent] if table.parent != path else []), *(inner if len(inner) == 1 else [])]
    return next((place for place in places if os.path.isfile(place / rows[0].file)), path)


def _read(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(names of the columns in lower case, number and cells of every line below).

    Raises:
        DataError: it is no table, or no text in UTF-8.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            read = partial(csv.reader, delimiter=max(DELIMITERS, key=head.count), skipinitialspace=True)
            columns = [cell.strip().casefold() for cell in next(read([head]), [])]
            reader = read(stream)
            return columns, [(1 + reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except UnicodeDecodeError as error:
        raise DataError(printable(f"{table} is not in UTF-8: save it as UTF-8, as spreadsheets offer")) from error
    except csv.Error as error:
        raise DataError(printable(f"{table} is no table: {error}")) from error


def _rows(table: Path) -> list[Row]:
    columns, lines = _read(table)
    if not set(NEEDED) <= set(columns):
        found = ", ".join(filter(None, columns)) or "none"
        raise DataError(printable(f"{table} has columns {found}: it needs file and label, and may have split"))
    if twice := [name for name in KNOWN if columns.count(name) > 1]:
        raise DataError(printable(f"{table}: column {twice[0]} comes twice in the first line: rename one of them"))
    at = {name: columns.index(name) for name in KNOWN if name in columns}
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for line, cells in lines:
        if not any(cells):
            continue
        if len(cells) <= max(at.values()):
            found = counted(len(cells), "column")
            raise DataError(printable(f"{table}, line {line}: {found}, the first line has {len(columns)}"))
        if any(cells[len(columns) :]):
            found = f"{counted(len(cells), 'column')}, the first line has {len(columns)}"
            raise DataError(printable(f"{table}, line {line}: {found}: a cell that holds a separator stands in quotes"))
        row = _row(table, line, {name: cells[place] for name, place in at.items()})
        if (before := seen.setdefault(os.path.normpath(row.file), line)) != line:
            raise DataError(printable(f"{table}, line {line}: {row.file} is named in line {before} already"))
        rows.append(row)
    if not rows:
        raise DataError(printable(f"{table} names no files: a line for each image"))
    return rows


def _row(table: Path, line: int, cells: dict[str, str]) -> Row:
    """A line of the table.

    Raises:
        DataError: a cell is empty, or its split is none.
    """
    for name in NEEDED:
        if not cells[name]:
            raise DataError(printable(f"{table}, line {line}: the {name} is empty"))
    split = cells.get("split")
    if split is not None and split.casefold() not in SPLITS:  # 'valve' is no validation, whatever folders are called
        raise DataError(printable(f"{table}, line {line}: split is {split!r}: write train, val or test"))
    return Row(line, cells["file"], cells["label"], split and split.casefold())
