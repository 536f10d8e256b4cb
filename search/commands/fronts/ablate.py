"""Switches off each ingredient of a point in turn, and tells what each did: frontrunner ablate --study NAME --trial N.

The same command goes on with what was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.ablating import Outcome
    from search.commands.outputs import Output
    from search.workers.seam import Training


def perform(options: argparse.Namespace, training: Training | None = None) -> int:
    """Takes the point apart that was asked for; 0, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted.

    `training` is what the study trains with; networks on a device unless another is given.
    """
    from search import ablating
    from search.commands.exits import OK, exit_code
    from search.commands.outputs import PAGE, checked
    from search.database import storage
    from search.invocation import Ablating
    from search.workers.seam import preparation

    def ablate() -> int:
        # The name of a study has no folder in it; what has one is told to be none below.
        name = f"{os.path.basename(options.study)}-trial-{options.trial}.html"
        output = checked(options.output or name, PAGE)
        _tell(ablating.ablate(Ablating(**vars(options)), training or preparation), options, output)
        return OK

    return exit_code(ablate, storage.url(options.storage, None))


def _tell(came_to: Outcome, options: argparse.Namespace, output: Output) -> None:
    """Prints what was found, and writes the page.

    Raises:
        UsageError: nothing was found.
    """
    from objectives.words import printable
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
    is_written = _write(came_to, output)
    if options.json:
        plain = words.as_json(found, came_to.apart, now, options.seeds)
        print(json.dumps({**plain, "file": os.path.abspath(output.named) if is_written else None}))
        return
    print(*words.lines(found, now), sep="\n")
    if is_written:
        print(f"{printable(output.named)}: open it in a browser, it needs no network")


def _write(came_to: Outcome, output: Output) -> bool:
    """Writes the page; whether what draws it is installed."""
    from search.views.ablation import page, words

    assert came_to.found is not None
    try:
        text = page.page(came_to.found, came_to.now, words.left_out(came_to.apart))
    except ImportError as error:
        print(f"warning: no page is written: {error.name} is not installed", file=sys.stderr)
        return False
    output.write(text.encode("utf-8", "replace"))
    return True
