"""Records real trainings of a study's space, drawn at random, as a study of its own: frontrunner record --study STUDY.

The same command goes on with what was interrupted. `frontrunner simulate` searches in such a table.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.workers.seam import Training


def perform(options: argparse.Namespace, training: Training | None = None) -> int:
    """Records what was asked for; 0, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted.

    `training` is what the study trains with; networks on a device unless another is given.
    """
    from search import session
    from search.commands.exits import OK, exit_code
    from search.database import storage
    from search.invocation import Recording
    from search.workers.seam import preparation

    def record() -> int:
        session.run(Recording(**vars(options)), training or preparation)
        return OK

    return exit_code(record, storage.url(options.storage, None))
