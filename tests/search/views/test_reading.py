"""How far the reading of files is: a line for each tenth in a log, a bar in a terminal, not a word for a few files."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from search.views import reading
from search.views.display import LiveDisplay, PlainDisplay
from search.views.reading import MANY_FILES


def of_log(total: int, *, by_display: bool) -> list[str]:
    log = StringIO()
    console = Console(file=log, width=40)
    with reading.shown(console) as shown:
        tell = PlainDisplay(console, every_epoch=False).data_read if by_display else shown
        tell("listing", 0, 0)
        for what in ("reading", "decoding"):
            for done in range(0, total + 1, max(1, total // 100)):
                tell(what, done, total)
    return log.getvalue().splitlines()


@pytest.mark.parametrize("by_display", [False, True])
def test_a_log_has_a_line_for_each_tenth_and_none_for_a_few_files(by_display: bool) -> None:
    said = of_log(100_000, by_display=by_display)
    assert said[:2] == ["reading 100000 images: 0 %", "reading 100000 images: 10 %"]
    assert said[-1] == "decoding 100000 images: 100 %"
    assert len(said) == 22
    assert of_log(MANY_FILES - 1, by_display=by_display) == []


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
