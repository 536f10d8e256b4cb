"""What the program says in one line and an exit code, as what Python raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def plain() -> Iterator[None]:
    """Turns what a user can mend into a ValueError of one line, without what led to it.

    Raises:
        ValueError: a study, a network, images or a device cannot be used.
    """
    from objectives.errors import DataError, DeviceError
    from search.errors import StorageError, UsageError

    try:
        yield
    except (DataError, DeviceError, StorageError, UsageError) as error:
        raise ValueError(str(error)) from None
