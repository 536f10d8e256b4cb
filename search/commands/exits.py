"""What the commands share: streams that do not fail, one line for an error, and its exit code."""

from __future__ import annotations

import errno
import sys
from collections import namedtuple
from collections.abc import Callable

from objectives.errors import DataError, DeviceError
from objectives.words import printable
from search.database import storage
from search.errors import DeviceFault, StorageError, UsageError
from search.host.interruptions import INTERRUPTED, ended_in_order
from search.host.streams import guarded

OK, USAGE, DATA, STORAGE, DEVICE = 0, 2, 3, 4, 5
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CODES = {UsageError: USAGE, DataError: DATA, StorageError: STORAGE, DeviceError: DEVICE, DeviceFault: DEVICE}


@guarded
def exit_code(action: Callable[[], int], storage_url: str) -> int:
    """What the action returns; what it cannot do is one line on stderr and an exit code, as is an interruption."""
    try:
        with ended_in_order():
            return action()
    except storage.FAILURES as error:
        return _said(storage.failure(error, storage_url), STORAGE)
    except OSError as error:
        return _said(_of_system(error), STORAGE)
    except MemoryError:  # also what SQLite says of some damaged pages
        where = storage.shown(storage_url)
        return _said(f"memory is short, or {where} is damaged: free memory, or restore a copy of it", STORAGE)
    except tuple(CODES) as error:
        return _said(str(error), next(code for kind, code in CODES.items() if isinstance(error, kind)))
    except KeyboardInterrupt:
        # Raised in source that Python runs from a string, as dataclasses are made, it is noted, and `python -m` dies of
        # SIGINT at the end, whoever caught it. The next such source, of which this is one, clears the note.
        namedtuple("Nothing", "")
        return INTERRUPTED


def _said(what: str, code: int) -> int:
    print(printable(f"error: {what}"), file=sys.stderr)
    return code


def _of_system(error: OSError) -> str:
    """What the system refused, and the way out."""
    where = f"{error.filename}" if error.filename is not None else "a file or folder"
    if error.errno in NO_SPACE:
        return f"no space on {where}: make room, then the same command goes on"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files: raise the limit with ulimit -n, then the same command goes on"
    return f"{where} cannot be used ({error.strerror or error}): mend that, then the same command goes on"
