"""Text in columns for any width: what does not fit beside its row stands below it. No line ends in blanks."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

GAP = 2  # blanks between columns
WIDE = 200  # columns of what does not go to a terminal
LEAST_BESIDE = 44  # columns of text that the last cell needs to stand beside the others
INDENT = "    "


def printed_width() -> int:
    """Columns of standard output."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE


def columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, *, left: Sequence[str] = ()
) -> list[str]:
    """A header and rows as lines of at most `width` columns, if the cells before the last leave room for that.

    Cells are flush right but for the columns named in `left` and the last one, which is wrapped: beside the others
    where there is room for it, below them, indented, where there is not. `width`: of what is printed to, unless given.
    """
    width = width or printed_width()
    *names, last = header
    fixed = [max(map(len, [name, *(row[i] for row in rows)])) for i, name in enumerate(names)]
    used = sum(fixed) + GAP * len(fixed)
    beside = width - used >= min(LEAST_BESIDE, max([len(last), *(len(row[-1]) for row in rows)]))
    room = width - used if beside else width - len(INDENT)

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(size) if name in left else cell.rjust(size)
            for name, cell, size in zip(names, cells, fixed, strict=True)
        ]
        return (" " * GAP).join(aligned)

    lines = [f"{line(names)}{' ' * GAP}{last}".rstrip()]
    if not beside:
        lines = [line(names).rstrip(), *([f"{INDENT}{last}"] if last else [])]
    for *cells, text in rows:
        wrapped = textwrap.wrap(text, max(room, 20), break_on_hyphens=False) or [""]
        if beside:
            lines.append(f"{line(cells)}{' ' * GAP}{wrapped[0]}".rstrip())
            lines += [f"{' ' * used}{more}" for more in wrapped[1:]]
        else:
            lines += [line(cells).rstrip(), *(f"{INDENT}{more}" for more in wrapped if more)]
    return lines


def wrapped(text: str, width: int, indent: str = INDENT) -> list[str]:
    """A line as lines of at most `width` columns, the ones after the first indented; no word is broken."""
    return textwrap.wrap(
        text, max(width, 20), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]
