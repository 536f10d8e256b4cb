"""The laws of Ema."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from objectives.data.dataset import Dataset
from objectives.strategies.ema import SHADOW, Ema
from objectives.train import begun, bound, deployed, starting_state
from tests.objectives.strategies.cases import (
    CASES,
    PLAIN,
    SEEDS,
    TASK,
    executor,
    finish,
    first_batch,
    same_weights,
    using,
)


def test_the_averages_are_those_computed_by_hand_and_are_deployed(digits: Dataset) -> None:
    state = replace(starting_state(using(Ema(horizon=0.3), momentum=0.0), TASK, digits, SEEDS), epoch=1)
    state.trainee.model.double()
    x, y = first_batch(digits)
    state = bound(begun(state, x.double(), y))
    model = state.trainee.model
    rate = 0.25  # 1 / (1 + 3 steps); ten steps are an epoch
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    running = executor(state)
    for _ in range(5):
        running.step(x.double(), y)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = (1 - rate) * expected[name] + rate * tensor
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    averaged = deployed(state)
    for name, tensor in averaged.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=1e-12)
        assert torch.equal(model.state_dict()[name], trained[name])
    assert {name for name, tensor in trained.items() if tensor.is_floating_point()} == set(
        state.trainee.shadows[SHADOW].tensors
    )
    assert not same_weights(averaged, model)
    assert averaged.architecture == model.architecture


@pytest.mark.parametrize("horizon", [0.25, 1.0, 100.0])
def test_averages_reach_back_by_the_horizon_but_no_further_than_a_quarter_of_the_epochs_done(
    horizon: float, digits: Dataset
) -> None:
    start = starting_state(using(Ema(horizon), epochs=40), TASK, digits, SEEDS)
    again = replace(start.schedule, begins=25.0)  # a run may train more than once
    for epoch in range(40):
        schedule, begins = (again, 25) if epoch >= 25 else (start.schedule, 0)
        (ema,) = bound(replace(start, epoch=epoch, schedule=schedule)).pipeline.strategies
        assert isinstance(ema, Ema)
        steps = 10 * min(horizon, (epoch - begins + 1) / 4)  # back to which a weight counts
        assert ema.rate is not None
        assert float(ema.rate) == pytest.approx(1 / (1 + steps))


@pytest.mark.parametrize("batch_size", [25, 50, 100])
def test_a_horizon_means_the_same_number_of_epochs_at_every_batch_size(batch_size: int, digits: Dataset) -> None:
    state = replace(starting_state(using(Ema(1.0), batch_size=batch_size), TASK, digits, SEEDS), epoch=3)
    (ema,) = bound(state).pipeline.strategies
    assert isinstance(ema, Ema)
    assert ema.rate is not None
    assert 1 / float(ema.rate) - 1 == pytest.approx(len(digits.train.y) / batch_size)


def test_averaging_does_not_change_what_is_trained(digits: Dataset) -> None:
    averaged, plain = finish(using(CASES["Ema"].active), digits)[0], finish(PLAIN, digits)[0]
    assert [report.loss for report in averaged] == [report.loss for report in plain]
    assert [report.accuracy for report in averaged] != [report.accuracy for report in plain]


@pytest.mark.parametrize("horizon", [-0.1, float("nan")])
def test_a_negative_horizon_is_refused(horizon: float) -> None:
    with pytest.raises(ValueError, match=f"horizon of an EMA is {horizon!r} epochs: it must not be negative"):
        Ema(horizon)
