"""What a person at a terminal sees and does: a real one, whose keys make the signals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from objectives.pipeline import Pipeline
from search.views.display import LiveDisplay
from tests.search.conftest import report
from tests.search.place import PATIENCE, REPOSITORY, Place, check_whole, is_gone
from tests.search.test_faults import descendants, locked

STUDY = ("--study", "tiny")
CTRL_C = b"\x03"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
MARKUP = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")


class Terminal:
    """A terminal of 100 columns with a program in it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, keyboard: int) -> None:
        self.process, self._master, self._keyboard = process, master, keyboard
        self.modes = termios.tcgetattr(keyboard)
        self.said = ""

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def modes_now(self) -> list[Any]:
        return termios.tcgetattr(self._keyboard)

    def read_until(self, text: str, seconds: float = PATIENCE) -> None:
        """Reads what is shown until it contains the text."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, f"{text!r} was not shown: {self.said}"
            self._read(0.1)

    def read_to_the_end(self, seconds: float = PATIENCE) -> int:
        """Reads until the program ends; its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on: {self.said}"
            self._read(0.1)
        self._read(0.1)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        while select.select([self._master], [], [], seconds)[0]:
            self.said += os.read(self._master, 65536).decode()
            seconds = 0


@contextmanager
def at_terminal(place: Place, *words: str, **environment: str) -> Iterator[Terminal]:
    """The scripted program in a terminal of its own."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.search.program", *words],
        **{"cwd": place.folder, "stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # its keys make signals for this session
        env={k: v for k, v in os.environ.items() if k not in ("OPTUNA_STORAGE", "COLUMNS", "LINES", "NO_COLOR")}
        | {"PYTHONPATH": str(REPOSITORY), "FRONTRUNNER_RUN_DIR": str(place.folder / "run"), "TERM": "xterm-256color"}
        | {"SCRIPT": str(place.folder / "script.json")}
        | environment,
    ) as process:
        try:
            yield Terminal(process, master, slave)
        finally:
            process.kill()
            os.close(master)
            os.close(slave)


@pytest.mark.long
def test_ctrl_c_puts_the_trial_back_and_leaves_the_terminal_as_it_was(place: Place) -> None:
    place.script(pause=0.3)
    with at_terminal(place, *STUDY, "--devices", "cpu:2") as terminal:
        terminal.read_until("1/3")
        children = descendants(terminal.process.pid)
        terminal.type(CTRL_C)
        assert terminal.read_to_the_end() == 130
        assert terminal.modes_now() == terminal.modes
    assert terminal.said.rfind(SHOWN) > terminal.said.rfind(HIDDEN) >= 0
    *_, last = MARKUP.sub("", terminal.said).splitlines()
    assert last == "interrupted; to go on: python -m search.run --study tiny --devices cpu:2"
    assert "Traceback" not in terminal.said
    assert len(children) == 4
    assert all(is_gone(pid) for pid in children)
    assert not {"running", "worker_lost"} & set(place.reasons())
    place.script()
    assert place.run(*STUDY, "--devices", "cpu:2").code == 0
    check_whole(place.trials(), 7)


@pytest.mark.long
def test_a_second_ctrl_c_ends_the_run_at_once_and_shows_the_cursor(place: Place) -> None:
    place.script(pause=0.3)
    with at_terminal(place, *STUDY) as terminal:
        terminal.read_until("1/3")
        children = descendants(terminal.process.pid)
        with locked(place.database):  # the first one cannot finish its work
            terminal.type(CTRL_C)
            time.sleep(0.5)
            assert terminal.process.poll() is None
            terminal.type(CTRL_C)
            assert terminal.read_to_the_end() == 130
        assert terminal.modes_now() == terminal.modes
    assert terminal.said.rfind(SHOWN) > terminal.said.rfind(HIDDEN) >= 0
    assert "Traceback" not in terminal.said
    assert len(children) == 2
    assert all(is_gone(pid) for pid in children)


@pytest.mark.parametrize("n", [1, 2, 8])
def test_the_live_display_has_a_line_and_a_bar_for_each_trial_at_hand(n: int) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=80, height=24)
    display = LiveDisplay(console)
    for number in range(n):
        display.trial_started(number, "a long name [/bold]", Pipeline(epochs=7))
        display.epoch_finished(number, report(2, 7, 1.5, 0.5, events=("widths [red]16",)), 0.5)
    with console.capture() as shown:
        console.print(display._frame())
    lines = MARKUP.sub("", shown.get()).splitlines()
    assert len(lines) <= console.height
    for number in range(n):
        assert [line for line in lines if line.startswith(f"trial {number} (a long name [/bold]): ")]
        (bar,) = [line for line in lines if line.startswith(f"trial {number} ━")]
        assert "2/7 1.50 s  50.00%  widths [red]" in bar
    display.trial_finished(0, "complete", "50% after 1 s")
    with console.capture() as shown:
        console.print(display._frame())
    assert "trial 0" not in shown.get()


@pytest.mark.long
def test_with_no_color_a_terminal_gets_the_same_display_without_colours(place: Place) -> None:
    place.script()
    with at_terminal(place, *STUDY, "--timeout", "600", NO_COLOR="1") as terminal:
        assert terminal.read_to_the_end() == 0
    assert HIDDEN in terminal.said
    assert " left" in terminal.said
    assert "● front" in terminal.said
    assert not re.search(r"\x1b\[[0-9;]*\b[349][0-8]\b[0-9;]*m", terminal.said)


@pytest.mark.long
def test_a_dumb_terminal_gets_plain_lines(place: Place) -> None:
    place.script()
    with at_terminal(place, *STUDY, "--timeout", "600", TERM="dumb") as terminal:
        assert terminal.read_to_the_end() == 0
    assert "\x1b" not in terminal.said
    assert "best so far" in terminal.said
    assert terminal.said.count("on validation") == 1
