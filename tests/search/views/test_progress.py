"""What is shown of a study while it runs: how far it is, what is best so far, and a plot where there is room."""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from rich.console import Console

from objectives.pipeline import Pipeline
from search import trial
from search.study import queue
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views.display import Display, LiveDisplay, PlainDisplay, clock, resumable
from tests.search.conftest import Scripted

MARKUP = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")
CURVES = [[(4.0, 0.8)], [(2.0, 0.9)], [(3.0, 0.85)], [(5.0, 0.95)]]  # BASELINE, the best, dominated, the best


@pytest.fixture
def moments(new_study: Callable[..., Study]) -> list[Snapshot]:
    """A study before its first trial and after each one."""
    made = new_study(stopping="none")
    queue.enqueue_anchors(made)
    found, objective = [made.snapshot()], Scripted(CURVES)
    for _ in CURVES:
        trial.run(made, made.ask(), objective, Display(), math.inf)
        found.append(made.snapshot())
    return found


def frame(display: LiveDisplay, console: Console) -> list[str]:
    """What a live display shows at this moment."""
    with console.capture() as shown:
        console.print(display._frame())
    return MARKUP.sub("", shown.get()).splitlines()


def terminal(width: int = 80, height: int = 24, encoding: str = "utf-8") -> Console:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=stream, force_terminal=True, width=width, height=height)


def live(now: Snapshot, console: Console, deadline: float | None = None, at_hand: int = 1) -> list[str]:
    """The frame of a live display of a study, with so many trials at hand."""
    display = LiveDisplay(console)
    display.study_started(now, 7, deadline)
    for number in range(at_hand):
        display.trial_started(number, "a name " * 9, Pipeline())
    return frame(display, console)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, "0:00"), (0.2, "0:01"), (59.5, "1:00"), (192.0, "3:12"), (3725.0, "1:02:05")]
)
def test_seconds_left_are_said_as_minutes_and_seconds(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_with_a_deadline_the_live_display_counts_down_and_names_no_total(moments: list[Snapshot]) -> None:
    console = terminal()
    display = LiveDisplay(console)
    display.study_started(moments[-1], 7, time.monotonic() + 192.5)
    first = frame(display, console)
    time.sleep(1.1)
    second = frame(display, console)
    before, after = (re.findall(r"^time .* 3:(\d\d) left$", "\n".join(each), re.MULTILINE) for each in (first, second))
    assert int(*before) > int(*after)
    assert not [line for line in first if "of 7" in line or "/7" in line]
    assert any(line.startswith("4 trials, ") for line in first)


@pytest.mark.parametrize("late", [0.0, 100.0])
def test_a_deadline_that_is_over_leaves_nothing(late: float, moments: list[Snapshot]) -> None:
    assert any(line.endswith("0:00 left") for line in live(moments[1], terminal(), time.monotonic() - late))


@pytest.mark.parametrize("told", [("listing", 0, 0), ("reading", 3, 10**6), ("decoding", 10**6, 10**6)])
def test_once_a_study_is_open_no_bar_tells_of_its_images(told: tuple[str, int, int], moments: list[Snapshot]) -> None:
    console = terminal()
    display = LiveDisplay(console)
    display.data_read(*told)
    assert any("images" in line for line in frame(display, console)) == (told[1] < told[2] or not told[2])
    display.study_started(moments[0], 40)
    assert not any("images" in line for line in frame(display, console))


def test_without_a_deadline_the_live_display_counts_to_the_total(moments: list[Snapshot]) -> None:
    lines = live(moments[-1], terminal())
    assert any(line.startswith("trials ━") and line.endswith(" 4/7") for line in lines)
    assert any(line.startswith("4 of 7 trials, ") for line in lines)


@pytest.mark.parametrize("deadline", [None, 1e12])
def test_the_best_so_far_is_said_with_its_seconds_its_trial_and_its_split(
    deadline: float | None, moments: list[Snapshot]
) -> None:
    for now, best in ((moments[1], "80.00% on validation in 4.00 s (trial 0)"), (moments[-1], "95.00%")):
        lines = live(now, terminal(), deadline)
        assert any(line.startswith(f"best so far {best}") for line in lines)
        assert " ".join(lines).count("on validation") == 1
    assert not [line for line in live(moments[0], terminal(), deadline) if "best" in line]


@pytest.mark.parametrize("at_hand", range(9))
@pytest.mark.parametrize("width", [39, 60, 80, 200])
def test_a_frame_fits_a_terminal_and_leaves_lines_to_what_is_said(
    at_hand: int, width: int, moments: list[Snapshot]
) -> None:
    lines = live(moments[-1], terminal(width), 1e12, at_hand)
    is_drawn = any("● front" in line for line in lines)
    assert len(lines) <= (18 if is_drawn else 24)
    assert all(len(line) <= width for line in lines)
    assert is_drawn == (width > 39 and at_hand < 5)
    if is_drawn:
        assert lines[-1].endswith(" s")


def test_a_single_point_is_not_plotted(moments: list[Snapshot]) -> None:
    assert [any("B BASELINE" in line for line in live(now, terminal())) for now in moments[:3]] == [False, False, True]


def test_what_an_encoding_cannot_carry_is_not_drawn(moments: list[Snapshot]) -> None:
    lines = live(moments[-1], terminal(encoding="ascii"), 1e12, at_hand=2)
    assert any("o front  . dominated  B BASELINE" in line for line in lines)
    assert "".join(lines).isascii()


def test_with_a_deadline_plain_lines_say_the_best_when_it_changes(moments: list[Snapshot]) -> None:
    console = Console(file=io.StringIO(), width=80)
    display = PlainDisplay(console, every_epoch=False)
    with console.capture() as shown:
        display.study_started(moments[0], 7, time.monotonic() + 192.5)
        for now in moments[1:]:
            display.study_stands(now)
    assert [re.sub(r"3:\d\d", "3:12", line) for line in shown.get().splitlines()] == [
        "  best so far 80.00% on validation in 4.00 s (trial 0); 3:12 left",
        "  best so far 90.00% in 2.00 s (trial 1); 3:12 left",
        "  best so far 95.00% in 5.00 s (trial 3); 3:12 left",
    ]


def test_without_a_deadline_plain_lines_say_where_the_study_stands(moments: list[Snapshot]) -> None:
    console = Console(file=io.StringIO(), width=80)
    display = PlainDisplay(console, every_epoch=False)
    with console.capture() as shown:
        display.study_started(moments[0], 7)
        for now in moments[1:]:
            display.study_stands(now)
    assert [line.split(" trials, ")[0] for line in shown.get().splitlines()] == [f"  {n} of 7" for n in range(1, 5)]


@pytest.mark.parametrize("n_before", [0, 1])
@pytest.mark.parametrize("n_after", [0, 1, 4])
@pytest.mark.parametrize("live", [False, True])
def test_an_interrupted_run_names_the_best_network_where_there_is_one(
    live: bool, n_before: int, n_after: int, moments: list[Snapshot]
) -> None:
    console = Console(file=io.StringIO(), width=80)
    display = LiveDisplay(console) if live else PlainDisplay(console, every_epoch=False)
    with console.capture() as shown, suppress(KeyboardInterrupt), resumable(display, "go on", "show best"):
        display.study_started(moments[n_before], 7)
        for now in moments[n_before + 1 : n_after + 1]:
            display.study_stands(now)
        raise KeyboardInterrupt
    best = ["the best network so far: show best"] if n_before or n_after else []
    assert [line for line in shown.get().splitlines() if not line.startswith("  ")] == [
        *best,
        "interrupted; to go on: go on",
    ]
