"""Signals that end a run in order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def on_interruption(handler: Callable[[int, FrameType | None], object]) -> None:
    """Has interruptions handled, but for those that were ignored when the process started.

    `nohup` ignores SIGHUP, a shell without job control ignores SIGINT in what it starts in the background: whoever
    started the process wants it to outlive them.
    """
    for interruption in INTERRUPTIONS:
        if signal.getsignal(interruption) is not signal.SIG_IGN:
            signal.signal(interruption, handler)
