"""The laws of Lookahead."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.networks.resnet import ResNet
from objectives.state import Step, TrainState
from objectives.strategies.ema import Ema
from objectives.strategies.lookahead import SHADOW, Lookahead
from objectives.strategies.methods.averaging import counter
from objectives.train import deployed
from tests.objectives.strategies.cases import (
    PLAIN,
    NothingIsRead,
    begin_in_double,
    executor,
    finish,
    first_batch,
    stepped,
    using,
)

INTERVAL, PULL = 3, 0.25


def weights(model: ResNet) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def disturb(state: TrainState) -> None:
    """What an optimizer step is to Lookahead: it moves the weights somewhere."""
    with torch.no_grad():
        for parameter in state.trainee.model.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_weights_are_those_computed_by_hand_over_two_intervals_and_a_skipped_step(digits: Dataset) -> None:
    torch.manual_seed(0)
    state = begin_in_double(using(Lookahead(INTERVAL, PULL)), digits)
    (strategy,), model = state.pipeline.strategies, state.trainee.model
    x, y = first_batch(digits)
    slow = weights(model)
    n_taken = 0
    for number in range(2 * INTERVAL + 2):
        taken = number != 2  # the third step is skipped: it does not count, and the return waits for the next one
        if taken:
            disturb(state)
        fast = weights(model)
        strategy.after_step(state.trainee, Step(x, y, torch.zeros(()), torch.tensor(float(taken))))
        n_taken += taken
        if taken and n_taken % INTERVAL == 0:
            slow = {name: slow[name] + PULL * (fast[name] - slow[name]) for name in slow}
            fast = slow
        torch.testing.assert_close(weights(model), fast, rtol=1e-12, atol=1e-12)
        kept = dict(state.trainee.shadows[SHADOW].tensors)
        assert int(kept.pop(model.counter)) == n_taken
        torch.testing.assert_close(kept, slow, rtol=1e-12, atol=1e-12)
    assert n_taken == 2 * INTERVAL + 1


@pytest.mark.parametrize("n_steps", range(1, 2 * INTERVAL + 1))
def test_what_is_deployed_is_what_a_return_at_once_would_leave(n_steps: int, digits: Dataset) -> None:
    state = stepped(begin_in_double(using(Lookahead(INTERVAL, PULL)), digits), digits, n_steps)
    before = weights(state.trainee.model)
    found = weights(deployed(state))
    assert all(torch.equal(before[name], weight) for name, weight in weights(state.trainee.model).items())
    slow = state.trainee.shadows[SHADOW].tensors
    for name, weight in found.items():
        torch.testing.assert_close(weight, slow[name] + PULL * (before[name] - slow[name]), rtol=1e-12, atol=1e-12)
    if n_steps % INTERVAL == 0:
        torch.testing.assert_close(found, before, rtol=1e-12, atol=1e-12)


def test_averages_that_an_earlier_strategy_deploys_are_deployed(digits: Dataset) -> None:
    state = begin_in_double(using(Ema(0.5), Lookahead(INTERVAL, PULL)), digits)
    state = stepped(state, digits, 4)
    network = deployed(state)
    averages = state.trainee.shadows["ema"].tensors
    assert all(torch.equal(weight, averages[name]) for name, weight in weights(network).items())


def test_momentum_and_statistics_go_on_when_the_weights_return(digits: Dataset) -> None:
    """With a pull of nearly 1 a run is nearly the run without."""
    nearly, plain = finish(using(Lookahead(1, 1 - 1e-6)), digits)[0], finish(PLAIN, digits)[0]
    for one, other in zip(nearly, plain, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-2)


def test_a_copied_trainee_counts_for_itself(digits: Dataset) -> None:
    """Keeping a trainee is the way back: so its count must not go on with that of another one."""
    state = stepped(begin_in_double(using(Lookahead(INTERVAL, PULL)), digits), digits, 2)
    kept = replace(state, trainee=deepcopy(state.trainee))
    stepped(state, digits)
    assert [int(counter(s.trainee, SHADOW)) for s in (kept, state)] == [2, 3]


def test_no_step_waits_for_the_device(digits: Dataset) -> None:
    state = begin_in_double(using(Lookahead(1, PULL)), digits)
    x, y = first_batch(digits)
    with NothingIsRead():
        executor(state).step(x.double(), y)


@pytest.mark.parametrize(("interval", "pull"), [(0, 0.5), (1, 0.0), (1, 1.1), (1, float("nan"))])
def test_a_parameter_outside_its_range_is_refused(interval: int, pull: float) -> None:
    with pytest.raises(ValueError, match=r"interval must be at least 1, pull must lie in \(0, 1\]"):
        Lookahead(interval, pull)
