"""How far long work on a folder is, told to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # (what is done to the files, files that it is done to, of so many)


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that nobody sees."""
