"""The laws of RegimeAdaptation."""

from __future__ import annotations

import pytest

from objectives.data.dataset import Dataset
from objectives.strategies.base import Outline
from objectives.strategies.regime_adaptation import RegimeAdaptation
from tests.objectives.strategies.cases import TASK, begin, finish, same_weights, using

N = 500  # images


@pytest.mark.parametrize(
    ("reference", "share", "batch_size", "epochs", "expected"),
    [
        (50, 1.0, 100, 4, 8),
        (50, 1.0, 250, 3, 15),
        (50, 0.5, 100, 4, 6),
        (40, 1.0, 50, 4, 5),
        (64, 1.0, 500, 2, 14),
        (64, 1.0, 5000, 2, 14),  # all images at once
        (100, 1.0, 100, 4, 4),
        (100, 1.0, 50, 4, 4),
        (128, 0.0, 250, 4, 4),
    ],
)
def test_a_run_with_large_batches_makes_as_many_updates_as_one_with_small_ones(
    reference: int, share: float, batch_size: int, epochs: int, expected: int, digits: Dataset
) -> None:
    assert len(digits.train.y) == N
    strategy = RegimeAdaptation(reference, share)
    state = begin(using(strategy, batch_size=batch_size, epochs=epochs), digits)
    assert state.ends == state.pipeline.epochs == state.schedule.epochs == expected
    n_large, n_small = N // min(N, batch_size), N // reference
    if share == 1 and reference < batch_size:
        assert abs(state.ends * n_large - epochs * n_small) <= n_large / 2
    full = begin(using(batch_size=batch_size), digits).full
    is_idle = strategy.idle(Outline(full, 8, epochs, batch_size=batch_size)) is not None
    assert is_idle == (expected == epochs)
    assert bool(state.events)
    assert any("does nothing" in event for event in state.events) == is_idle


def test_the_schedule_stretches_with_the_run(digits: Dataset) -> None:
    short = begin(using(batch_size=100), digits)
    long = begin(using(RegimeAdaptation(50), batch_size=100), digits)
    for share in (0.1, 0.25, 0.5, 0.99):
        assert long.schedule(8 * share) == pytest.approx(short.schedule(4 * share))


def test_it_is_the_run_of_as_many_epochs(digits: Dataset) -> None:
    reports, trained = finish(using(RegimeAdaptation(50), batch_size=100, epochs=2), digits, TASK)
    assert [report.epochs for report in reports] == [4] * 4
    assert same_weights(trained.model, finish(using(batch_size=100, epochs=4), digits)[1].model)


@pytest.mark.parametrize("parameters", [{"reference": 0}, {"share": 1.1}, {"share": -0.1}])
def test_parameters_out_of_range_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="reference must be at least 1"):
        RegimeAdaptation(**parameters)  # type: ignore[arg-type]
