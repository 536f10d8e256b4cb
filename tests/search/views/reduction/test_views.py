"""What is shown of a reduction: nothing is claimed that readings do not tell, all is shown as it is written."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from objectives.reduction.result import Comparison, Latency, Result, Spread, Weighed
from objectives.reduction.settings import Iteration, Reduction
from search.views.plot import NARROWEST
from search.views.reduction import words
from search.views.reduction.display import LiveDisplay
from search.views.reduction.page import BOTTOM, HEIGHT, TOP, WIDTH, figure, page

EVIL = "<img src=x onerror=alert(1)>"


def attempt(number: int, accuracy: float, n_parameters: int, *, accepted: bool, axis: str = "conv1") -> Iteration:
    return Iteration(number, axis, 0.64, 20, 8, 0.5, accuracy, accepted, n_parameters, 1e5, 1.5, "8-10")


def ratio(low: float, middle: float, high: float, n: int = 15) -> Latency:
    return Latency(1, Spread(2e-3, 1e-3, 3e-3, n), Spread(1e-3, 1e-3, 2e-3, n), Spread(middle, low, high, n))


RESULT = Result(
    Reduction(),
    seed=0,
    attempts=(
        attempt(1, 0.95, 5000, accepted=True),
        attempt(2, 0.3, 900, accepted=False, axis=EVIL),
        attempt(3, 0.948, 2500, accepted=True),
    ),
    ending="complete",
    compared=Comparison(Weighed("20-10", 10_000, 1e6, 40_000, 0.951), Weighed(EVIL, 2500, 1e5, 10_000, 0.948), 1000),
)


@pytest.mark.parametrize(
    ("latency", "said"),
    [
        (ratio(1.5, 2.0, 2.5), " 2.00x"),
        (ratio(0.5, 0.8, 0.9), " 0.80x"),
        (ratio(0.9, 1.2, 1.5), "~1.20x"),
        (ratio(1.5, 2.0, 2.5, n=3), "~2.00x"),
    ],
)
def test_a_speed_up_that_readings_do_not_tell_is_marked(latency: Latency, said: str) -> None:
    compared = replace(RESULT.compared, latencies=(latency,), device="a processor")
    lines = words.lines(replace(RESULT, compared=compared))
    (saved,) = [line for line in lines if line.startswith("saved")]
    assert saved.endswith(said)
    assert ("nothing says that one is faster" in " ".join(lines)) == (said[0] == "~")


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_no_line_of_a_table_is_cut(width: int) -> None:
    for line in words.lines(RESULT, width):
        assert line == line.rstrip()
    assert "2,500" in " ".join(words.table(RESULT.attempts, width))


def test_every_network_is_in_the_figure_and_those_far_below_on_its_edge() -> None:
    found = figure(RESULT)
    assert [(each.kind, each.is_below) for each in found.dots] == [
        ("accepted", False),
        ("refused", True),
        ("accepted", False),
        ("before", False),
    ]
    assert all(0 <= each.x <= WIDTH and TOP <= each.y <= HEIGHT - BOTTOM for each in found.dots)
    assert found.path.count(",") == 3
    xs = [each.x for each in found.dots]
    assert xs[1] < xs[2] < xs[0] < xs[3]  # by parameters
    nothing = figure(replace(RESULT, attempts=()))
    assert [each.kind for each in nothing.dots] == ["before"]


def test_names_on_the_page_are_shown_as_they_are() -> None:
    made = page(RESULT, title=EVIL)
    assert "<img" not in made
    assert not re.search(r"<script|src=[\"']|href=", made)


@pytest.mark.parametrize("width", [NARROWEST, 80, 200])
def test_a_live_display_shows_attempts_and_a_plot_in_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40)
    shown = LiveDisplay(console)
    shown.begun(10_000, 0.951, 0.946, deadline=None)
    for tried in RESULT.attempts:
        shown.attempted(tried)
    with console.capture() as frame:
        console.print(shown._frame())
    for said in ("attempt 4", "2 of 3 attempts accepted", "accepted"):
        assert said in frame.get()
    assert console.file.getvalue().count("attempt") >= 3  # type: ignore[attr-defined]
