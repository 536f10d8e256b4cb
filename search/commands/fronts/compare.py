"""Sets two fronts beside each other: frontrunner compare A B, names of studies or files of databases.

Needs no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna

from objectives.words import expanded, printable
from search.commands.exits import exit_code
from search.commands.outputs import PAGE, Output, checked
from search.database import catalogue, storage
from search.errors import Foreign, UsageError
from search.pareto import resampling
from search.study import opening, records
from search.study.snapshot import Snapshot

if TYPE_CHECKING:
    from search.views.comparison.compared import Comparison

FILES = (".db", ".sqlite", ".sqlite3")  # how a word ends that means a database


def perform(options: argparse.Namespace) -> int:
    """Prints the comparison; 0, 2 usage or not comparable, 4 storage, or a page that cannot be written."""
    url = storage.url(options.storage, None)
    return exit_code(lambda: _compare(options, url), url)


def _compare(options: argparse.Namespace, url: str) -> int:
    from search.views.comparison import words

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    output = None if options.output is None else checked(options.output, PAGE)
    named = [_Named.of(word, url) for word in (options.a, options.b)]
    found = _compared(*(each.read() for each in named), anyway=options.anyway)
    try:
        if output is not None:
            _write(output, found)
        if options.json:
            print(json.dumps(words.as_json(found)))  # in ASCII: it goes to whatever reads it
        else:
            ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
            print(*map(printable, words.lines(found, ascii_only=ascii_only)), sep="\n")
    except opening.UNREADABLE as error:
        names = " and ".join(repr(each.now.name) for each in found.sides)
        raise Foreign(f"trials of {names} were written by another version of frontrunner ({error})") from error
    return 0


@dataclass(frozen=True)
class _Named:
    """A study that a word of the command line means."""

    url: str
    name: str | None  # None: the only one of its database

    @classmethod
    def of(cls, word: str, url: str) -> _Named:
        """What a word means: the name of a study, or a database file, perhaps with a name behind a colon.

        Raises:
            UsageError: it means a file that is not there.
        """
        path, _, name = word.rpartition(":")
        for place, study in ((word, None), (path, name or None)):
            if place and os.path.isfile(expanded(place)):
                return cls(f"sqlite:///{expanded(place)}", study)
        if word.endswith(FILES) or os.sep in word:
            raise UsageError(f"there is no database file {word}: name a study, FILE.db, or FILE.db:NAME")
        return cls(url, word)

    def read(self) -> Snapshot:
        """The study as it is now.

        Raises:
            UsageError, StorageError: there is none, or it cannot be read.
        """
        database = storage.open_storage(self.url, create=False)
        name = self.name or catalogue.only_name(database, records.IDENTITY, "name one, FILE:NAME")
        return opening.seen(name, database)


def _compared(a: Snapshot, b: Snapshot, *, anyway: bool) -> Comparison:
    """Both studies beside each other.

    Raises:
        UsageError: they are of two kinds, have no front or no box, or differ in what they were measured by.
    """
    from search.views.comparison import comparable
    from search.views.comparison.compared import Comparison, Side

    names = _names(a, b)
    if a.kind.name != b.kind.name:
        costs = [f"{name} minimises {each.kind.words}" for name, each in zip(names, (a, b), strict=True)]
        raise UsageError(f"{' and '.join(costs)}: their fronts share no axis")
    for name, each in zip(names, (a, b), strict=True):
        if not each.front:
            raise UsageError(f"study {name} has no front yet, nothing that reached {each.floor:.2%}: run it first")
        if each.box is None:
            raise UsageError(f"study {name} is of a version that had no box to measure fronts in")
    with opening.understood(a.name):
        obstacles, remarks = comparable.obstacles(a, b), comparable.remarks(a, b)
    if obstacles and not anyway:
        why = f"{names[0]} and {names[1]} are not comparable: {'; '.join(obstacles)}"
        raise UsageError(f"{why}: --anyway compares them all the same")
    box = resampling.shared([each.box for each in (a, b) if each.box is not None])
    return Comparison(Side(a, names[0]), Side(b, names[1]), box, obstacles, remarks)


def _names(a: Snapshot, b: Snapshot) -> tuple[str, str]:
    """What tells the studies apart: their names, else where they lie."""
    if a.name != b.name:
        return a.name, b.name
    stems = [each.database.path.stem if each.database.path else each.database.shown for each in (a, b)]
    if stems[0] == stems[1]:
        return f"{a.name} (A)", f"{b.name} (B)"
    return f"{a.name} of {stems[0]}", f"{b.name} of {stems[1]}"


def _write(output: Output, found: Comparison) -> None:
    """Writes the page."""
    try:
        from search.views.comparison.page import page

        content = page(found).encode("utf-8", "replace")
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed, of which a page is made: pip install {error.name}") from error
    output.write(content)
    print(printable(f"the page is {output.named} ({len(content) / 1e6:.1f} MB): it needs no network"), file=sys.stderr)
