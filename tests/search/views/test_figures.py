"""The figures of the dashboard."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from search import trial
from search.study import queue
from search.study.study import Study
from search.views import figures
from search.views.display import Display
from search.views.drawing import curves
from tests.search.conftest import Scripted
from tests.search.views.test_summary import grown


def saved(study: Study) -> set[str]:
    """Names of the figures that the dashboard was handed."""
    figures.save(study.optuna, study.snapshot())
    attributes = study.optuna._storage.get_study_system_attrs(study.optuna._study_id)
    return {key.split(":")[2] for key in attributes if key.startswith("dashboard:plot_data")}


def test_a_network_that_changed_its_size_is_a_line_that_steps_where_it_did(new_study: Callable[..., Study]) -> None:
    study = grown(new_study(stopping="none"), 3, 2)
    lines = curves.network_sizes(study.snapshot()).data
    assert [line.name for line in lines] == ["trial 1", "trial 2"]  # BASELINE kept its size
    assert [list(line.y) for line in lines] == [[8.0, 16.0, 24.0]] * 2  # MFLOP
    assert list(lines[0].x) == pytest.approx([0.01, 0.02, 0.03])
    assert {line.line.shape for line in lines} == {"vh"}
    assert "network-sizes" in saved(study)


def test_a_study_whose_networks_kept_their_size_has_no_figure_of_it(new_study: Callable[..., Study]) -> None:
    study = new_study()
    trial.run(study, study.ask(), Scripted([[(1.0, 0.6), (2.0, 0.9)]]), Display(), math.inf)
    assert saved(study) == {"learning-curves", "hypervolume", "front"}


@pytest.mark.parametrize("most", [1, 2, 60])
def test_of_many_trials_the_latest_are_drawn_and_the_whole_front(
    most: int, monkeypatch: pytest.MonkeyPatch, new_study: Callable[..., Study]
) -> None:
    monkeypatch.setattr(curves, "MAX_CURVES", most)
    study = new_study(stopping="none")
    queue.enqueue_anchors(study)
    for curve in ([(1.0, 0.9)], [(2.0, 0.5)], [(3.0, 0.6)], [(4.0, 0.7)]):  # the first dominates
        trial.run(study, study.ask(), Scripted([curve]), Display(), math.inf)
    *lines, front = curves.learning(study.snapshot()).data
    assert [line.name for line in lines] == [f"trial {n}" for n in [0, 1, 2, 3] if n == 0 or n >= 4 - most]
    assert list(front.x) == [1.0]
