"""Says which network of a front to take: frontrunner best --study NAME --under-seconds 60.

Of a study that makes a network smaller: --under-mflop 2.
"""

from __future__ import annotations

import argparse
import json

import optuna

from search.commands.exits import exit_code
from search.database import storage
from search.errors import UsageError
from search.pareto.choice import Choice, chosen
from search.study import opening
from search.study.snapshot import Snapshot
from search.views import choice as view


def perform(options: argparse.Namespace) -> int:
    """Prints the point that was asked for; 0, 2 usage or none such, 4 storage."""
    url = storage.url(options.storage, None)
    return exit_code(lambda: _say(options, url), url)


def read(name: str, url: str) -> Snapshot:
    """A study as it is in its database.

    Raises:
        UsageError, StorageError: there is none, or it cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return opening.seen(name, storage.open_storage(url, create=False))


def asked(now: Snapshot, options: argparse.Namespace, within: float = 0.0) -> Choice:
    """The point of the front that a command line means.

    Raises:
        UsageError: there is none such.
    """
    return choice(now, options.under_seconds, options.under_mflop, options.min_accuracy, within)


def choice(
    now: Snapshot,
    under_seconds: float | None = None,
    under_mflop: float | None = None,
    min_accuracy: float | None = None,
    within: float = 0.0,
) -> Choice:
    """The point of the front that limits mean; see `search.pareto.choice.chosen`.

    Raises:
        UsageError: there is none such.
    """
    at_most = _limit(now, under_seconds, under_mflop)
    found = chosen(now.candidates, at_most, min_accuracy, within)
    if found is None:
        raise UsageError(view.lacking(now, at_most, min_accuracy))
    return found


def _limit(now: Snapshot, under_seconds: float | None, under_mflop: float | None) -> float | None:
    """The cost that is allowed.

    Raises:
        UsageError: it is none that this kind of study minimises.
    """
    asked = {True: under_seconds, False: under_mflop}
    limit: float | None = asked.pop(now.kind.trains)
    if any(other is not None for other in asked.values()):
        flag = "--under-seconds S" if now.kind.trains else "--under-mflop M"
        raise UsageError(f"the front of {now.name!r} is one of accuracy over {now.kind.words}: ask with {flag}")
    return None if limit is None else limit * now.kind.scale


def _say(options: argparse.Namespace, url: str) -> int:
    now = read(options.study, url)
    with opening.understood(options.study):
        found = asked(now, options, options.within / 100)
        if options.json:
            print(json.dumps(view.as_json(found, now)))  # in ASCII: it goes to whatever reads it
        else:
            print(*view.lines(found, now, options.min_accuracy), sep="\n")
    return 0
