"""Signals that end the program: quietly while it loads, in order while it works. Standard library only."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # exit code
_asked = threading.Event()  # for an end in order
SHOW_CURSOR = b"\x1b[?25h\n"  # as terminals since the VT220 know it


def on_interruption(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Has interruptions handled, but for those that were ignored when the process started.

    `nohup` ignores SIGHUP, a shell without job control ignores SIGINT in what it starts in the background: whoever
    started the process wants it to outlive them.
    """
    for interruption in INTERRUPTIONS:
        if signal.getsignal(interruption) is not signal.SIG_IGN:
            signal.signal(interruption, handler)


def end_quietly() -> None:
    """Has interruptions end the process without a word from now on, and none while Python takes itself apart: it would
    die of them where the handlers are gone and the modules are not, which takes a tenth of a second."""
    on_interruption(_leave)
    atexit.register(on_interruption, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the process at once; the workers die with it."""
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)  # the live display has hidden it
    os._exit(INTERRUPTED)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """While the block works, the first interruption raises KeyboardInterrupt; a second one, or one later, ends all.

    Python drops what is raised while it clears an object away, or in callbacks of libraries (1 of 190 interruptions
    of a run was lost so): whoever waits looks again by `check`.
    """
    _asked.clear()
    try:
        on_interruption(_interrupt)
        yield
    finally:
        on_interruption(_leave)
        _asked.clear()


def check() -> None:
    """Raises KeyboardInterrupt where an end in order was asked for, and goes on being asked for.

    For the main thread: where that exception got through, nobody looks any more.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _asked.set()
    on_interruption(_leave)
    raise KeyboardInterrupt
