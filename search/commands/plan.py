"""Says what so many minutes suffice for, and writes the study: frontrunner plan FOLDER --minutes M."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.invocation import Planning
    from search.workers.seam import Training


def perform(options: argparse.Namespace, training: Training | None = None) -> int:
    """Plans for the data that were named; 0, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted.

    `training` is what the study trains with; networks on a device unless another is given.
    """
    from search import session
    from search.commands.exits import OK, exit_code
    from search.database import storage
    from search.workers.seam import preparation

    def plan() -> int:
        path, made = session.plan(_asked(options), training or preparation)
        if options.json:
            print(json.dumps({**made.to_json(), "study_file": str(path.absolute())}))
        else:
            print(*made.lines(), f"study file  {path}", f"to run it   {_next(path.stem, options)}", sep="\n")
        return OK

    return exit_code(plan, storage.url(options.storage, None))


def _next(name: str, options: argparse.Namespace) -> str:
    """The command that runs what was planned."""
    from search.database import storage
    from search.host.called import command

    shown = options.storage and storage.shown(options.storage)
    device = None if options.device == "auto" else options.device
    places = {"device": device, "workers": options.workers, "cluster": options.cluster, "storage": shown}
    words = [word for flag, value in places.items() if value is not None for word in (f"--{flag}", str(value))]
    words += ["--in-process"] if options.in_process else []
    return f"{command('run')} {shlex.join(['--study', name, '--minutes', f'{options.minutes:g}', *words])}"


def _asked(options: argparse.Namespace) -> Planning:
    """What is asked for; a plain path is that of a folder."""
    from objectives.task import as_data
    from search.invocation import Planning

    words = {**vars(options), "data": as_data(options.folder), "study": None}
    del words["folder"]
    return Planning(**words)
