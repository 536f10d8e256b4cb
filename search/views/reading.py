"""How far the reading of many files is: a bar on a terminal, a line for each tenth elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from objectives.data.cache.progress import Progress

MANY_FILES = 5000  # fewer are read before a bar has been looked at
QUIET = 2.0  # seconds between two lines


class Tenths:
    """Lines for work on many files: one for each tenth that is done, and not too many at once."""

    def __init__(self, quiet: float = QUIET) -> None:
        """`quiet`: seconds between two lines, at least."""
        self._told, self._quiet, self._at = ("", -1), quiet, time.monotonic()

    def line(self, what: str, done: int, total: int) -> str | None:
        """What to say now; None where nothing is new."""
        now = (what, 10 * done // total)
        if now == self._told or time.monotonic() < self._at + self._quiet:
            return None
        self._told, self._at = now, time.monotonic()
        return f"{what} {total} images: {100 * done // total} %"


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """What shows, while the block works, how far it is."""
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        tenths = Tenths()

        def tell(what: str, done: int, total: int) -> None:
            if total >= MANY_FILES and (line := tenths.line(what, done, total)):
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield tell
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def draw(what: str, done: int, total: int) -> None:
            if bar.tasks[0].description != what:
                bar.reset(task, description=what, total=total or None)
            bar.update(task, completed=done)

        yield draw
