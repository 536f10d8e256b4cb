"""What fills the time that is left are runs of the space, like the best ones, that take it and no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from objectives.pipeline import Pipeline
from search.planning import filling
from search.proposals.draws import Candidate, Draw, candidate
from search.study import records
from search.study.snapshot import Snapshot
from search.study.study import Study
from tests.search.planning.conftest import Run, after, choosing, nominal

EVERYTHING = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
ACCURACIES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def as_forecast(now: Snapshot, n: int, accuracies: Sequence[float], rate: float) -> Snapshot:
    """The study after runs that took what was forecast of them, times a number, from draw `n` on."""
    shifted = after(now, [Run(1.0, 0.0)] * n + [Run(1.0, accuracy) for accuracy in accuracies])
    pipelines = [records.pipeline(trial) for trial in shifted.trials]
    runs = [Run(rate * nominal(now, pipeline), 0.0) for pipeline in pipelines[:n]]
    runs += [Run(rate * nominal(now, p), accuracy) for p, accuracy in zip(pipelines[n:], accuracies, strict=True)]
    return after(now, runs)


def found(now: Snapshot, seconds: float) -> list[tuple[Candidate[Pipeline], float]]:
    return filling.candidates(choosing(now), now.points, seconds, lambda each: nominal(now, each), now.given.epochs)


@EVERYTHING
@given(n=st.integers(0, 3), accuracies=ACCURACIES, rate=st.floats(0.1, 10), times=st.floats(1, 200))
def test_candidates_are_of_the_space_and_fill_the_seconds(
    n: int, accuracies: list[float], rate: float, times: float, study: Study
) -> None:
    now = as_forecast(study.snapshot(), n, accuracies, rate)
    seconds = times * min(trial.values[0] for trial in now.points) * (1 + 1e-9)
    fewest, most = now.given.epochs
    candidates = found(now, seconds)
    assert candidates
    for made, loss in candidates:
        asked = candidate(choosing(now), Draw(np.random.default_rng(1), None, made.params))
        assert (asked.params, asked.chosen) == (made.params, made.chosen)
        assert set(made.params) == set(made.distributions)
        assert fewest <= made.chosen.epochs <= most
        took = rate * nominal(now, made.chosen)
        assert took <= seconds * (1 + 1e-9)
        assert took >= seconds / 2 or made.chosen.epochs == most
        assert loss >= 0
    assert found(now, seconds) == candidates
    assert len({repr(sorted(made.params.items())) for made, _ in candidates}) == len(candidates)


def test_what_is_longer_than_the_cheapest_run_but_by_a_hair_is_filled(study: Study) -> None:
    now = as_forecast(study.snapshot(), 0, [0.5] * 4, 1.0)
    cheapest = min(trial.values[0] for trial in now.points)
    for hair in (1e-9, 1e-3, 0.02):
        assert found(now, cheapest * (1 + hair))


def test_what_nothing_has_room_for_has_no_candidates(study: Study) -> None:
    now = as_forecast(study.snapshot(), 0, [0.5] * 4, 1.0)
    assert not found(now, 1e-9)


def test_runs_get_wider_before_they_get_much_longer(study: Study) -> None:
    """Where there is time for far more than enough epochs, those of more channels cost less error."""
    now = as_forecast(study.snapshot(), 0, [0.9], 1.0)
    narrow = records.pipeline(now.points[0]).width
    losses = {(made.chosen.width, made.chosen.epochs): loss for made, loss in found(now, 60.0)}
    widths = {width for width, _ in losses}
    assert len(widths) > 1
    assert max(widths) > narrow


@pytest.mark.parametrize("times", [1.001, 10.0, 100.0])
def test_the_study_begins_one_of_them(times: float, study: Study) -> None:
    now = as_forecast(study.snapshot(), 0, [0.5, 0.9, 0.8, 0.7], 1.0)
    seconds = times * min(trial.values[0] for trial in now.points)
    assert study.experience.fill(now, seconds) in [made for made, _ in found(now, seconds)]
