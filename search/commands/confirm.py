"""Trains the front of a study again with fresh seeds, then opens the test split: frontrunner confirm --study NAME.

The same command goes on with what was interrupted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.workers.seam import Training


def perform(options: argparse.Namespace, training: Training | None = None) -> int:
    """Confirms the study that was asked for; 0, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted.

    `training` is what the study trains with; networks on a device unless another is given.
    """
    from search import session
    from search.commands.exits import OK, exit_code
    from search.database import storage
    from search.invocation import Confirming
    from search.workers.seam import preparation

    def confirm() -> int:
        session.confirm(Confirming(**vars(options)), training or preparation)
        return OK

    return exit_code(confirm, storage.url(options.storage, None))
