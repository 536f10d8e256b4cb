"""What the small commands share: one line for an error, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from search.database import storage
from search.errors import StorageError, UsageError

OK, USAGE, STORAGE, INTERRUPTED = 0, 2, 4, 130


def exit_code(action: Callable[[], int], storage_url: str) -> int:
    """What the action returns; what it cannot do is one line on stderr and an exit code."""
    try:
        return action()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE
    except storage.FAILURES as error:
        print(f"error: {storage.failure(error, storage_url)}", file=sys.stderr)
        return STORAGE
    except KeyboardInterrupt:
        return INTERRUPTED
