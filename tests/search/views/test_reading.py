"""How far the reading of files is: a line for each tenth in a log, a bar in a terminal, not a word for a few files."""

from __future__ import annotations

import time
from contextlib import ExitStack
from io import StringIO

from rich.console import Console

from search.views import reading
from search.views.display import LiveDisplay, PlainDisplay
from search.views.reading import MANY_FILES, QUIET, Tenths


def test_a_log_has_a_line_for_each_tenth() -> None:
    tenths = Tenths(quiet=0.0)
    told = [tenths.line(what, done, 100_000) for what in ("reading", "decoding") for done in range(0, 100_001, 1000)]
    said = [line for line in told if line]
    assert said[:2] == ["reading 100000 images: 0 %", "reading 100000 images: 10 %"]
    assert said[-1] == "decoding 100000 images: 100 %"
    assert len(said) == 22


def test_a_log_has_no_line_of_a_few_files_nor_of_many_that_are_read_at_once() -> None:
    """A command without a display of a study says the same as one with it."""
    logs = [StringIO() for _ in range(4)]
    few, many = MANY_FILES - 1, 100_000
    with ExitStack() as held:
        consoles = [Console(file=log, width=40) for log in logs]
        alone = [held.enter_context(reading.shown(console)) for console in consoles[:2]]
        tells = [*alone, *(PlainDisplay(console, every_epoch=False).data_read for console in consoles[2:])]
        for tell, total in zip(tells, (few, many) * 2, strict=True):
            tell("listing", 0, 0)
            tell("reading", 0, total)
            tell("reading", total // 5, total)
        assert [log.getvalue() for log in logs] == [""] * 4
        time.sleep(QUIET)
        for tell, total in zip(tells, (few, many) * 2, strict=True):
            tell("reading", total // 2, total)
            tell("decoding", 0, total)
    assert [log.getvalue() for log in logs] == ["", "reading 100000 images: 50 %\n"] * 2


def test_a_terminal_has_a_bar_while_many_files_are_read() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=100)
    display = LiveDisplay(console)

    def drawn() -> str:
        with console.capture() as captured:
            console.print(display._frame())
        return captured.get()

    assert "decoding" not in drawn()
    display.data_read("decoding", 250, 100_000)
    assert "decoding images" in drawn()
    assert "250/100000" in drawn()
    display.data_read("decoding", 100_000, 100_000)
    assert "decoding" not in drawn()
