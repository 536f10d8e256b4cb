"""Shows what a data set holds, before anything is trained: frontrunner data FOLDER."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console

from objectives.data.card import Card, examine, samples
from objectives.errors import DataError
from objectives.task import DataSpec, as_data
from objectives.words import printable
from search.commands.exits import exit_code
from search.commands.outputs import PAGE, Output, checked
from search.errors import UsageError
from search.views import card as view
from search.views import reading
from search.views.page import page

MOST_SAMPLES, PICTURES = 6, 300  # pictures of a class on a page, and of all together unless there are more classes


def perform(options: argparse.Namespace) -> int:
    """Prints the card; 0, 2 usage, 3 data that a run would refuse, 4 a page that cannot be written."""
    return exit_code(lambda: _show(options), "")


def _show(options: argparse.Namespace) -> int:
    spec = _spec(options)
    output = None if options.html is None else checked(options.html, PAGE, "--html")
    with reading.shown(Console(stderr=True)) as progress:
        card = examine(spec, progress=progress)
    if output is not None:
        _write_page(output, spec, card)
    if options.json:
        print(json.dumps(card.to_json()))  # in ASCII: it goes to whatever reads it
    else:
        print(*view.lines(card), sep="\n")
    if card.refusal is not None:
        raise DataError(card.refusal)
    return 0


def _spec(options: argparse.Namespace) -> DataSpec:
    """The data that are meant.

    Raises:
        UsageError: they cannot be.
    """
    try:
        return DataSpec(as_data(options.data), root=options.data_root, size=options.size, labels=options.labels)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _write_page(output: Output, spec: DataSpec, card: Card) -> None:
    per_class = max(1, min(MOST_SAMPLES, PICTURES // max(1, len(card.classes))))
    pictures = samples(spec, per_class)
    output.write(page(card, pictures).encode("utf-8", "replace"))
    print(printable(f"the page is {output.named}"), file=sys.stderr)
