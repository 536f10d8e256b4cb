"""The result of a study, as people are shown it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from search import trial
from search.study import queue
from search.study.study import Study
from search.views import summary
from search.views.display import Display
from tests.search.conftest import Scripted


@pytest.fixture
def study(new_study: Callable[..., Study]) -> Study:
    """BASELINE and a faster network, each with its class of the few left out."""
    made = new_study(stopping="none")
    queue.enqueue_anchors(made)
    objective = Scripted([[(4.0, 0.8)], [(2.0, 0.9)]], balanced=0.55)
    for _ in objective.trainings:
        trial.run(made, made.ask(), objective, Display(), math.inf)
    return made


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_every_width_shows_every_figure_and_every_pipeline(width: int, study: Study) -> None:
    lines = summary.table(study.snapshot(), width)
    text = " ".join(" ".join(lines).split())
    for said in ("BASELINE in bf16: bf16,", "90.00%", "2.00x", "+10.00", "difference", "speed-up"):
        assert said in text
    assert all(line == line.rstrip() for line in lines)
    assert width < 66 or all(len(line) <= width for line in lines)


def test_balanced_accuracy_is_shown_where_it_differs(study: Study, new_study: Callable[..., Study]) -> None:
    assert "balanced" in summary.table(study.snapshot(), 200)[2]
    assert "55.00%" in summary.table(study.snapshot(), 200)[3]
    even = new_study("even")
    trial.run(even, even.ask(), Scripted([[(4.0, 0.8)]]), Display(), math.inf)
    assert "balanced" not in summary.table(even.snapshot(), 200)[2]


def test_before_a_trial_has_finished_there_is_a_line_and_neither_table_nor_legend(
    new_study: Callable[..., Study],
) -> None:
    made = new_study(floor=0.95)
    queue.enqueue_anchors(made)
    assert summary.table(made.snapshot()) == ["tiny: no trial has finished yet", ""]
    assert "Seconds:" not in " ".join(summary.lines(made.snapshot()))
    trial.run(made, made.ask(), Scripted([[(4.0, 0.8)]]), Display(), math.inf)
    assert "Pareto front" in summary.table(made.snapshot())[0]  # BASELINE, whatever it reached
    below = new_study("below", floor=0.95)
    trial.run(below, below.ask(), Scripted([[(4.0, 0.8)]]), Display(), math.inf)
    assert summary.table(below.snapshot()) == ["below: nothing on the front", ""]
    said = " ".join(summary.lines(below.snapshot()))
    assert ("Seconds:" in said, "Nothing reached the floor" in said) == (False, True)
