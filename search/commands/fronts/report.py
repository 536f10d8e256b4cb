"""Writes a study as one HTML page that needs nothing else: frontrunner report --study NAME.

Needs no torch, unless --images asks what the networks of the front get wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna

from objectives.words import printable
from search.commands.exits import exit_code
from search.commands.outputs import PAGE, checked
from search.database import storage
from search.errors import Foreign, UsageError
from search.study import opening
from search.study.snapshot import Snapshot

if TYPE_CHECKING:
    from search.views.report.classes import Examined


def perform(options: argparse.Namespace) -> int:
    """Writes the page; 0, 2 usage, 3 data, 4 storage, or a page that cannot be written, 130 interrupted."""
    url = storage.url(options.storage, None)
    return exit_code(lambda: _report(options, url), url)


def _report(options: argparse.Namespace, url: str) -> int:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The name of a study has no folder in it; what has one is told to be none below.
    output = checked(options.output or f"{os.path.basename(options.study)}.html", PAGE)
    database = storage.open_storage(url, create=False)
    now = opening.seen(options.study, database)
    examined, unseen = _examined(now) if options.images else ([], [])
    text = _page(now, examined, unseen, has_images=options.images)
    content = text.encode("utf-8", "replace")
    output.write(content)
    if options.json:
        print(json.dumps({**_as_json(now), "file": os.path.abspath(output.named), "bytes": len(content)}))
    else:
        what = f"{output.named} ({len(content) / 1e6:.1f} MB)"
        print(f"{printable(what)}: open it in a browser, it needs no network", flush=True)
    return 0


def _page(now: Snapshot, examined: Sequence[Examined], unseen: Sequence[str], *, has_images: bool) -> str:
    """The page of a study.

    Raises:
        Foreign: another version wrote what this one does not understand.
        UsageError: plotly or jinja2 is not installed.
    """
    from search.views.report.page import page

    try:
        return page(now, examined, unseen, has_images=has_images)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, of which a report is made: pip install {error.name}"
        ) from error
    except opening.UNREADABLE as error:
        why = f"trials of study {now.name!r} were written by another version of frontrunner ({error})"
        raise Foreign(f"{why}: studies show says what can be read") from error


def _as_json(now: Snapshot) -> dict[str, object]:
    """What the page says that `run --json` does not, as plain data."""
    from search.views.drawing import points
    from search.views.report import budgets, spent, why

    return {
        "study": now.name,
        "within": [
            {now.kind.metric: each.within, "trial": None if each.point is None else each.point.number}
            for each in budgets.answers(now)
        ],
        "why": {str(each.number): why.sentence(each, now) for each in points.on_front(now)},
        "seconds": {each.name: each.seconds for each in spent.shares(now)},
        "ended": {each.reason: each.n for each in spent.endings(now)},
    }


def _examined(now: Snapshot) -> tuple[list[Examined], list[str]]:
    """(what networks of the front do with the validation images, why others were not looked at)."""
    from objectives.errors import DataError
    from search.views.drawing import points
    from search.views.report.classes import Examined, Mistake, spread

    try:
        from objectives.confusion import Looker

        print("reading the images that validate", file=sys.stderr, flush=True)
        looker = Looker(now.spec.task.data)
    except ModuleNotFoundError as error:
        return _unseen(f"no network was looked at: {error.name} is not installed")
    except DataError as error:
        return _unseen(f"no network was looked at: {error}")
    found, unseen = [], []
    for each in spread(points.on_front(now)):
        folder = now.artifacts / f"trial-{each.number:05d}"
        try:
            seen = looker.look(folder)
        except (DataError, ValueError) as error:
            unseen.append(f"trial {each.number} was not looked at: {error}")
            continue
        found.append(Examined(each.number, seen.classes, seen.counts, [Mistake(*one) for one in seen.mistakes]))
    for line in unseen:
        print(f"warning: {printable(line)}", file=sys.stderr)
    return found, unseen


def _unseen(why: str) -> tuple[list[Examined], list[str]]:
    print(f"warning: {printable(why)}", file=sys.stderr)
    return [], [why]
