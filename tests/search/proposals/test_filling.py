"""What fills the time that is left are runs of the space, like the best ones, that take it and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, create_trial

from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Task
from search.proposals import filling, interest
from search.proposals.draws import Candidate, Draw, candidate
from search.study import records
from search.study.snapshot import Snapshot
from search.study.study import Study
from spaces import SPACES
from spaces.base import Given, Value
from spaces.restricted import Restrictions, sample
from tests.search.planning.conftest import Run, after, choosing, nominal

GIVEN = Given("fast", ("bf16",), (2, 100), (32, 128), (1, 1), (0.25, 1.0), flip=True, data="folder:x", size=28)
N_VAL = 1000
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
    epochs = now.given.epochs
    return filling.candidates(choosing(now), now.points, seconds, lambda each: nominal(now, each), epochs, N_VAL)


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


@EVERYTHING
@given(n=st.integers(0, 3), accuracies=ACCURACIES, times=st.floats(1, 200))
def test_a_longer_run_has_the_strategies_of_its_parent(
    n: int, accuracies: list[float], times: float, study: Study
) -> None:
    now = as_forecast(study.snapshot(), n, accuracies, 1.0)
    seconds = times * min(trial.values[0] for trial in now.points) * (1 + 1e-9)
    parents = [{type(s) for s in records.pipeline(trial).strategies} for trial in now.points]
    for made, _ in found(now, seconds):
        # a stride may go, and so may what needs more epochs than there is time for
        assert any({type(s) for s in made.chosen.strategies} <= parent for parent in parents), made.chosen.describe()


def test_the_cheapest_run_is_no_model_of_long_ones_unless_it_is_accurate_or_alone(study: Study) -> None:
    drawn = as_forecast(study.snapshot(), 0, [0.9] * 6, 1.0).points
    cheapest = min(drawn, key=lambda trial: trial.values[0])
    now = as_forecast(study.snapshot(), 0, [0.1 if t.number == cheapest.number else 0.9 for t in drawn], 1.0)
    settled = {name: cheapest.params[name] for name in ("lr", "batch.log2_size")}

    def is_like(made: Candidate[Pipeline]) -> bool:
        return {name: made.params[name] for name in settled} == settled

    assert not any(is_like(made) for made, _ in found(now, 100 * cheapest.values[0]))
    assert all(is_like(made) for made, _ in found(now, 1.0001 * cheapest.values[0]))


def test_what_is_longer_than_the_cheapest_run_but_by_a_hair_is_filled(study: Study) -> None:
    now = as_forecast(study.snapshot(), 0, [0.5] * 4, 1.0)
    cheapest = min(trial.values[0] for trial in now.points)
    for hair in (1e-9, 1e-3, 0.02):
        assert found(now, cheapest * (1 + hair))


@EVERYTHING
@given(accuracies=ACCURACIES, times=st.floats(1, 200))
def test_what_a_run_was_nearly_as_long_with_is_filled_where_nothing_else_is_new(
    accuracies: list[float], times: float, study: Study
) -> None:
    now = as_forecast(study.snapshot(), 0, accuracies, 1.0)
    seconds = times * min(trial.values[0] for trial in now.points) * (1 + 1e-9)

    before = [(records.apart_from_length(p)[0], p.epochs) for p in map(records.pipeline, now.points)]
    is_new = [
        all(made.chosen.epochs >= 1.25 * n for like, n in before if like == records.apart_from_length(made.chosen)[0])
        for made, _ in found(now, seconds)
    ]
    assert all(is_new) or not any(is_new)


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


# --- pixels -----------------------------------------------------------------------------------------------------------


def of_pixels(trial: Any) -> Pipeline:
    return sample(SPACES["acceleration"], trial, GIVEN, Restrictions())


def took(pipeline: Pipeline) -> float:
    return interest.forecast(pipeline, Task(DataSpec("folder:x", size=28), "fast"), GIVEN, None)


def rung(epochs: int, accuracy: float, *, strided: bool, **others: Value) -> FrozenTrial:
    """A run of the ladder for data that nobody has seen."""
    known = SPACES["acceleration"].anchors(GIVEN)["ladder, every second pixel"]
    made = candidate(
        of_pixels, Draw(np.random.default_rng(0), None, {**known, "stride": strided, "epochs": epochs, **others})
    )
    return create_trial(
        params=dict(made.params),
        distributions=dict(made.distributions),
        values=[took(made.chosen), accuracy],
        user_attrs={records.PIPELINE: made.chosen.to_json()},
    )


def pixels_cost(points: Sequence[FrozenTrial], times: float) -> float:
    """Decades of error that all pixels cost at the width of the ladder, in a run of so many times the longest."""
    seconds = times * max(trial.values[0] for trial in points)
    found = filling.candidates(of_pixels, points, seconds, took, GIVEN.epochs, N_VAL)
    losses = {bool(made.params["stride"]): loss for made, loss in found if made.chosen.width == 0.25}
    return losses[False] - losses[True]


def test_all_pixels_are_taken_where_more_epochs_gain_less() -> None:
    slow = [rung(2, 0.860, strided=True), rung(5, 0.862, strided=True)]
    steep = [rung(2, 0.5, strided=True), rung(5, 0.68, strided=True)]
    assert pixels_cost(slow, 3) < 0 < pixels_cost(steep, 3)
    assert pixels_cost(steep, 20) < 0  # enough epochs either way


def test_a_run_that_was_nearly_as_long_is_not_trained_again() -> None:
    short, long = rung(5, 0.80, strided=True), rung(12, 0.82, strided=False, **{"augment.crop": True})

    def epochs(times: float) -> set[int]:
        """Of candidates like the long one, in so many times its seconds."""
        found = filling.candidates(of_pixels, [short, long], times * long.values[0], took, GIVEN.epochs, N_VAL)
        assert found
        return {made.chosen.epochs for made, _ in found if not made.params["stride"] and made.chosen.width == 0.25}

    for times in (0.6, 0.9, 1.1, 1.2):
        assert epochs(times) == set()
    assert epochs(1.6) == {18}


def test_what_the_runs_of_a_study_say_counts_more_than_what_is_believed() -> None:
    before = filling.gains([], N_VAL)
    assert filling.gains([rung(4, 0.8, strided=True)], N_VAL) == before
    ladder = [rung(4, 0.8, strided=True), rung(4, 0.9, strided=False)]
    assert filling.gains(ladder, N_VAL)[1] > before[1]
    assert filling.gains([ladder[0], rung(6, 0.9, strided=False, **{"augment.crop": True})], N_VAL)[1] > before[1]
    assert filling.gains([ladder[0], rung(4, 0.8, strided=False)], N_VAL)[1] < before[1]
    unlike = [ladder[0], rung(4, 0.9, strided=False, width=0.5), rung(8, 0.9, strided=True, lr=0.4)]
    assert filling.gains(unlike, N_VAL) == before
    assert filling.gains([ladder[0], rung(8, 0.9, strided=True)], N_VAL)[0] > before[0]
    assert filling.gains([ladder[0], rung(8, 0.8, strided=True)], N_VAL)[0] < before[0]


@pytest.mark.parametrize("times", [1.001, 10.0, 100.0])
def test_the_study_begins_one_of_them(times: float, study: Study) -> None:
    now = as_forecast(study.snapshot(), 0, [0.5, 0.9, 0.8, 0.7], 1.0)
    seconds = times * min(trial.values[0] for trial in now.points)
    assert study.experience.fill(now, seconds) in [made for made, _ in found(now, seconds)]
