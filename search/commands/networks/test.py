"""Says how good an exported network is on labelled images: frontrunner test --model FOLDER --data folder:DIR."""

from __future__ import annotations

import argparse
import json
import sys

from objectives.task import DataSpec, as_data
from objectives.words import printable
from search.commands.exits import exit_code
from search.errors import UsageError


def perform(options: argparse.Namespace) -> int:
    """Prints what it finds; 0, 2 usage, 3 images or a network that cannot be used, 5 device, 130 interrupted."""
    return exit_code(lambda: _test(options), "")


def _test(options: argparse.Namespace) -> int:
    from rich.console import Console

    from search.commands.networks.loaded import loaded
    from search.views import judgement as view
    from search.views import reading

    try:
        spec = DataSpec(as_data(options.data), root=options.data_root, labels=options.labels)
    except ValueError as error:
        raise UsageError(str(error)) from error
    model = loaded(options.model, options.device)
    from objectives.inference.judging import judged

    with reading.shown(Console(stderr=True)) as progress:
        found = judged(model, spec, options.split, progress)
    for remark in found.remarks:
        print(printable(f"warning: {remark}"), file=sys.stderr)
    if options.json:
        print(json.dumps(view.as_json(found, model.classes, options.model, spec.name)))
    else:
        print(*view.lines(found, model.classes), sep="\n")
    return 0
