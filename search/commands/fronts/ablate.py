"""Switches off each ingredient of a point in turn, and tells what each did: frontrunner ablate --study NAME --trial N.

The same command goes on with what was interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.ablating import Outcome
    from search.workers.seam import Training


def perform(options: argparse.Namespace, training: Training | None = None) -> int:
    """Takes the point apart that was asked for; 0, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted.

    `training` is what the study trains with; networks on a device unless another is given.
    """
    from search import ablating
    from search.commands.exits import OK, exit_code
    from search.database import storage
    from search.invocation import Ablating
    from search.workers.seam import preparation

    def ablate() -> int:
        _check(options.output)
        _tell(ablating.ablate(Ablating(**vars(options)), training or preparation), options)
        return OK

    return exit_code(ablate, storage.url(options.storage, None))


def _check(output: str | None) -> None:
    """Refuses a page that cannot be written, before anything is trained.

    Raises:
        UsageError: it cannot be.
    """
    from objectives.words import expanded, printable
    from search.errors import UsageError

    if output is None:
        return
    place = Path(expanded(output))
    if place.is_dir():
        raise UsageError(printable(f"-o {output} is a folder: name a file in it, {output}/ablation.html"))
    if not place.absolute().parent.is_dir():
        raise UsageError(printable(f"there is no folder {place.parent}: make it, or name another file with -o"))


def _tell(came_to: Outcome, options: argparse.Namespace) -> None:
    """Prints what was found, and writes the page.

    Raises:
        UsageError: nothing was found.
    """
    from search.errors import UsageError
    from search.views.ablation import without, words

    found, now = came_to.found, came_to.now
    if found is None or not found.has_pairs:
        if came_to.is_over:
            why = "; ".join(f"{without.name(key)}: {', '.join(sorted(of))}" for key, of in came_to.failures.items())
            raise UsageError(f"no pair of trainings of trial {options.trial} came to its end ({why}): try more --seeds")
        raise UsageError(
            f"no pair of trainings of trial {options.trial} has ended: the same command goes on, with time"
        )
    place = _written(came_to, options)
    if options.json:
        plain = words.as_json(found, came_to.apart, now, options.seeds)
        print(json.dumps({**plain, "file": None if place is None else str(place.absolute())}))
        return
    print(*words.lines(found, now), sep="\n")
    if place is not None:
        print(f"{place}: open it in a browser, it needs no network")


def _written(came_to: Outcome, options: argparse.Namespace) -> Path | None:
    """The page, written; None where what draws it is not installed."""
    from objectives.host.durable import write_file
    from objectives.words import expanded
    from search.views.ablation import page, words

    assert came_to.found is not None
    place = Path(expanded(options.output or f"{came_to.now.name}-trial-{options.trial}.html"))
    try:
        text = page.page(came_to.found, came_to.now, words.left_out(came_to.apart))
    except ImportError as error:
        print(f"warning: no page is written: {error.name} is not installed", file=sys.stderr)
        return None
    try:
        write_file(place, text.encode("utf-8", "replace"))
    except OSError as error:
        error.filename = str(place)
        raise
    return place
