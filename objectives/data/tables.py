"""Tables as spreadsheets write them: which files are some, and what stands in their lines."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from objectives.errors import DataError
from objectives.words import printable

TABLES = (".csv", ".tsv")
DELIMITERS = ",;\t"  # spreadsheets of half of Europe write ';'
NEEDED = ("file", "label")
KNOWN = (*NEEDED, "split")


def read(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(names of the columns in lower case, number and cells of every line below).

    Raises:
        DataError: it is no table, or no text in UTF-8.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            delimiter = max(DELIMITERS, key=head.count)
            columns = [cell.strip().casefold() for cell in next(csv.reader([head], delimiter=delimiter), [])]
            reader = csv.reader(stream, delimiter=delimiter)
            return columns, [(1 + reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except UnicodeDecodeError as error:
        raise DataError(printable(f"{table} is not in UTF-8: save it as UTF-8, as spreadsheets offer")) from error
    except csv.Error as error:
        raise DataError(printable(f"{table} is no table: {error}")) from error


def named(tables: Sequence[Path]) -> Path | None:
    """The table among these that has the columns which name classes; None where there is none, or more than one."""
    found = []
    for table in tables:
        try:
            columns, _ = read(table)
        except (DataError, OSError):
            continue
        if set(NEEDED) <= set(columns):
            found.append(table)
    return found[0] if len(found) == 1 else None
