"""The result of a study, as people are shown it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

import pytest

from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from search import trial
from search.study import queue
from search.study.study import Study
from search.views import summary, timeline
from search.views.display import Display
from tests.search.conftest import Scripted, report


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


def test_points_that_few_validation_images_cannot_tell_from_a_cheaper_one_are_marked_until_seeds_do(
    new_study: Callable[..., Study],
) -> None:
    made = new_study(stopping="none", repeats=0, confirm=1)  # of 50 validation images
    queue.enqueue_anchors(made)
    objective = Scripted([[(1.0, 0.8)], [(2.0, 0.84)], [(4.0, 0.99)]])
    for _ in objective.trainings:
        trial.run(made, made.ask(), objective, Display(), math.inf)
    now = made.snapshot()
    assert [point["is_alike"] for point in summary.as_json(now)["front"]] == [False, True, False]  # type: ignore[attr-defined]
    text, below = "\n".join(summary.table(now, 200)), "\n".join(summary.lines(now, 200))
    assert [said in text for said in ("~80.00%", "~84.00%", "~99.00%")] == [False, True, False]
    assert "accuracies of 50 validation images are known to ±10.9 points." in below
    assert below.count("~ As accurate as the cheaper point") == 1
    study_of = new_study("certain", stopping="none")
    queue.enqueue_anchors(study_of)
    trial.run(study_of, study_of.ask(), Scripted([[(1.0, 0.8)]]), Display(), math.inf)
    assert "~" not in "\n".join([*summary.table(study_of.snapshot(), 200), *summary.lines(study_of.snapshot(), 200)])


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


@dataclass
class Growing(Scripted):
    """Trainings whose network, of so many channels, grows at every boundary; the first one keeps its size."""

    def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
        sizes = [8 * epoch for epoch in range(1, len(self.trainings[len(self.trained)]) + 1)]  # type: ignore[arg-type]
        grows = bool(self.trained)
        for each, size in zip(super().reports(pipeline, seeds), sizes, strict=True):
            now, larger = (f"{n}[{n} 4]-{2 * n}[{n}]" for n in (size, size + 8))
            events = (f"round {each.epoch}: wider, {now} to {larger}: it lacks capacity",)
            network = {"architecture": now, "inference_flops": size * 1e6, "events": events}
            yield report(each.epoch, each.epochs, each.train_seconds, each.accuracy, **(network if grows else {}))


def grown(study: Study, n_epochs: int, n_trials: int) -> Study:
    """The study, with BASELINE and trials on the front whose networks grew."""
    queue.enqueue_anchors(study)
    curves = [[(n + e / 100, 0.5 + n / 100 + e / 1000) for e in range(1, n_epochs + 1)] for n in range(n_trials)]
    objective = Growing([[(90.0, 0.4)], *curves])  # type: ignore[list-item]
    for _ in objective.trainings:
        trial.run(study, study.ask(), objective, Display(), math.inf)
    assert len(study.snapshot().front) == n_trials
    return study


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_below_the_front_stands_how_its_networks_came_to_their_size(
    width: int, new_study: Callable[..., Study]
) -> None:
    lines = timeline.lines(grown(new_study(stopping="none"), 3, 1).snapshot(), width)
    *shown, said, last = lines
    text = " ".join(" ".join(shown).split())
    for row in (
        "1 1 0.01 8-16 2-1 8.00 50.10% round 1: wider: it lacks capacity (0.000 s)",
        "1 2 0.02 16-32 2-1 16.00 50.20% round 2: wider: it lacks capacity (0.000 s)",
        "1 3 0.03 24-48 2-1 24.00 50.30%",
    ):
        assert row in text
    assert said.startswith("How networks of the front came to their size")
    assert last == ""
    assert all(line == line.rstrip() for line in shown)
    assert width < 66 or all(len(line) <= width for line in shown)


def test_many_changes_do_not_flood_the_terminal(new_study: Callable[..., Study]) -> None:
    now = grown(new_study(stopping="none"), 12, 7).snapshot()
    header, *rows, _, _ = timeline.lines(now, 200)
    assert header.split() == ["trial", *timeline.COLUMNS]
    largest = [1, 2, 3, 4, 12]  # from 8 to 16 channels is more than from 88 to 96
    assert [tuple(map(int, row.split()[:2])) for row in rows] == [(n, e) for n in range(3, 8) for e in largest]
    assert summary.lines(now, 200)[: len(rows)] == [header, *rows[:-1]]


def test_programs_are_told_all_of_a_timeline_and_that_there_is_none(new_study: Callable[..., Study]) -> None:
    told = json.loads(json.dumps(summary.as_json(grown(new_study(stopping="none"), 12, 1).snapshot())))
    assert told["baseline"]["timeline"] is None
    found = told["front"][0]["timeline"]
    assert [moment["epoch"] for moment in found] == list(range(1, 13))
    assert found[1] == {
        **{"epoch": 2, "train_seconds": 0.02, "val_accuracy": 0.502, "boundary_seconds": 0.0},
        **{"architecture": "16[16 4]-32[16]", "widths": [16, 32], "blocks": [2, 1], "inference_flops": 16e6},
        "decisions": ["round 2: wider, 16[16 4]-32[16] to 24[24 4]-48[24]: it lacks capacity"],
    }


def test_where_no_network_changed_its_size_nothing_is_said_of_it(study: Study) -> None:
    assert timeline.lines(study.snapshot(), 80) == []
    assert "their size" not in " ".join(summary.lines(study.snapshot(), 80))
