"""Stretches without Python's search for rubbish, which finds nothing where all that is made is kept.

A quarter of the time in which a command shows a study of a thousand trials.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """What is made inside is not searched for rubbish before the end."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
