"""What ends a run with one line and an exit code: 2 usage or configuration, 3 data, 4 storage or lock, 5 device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(Exception):
    """The command line or the study file asks for what cannot be done."""


class StorageError(Exception):
    """The database cannot be used, or somebody else holds what is needed."""


class Foreign(StorageError):
    """A study that another version of this program made, and this one does not understand."""


class Untold(StorageError):
    """The database does not take a result; where there was space, it is kept in a file until it does."""


class DeviceFault(Exception):
    """The device, or the worker on it, fails again and again."""


@contextmanager
def told_as_no_room() -> Iterator[None]:
    """What befalls files that the block writes.

    Raises:
        StorageError: the system does not take one of them.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be written ({error.strerror}): make room there") from error
