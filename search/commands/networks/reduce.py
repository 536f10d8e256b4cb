"""Makes a trained network smaller: frontrunner reduce --model FOLDER --data DATA --epsilon 0.5 -o FOLDER.

The same command goes on with what was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from objectives.errors import DataError
from search.commands.exits import exit_code
from search.errors import UsageError
from search.host.devices import n_cores
from search.host.owner import age
from search.invocation import Reducing

DESCRIPTION = "model.json"  # of an export


def perform(options: argparse.Namespace) -> int:
    """Reduces what was asked for; 0, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted."""
    return exit_code(lambda: _reduce(Reducing(**vars(options))), "")


def _reduce(asked: Reducing) -> int:
    """All that can be refused without torch is."""
    asked.images(None, None, None)
    check_folders(asked)
    assert asked.settings
    if asked.threads > n_cores():
        raise UsageError(f"--threads {asked.threads}: this process may use {n_cores()} cores: at most so many")
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # before torch loads its thread pools
    from search import reducing

    reducing.reduce(asked, age())
    return 0


def check_folders(asked: Reducing) -> None:
    """Checks that the network is there, and that nothing else is lost where its result will be.

    Raises:
        DataError: the one is no network.
        UsageError: it is not there, or the other is not what this command made of it.
    """
    base, result = asked.base, asked.result
    if not base.is_dir():
        raise UsageError(f"--model {asked.model}: there is no such folder: name one that a network was exported to")
    if not (base / DESCRIPTION).is_file():
        hint = _networks_below(base)
        raise DataError(f"--model {asked.model} is not an exported model: it has no {DESCRIPTION}{hint}")
    places = base.resolve(), result.resolve()
    if places[0] == places[1]:
        raise UsageError(f"--output {asked.output} is the model itself: choose another folder")
    if places[0] in places[1].parents or places[1] in places[0].parents:
        raise UsageError(f"--output {asked.output} and --model {asked.model} lie in one another: choose another folder")
    if not result.exists():
        return
    if not result.is_dir():
        raise UsageError(f"--output {asked.output} is a file: choose another name")
    if not any(result.iterdir()) and places[1] != Path.cwd():
        return
    if not _is_result(result):
        raise UsageError(f"--output {asked.output} is there, and no result of this command: choose another folder")
    if not asked.journal.is_dir():
        raise UsageError(
            f"--output {asked.output} is a result whose journal is gone, {asked.journal}: "
            "choose another folder, or remove it to begin anew"
        )


def _is_result(folder: Path) -> bool:
    try:
        return "reduction" in json.loads((folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _networks_below(folder: Path) -> str:
    """Where networks lie that may have been meant."""
    found = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
    return f"; {found[0]} does" if found else ""
