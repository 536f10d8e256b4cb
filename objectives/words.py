"""Words for people: names on one line, numbers of things, the first of many. Standard library only."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

# Characters that are not seen and decide which way others run (Unicode 16, annex 9).
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def expanded(path: str) -> str:
    """`path` with `~` and `~user` as the folders that they mean, unchanged where there is no such user or home."""
    return os.path.expanduser(path)  # that of pathlib raises RuntimeError


def printable(text: str) -> str:
    """`text` on one line of valid UTF-8: bytes of no known encoding and control characters are written as escapes."""
    if text.isprintable():  # as most are: none of it is a control character, a separator of lines or half a character
        return text
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in clean
    )


def inert(text: str) -> str:
    """`printable` text that also cannot turn what stands around it: marks of direction are written as escapes."""
    return "".join(c.encode("unicode_escape").decode() if c in DIRECTIONS else c for c in printable(text))


def counted(n: float, thing: str) -> str:
    """A number of things in words: '1 class', '2 classes', '0.5 minutes'."""
    number = f"{n:g}" if isinstance(n, float) else n
    return f"{number} {thing}" if n == 1 else f"{number} {thing}{'es' if thing.endswith('s') else 's'}"


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
