"""Shows and clears the decoded images that are kept: frontrunner cache show | clear."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from objectives.data.cache.contents import Entry, clear, entries
from objectives.data.sources import NO_CACHE, cache_home
from objectives.words import printable
from search.commands.exits import exit_code
from search.database.disk import free_bytes, words
from search.errors import UsageError
from search.views.columns import columns


def perform(options: argparse.Namespace) -> int:
    """Does what the command line asks; 0, 2 usage, 4 a cache that cannot be changed."""
    return exit_code(lambda: _do(options), "")


def _do(options: argparse.Namespace) -> int:
    home = cache_home()
    if home is None:
        raise UsageError(NO_CACHE)
    if options.command == "show":
        found = entries(home)
        if options.json:
            print(json.dumps(_as_json(found)))
        else:
            print(*_table(home, found), sep="\n")
        return 0
    before = None if options.older_than is None else datetime.now() - timedelta(days=options.older_than)
    removed = clear(home, before)
    if options.json:
        print(json.dumps(_as_json(removed)))
    else:
        print(f"{words(_bytes(removed))} freed in {home}")
    return 0


def _as_json(found: Sequence[Entry]) -> dict[str, object]:
    return {"entries": [asdict(each) for each in found], "bytes": _bytes(found)}


def _table(home: Path, found: Sequence[Entry]) -> list[str]:
    """A line for each entry, and what they take together."""
    rows = [
        [
            words(each.n_bytes),
            "" if each.n_images is None else str(each.n_images),
            "" if each.side is None else str(each.side),
            each.last_used.replace("T", " "),
            each.what,
            printable(each.belongs_to or os.path.relpath(each.path, home)),
        ]
        for each in found
    ]
    total = f"{words(_bytes(found))} in {printable(str(home))}, {words(free_bytes(home))} free there"
    return [
        *(columns(["bytes", "images", "pixels", "last used", "what", "of"], rows, left=["what"]) if rows else []),
        total,
    ]


def _bytes(found: Sequence[Entry]) -> int:
    return sum(each.n_bytes for each in found)
