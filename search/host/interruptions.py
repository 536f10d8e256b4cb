"""Signals that end a run in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # exit code
SHOW_CURSOR = b"\x1b[?25h\n"  # as terminals since the VT220 know it


def on_interruption(handler: Callable[[int, FrameType | None], object]) -> None:
    """Has interruptions handled, but for those that were ignored when the process started.

    `nohup` ignores SIGHUP, a shell without job control ignores SIGINT in what it starts in the background: whoever
    started the process wants it to outlive them.
    """
    for interruption in INTERRUPTIONS:
        if signal.getsignal(interruption) is not signal.SIG_IGN:
            signal.signal(interruption, handler)


def end_in_order() -> None:
    """Has a first interruption raise KeyboardInterrupt; a second one ends the run at once: the workers die with it."""
    on_interruption(_interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    on_interruption(_leave)
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)  # the live display has hidden it
    os._exit(INTERRUPTED)
