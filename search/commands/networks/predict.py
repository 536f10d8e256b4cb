"""Tells what images show with an exported network: frontrunner predict --model FOLDER --images DIR -o FILE.csv."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from objectives.errors import DataError
from objectives.words import counted, expanded, printable, some
from search.commands.exits import exit_code
from search.commands.outputs import Kind, Output, checked
from search.errors import UsageError
from search.views.predictions import HEADERS, STDOUT

if TYPE_CHECKING:
    from objectives.data.layout.labels import Row
    from objectives.export import ExportedModel
    from objectives.inference.images import Found
    from objectives.inference.predictions import Answer
    from search.views.predictions import Table

TABLE = Kind("table of this command", "predictions.csv", tuple(f"{','.join(names)}\n".encode() for names in HEADERS))


def perform(options: argparse.Namespace) -> int:
    """Writes the predictions; 0, 2 usage, 3 images or a network that cannot be used, 4 a table that cannot be written,
    5 device, 130 interrupted."""
    return exit_code(lambda: _predict(options), "")


def _predict(options: argparse.Namespace) -> int:
    from objectives.inference import images
    from search.commands.networks.loaded import loaded
    from search.views import predictions as view

    if options.json and options.output == STDOUT:
        raise UsageError("--json and the table cannot both be printed: name a file with -o")
    output = None if options.output == STDOUT else checked(options.output, TABLE)
    files = images.each_once(images.found(options.images, follow_links=options.follow_links))
    if not files:
        raise DataError(printable(f"no files in {some(options.images)}: check the path after --images"))
    model = loaded(options.model, options.device)
    if model.is_series:
        way_out = "frontrunner.Model.load(FOLDER).predict(series) does in Python"
        raise UsageError(printable(f"{options.model} takes series, and --images are images: {way_out}"))
    rows = {} if options.labels is None else _rows(options, files, model)
    with _written(output) as stream:
        table, n_others = view.Table(stream, knows_truth=options.labels is not None), 0
        for key, answer in _answers(model, files):
            n_others += answer is None
            if answer is not None:
                table.add(files[key].name, answer, rows.pop(key).label if key in rows else "")
        if not table.n and not table.missing:
            raise DataError(printable(f"no image in {some(options.images)}: check the path after --images"))
    _tell_unmet([*rows.values()], options)
    return _told(options, table, n_others, model)


def _told(options: argparse.Namespace, table: Table, n_others: int, model: ExportedModel) -> int:
    from search.views import predictions as view

    calibration = model.calibration.to_json()
    if table.missing:
        print("no prediction for:", *view.missing(table.missing), sep="\n", file=sys.stderr)
    if options.json:
        print(json.dumps(view.as_json(table, options.model, options.output, n_others, calibration)))
    else:
        where = sys.stderr if options.output == STDOUT else sys.stdout
        print(*view.lines(table, options.output, n_others, calibration), sep="\n", file=where)
    if not table.n:
        raise DataError("none of the files can be read as an image")
    return 0


def _answers(model: ExportedModel, files: Mapping[str, Found]) -> Iterator[tuple[str, Answer]]:
    """What tells a file apart, with its answer, for every file, and a word of how far it is."""
    from rich.console import Console

    from objectives.inference.predictions import predictions
    from search.views import reading

    with reading.shown(Console(stderr=True)) as progress:
        answers = predictions(model, [*files.values()])
        for n, (key, answer) in enumerate(zip(files, answers, strict=True), start=1):
            yield key, answer
            if n % 256 == 0 or n == len(files):
                progress("predicting", n, len(files))


def _rows(options: argparse.Namespace, files: Mapping[str, Found], model: ExportedModel) -> dict[str, Row]:
    """What a table says that images show, by what tells those apart; of all that it names, whether it is here or not.

    Raises:
        DataError: it cannot be understood, or names classes that the network does not know.
    """
    from objectives.data.layout.labels import told
    from objectives.inference.images import known_as

    table = Path(expanded(options.labels))
    if not table.is_file():
        raise UsageError(printable(f"there is no table of labels {table}: check the path after --labels"))
    named = told([Path(expanded(place)) for place in options.images], table)
    rows = {known_as(path): replace(row, label=printable(row.label)) for path, row in named.items()}
    labels = {row.label for key, row in rows.items() if key in files}
    if not labels:
        raise DataError(printable(f"{table} names none of the images: paths are relative to {options.images[0]}"))
    if others := sorted(labels - {*model.classes}):
        known = f"the network knows {some(model.classes, 5)}"
        raise DataError(printable(f"{table} has labels that the network does not know: {some(others)}: {known}"))
    return rows


def _tell_unmet(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Says which rows of the table of labels told of nothing, if any."""
    if rows:
        first = f"line {rows[0].line}: {rows[0].file}"
        what = f"{options.labels} names what is none of the images: {counted(len(rows), 'file')} ({first})"
        print(
            printable(f"warning: {what}: paths are relative to {options.images[0]}, with the extension"),
            file=sys.stderr,
        )


@contextmanager
def _written(output: Output | None) -> Iterator[TextIO]:
    """Where the table goes: a file, or standard output where none is named."""
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with output.opened() as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.flush()
        text.detach()
