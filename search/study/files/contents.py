"""What a study file says, as plain data."""

from __future__ import annotations

import tomllib
from pathlib import Path

from objectives.words import printable
from search.errors import UsageError
from search.study.files.mistakes import of_toml

MAX_BYTES = 100_000  # of a study file


def contents(path: Path) -> dict[str, object]:
    """A TOML file.

    Raises:
        UsageError: it cannot be read as one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        return tomllib.loads(content.decode("utf-8-sig"))  # Windows' editors begin with a mark
    except (OSError, ValueError, RecursionError) as error:  # tomllib: also integers too long to read, lists too deep
        raise UsageError(printable(f"{path}: not a readable TOML file: {of_toml(error)}")) from error
