"""How this program was called, so that the commands which it prints can be typed."""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAM = "frontrunner"  # the console script


def program() -> str:
    """The words before the name of a command."""
    return PROGRAM if Path(sys.argv[0]).name == PROGRAM else "python -m search"


def command(name: str) -> str:
    """The words that call a command; the main one has a module's name of its own."""
    if name == "run" and Path(sys.argv[0]).name not in (PROGRAM, "__main__.py"):
        return "python -m search.run"
    return f"{program()} {name}"
