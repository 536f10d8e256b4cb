"""Signals that end the program: quietly while it loads, in order while it works. Standard library only."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # exit code
_asked = threading.Event()  # for an end in order
_is_heard = threading.Event()  # ... and `check` has said so
_ends = threading.Event()  # at once, when nothing puts it off any more
_n_put_off, _lock = 0, threading.Lock()  # blocks at work that put interruptions off
ONCE_MORE = 0.02  # seconds until an interruption comes again whose exception was dropped
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


@contextmanager
def put_off() -> Iterator[None]:
    """An interruption in the midst of the block counts from its end on, in whatever thread it is.

    Blocking the signals in one thread does not do: another one, of a library, takes them, and Python handles them in
    the main thread all the same.
    """
    global _n_put_off
    was_asked = _asked.is_set()
    with _lock:
        _n_put_off += 1
    try:
        yield
    finally:
        with _lock:
            _n_put_off -= 1
        if not _n_put_off and _ends.is_set():
            _end()
        if not was_asked and threading.current_thread() is threading.main_thread():
            check()


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process at once; the workers die with it."""
    if _n_put_off:
        _ends.set()
        return
    _end()


def _end() -> NoReturn:
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)  # the live display has hidden it
    os._exit(INTERRUPTED)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """While the block works, the first interruption raises KeyboardInterrupt; a second one, or one later, ends all.

    Python drops what is raised while it clears an object away, and prints it (while libraries are loaded, which clear
    many away, 6 of some 25 were lost so): it comes again a moment later. What callbacks of libraries swallow without a
    word whoever waits sees by `check`.
    """
    _asked.clear()
    _is_heard.clear()
    before, sys.unraisablehook = sys.unraisablehook, _dropped
    try:
        on_interruption(_interrupt)
        yield
    finally:
        on_interruption(_leave)
        _asked.clear()
        sys.unraisablehook = before


def check() -> None:
    """Raises KeyboardInterrupt where an end in order was asked for, and goes on being asked for.

    For the main thread: where that exception got through, nobody looks any more.
    """
    if _asked.is_set():
        _is_heard.set()
        raise KeyboardInterrupt


def _dropped(what: UnraisableHookArgs) -> None:
    """What is raised where nobody can take it: an interruption comes once more, all else is told."""
    if what.exc_type is not KeyboardInterrupt or not _asked.is_set():
        sys.__unraisablehook__(what)
        return
    on_interruption(_interrupt)
    number = getattr(what.exc_value, "args", ()) or (signal.SIGINT,)
    again = threading.Timer(ONCE_MORE, _come_again, number)
    again.daemon = True
    again.start()


def _come_again(number: int) -> None:
    main = threading.main_thread().ident
    if main is not None and _asked.is_set() and not _is_heard.is_set():
        signal.pthread_kill(main, number)  # in the main thread, whatever call it waits in


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    on_interruption(_leave)
    if not _n_put_off:
        raise KeyboardInterrupt(number)
