"""The laws of InconsistentSGD."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.device.formats import LossScaler
from objectives.state import TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.inconsistent_sgd import PULL, InconsistentSGD
from tests.objectives.strategies.cases import begin, contents, executor, finish, first_batch, same_weights, using


@dataclass(frozen=True)
class Labels(Strategy):
    """Keeps the labels of every batch."""

    seen: list[Tensor] = field(default_factory=list, compare=False)

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(y.clone())
        return x, y


def watching(strategy: InconsistentSGD, dataset: Dataset, **settings: object) -> tuple[TrainState, InconsistentSGD]:
    """A state whose last losses were between 0.1 and 0.2, and its strategy: the next batch is above any limit."""
    state = begin(using(strategy, **settings), dataset)
    (bound,) = state.pipeline.strategies
    assert isinstance(bound, InconsistentSGD)
    assert bound.losses is not None
    bound.losses.copy_(torch.linspace(0.1, 0.2, len(bound.losses)))
    return state, bound


def loss_of(state: TrainState, dataset: Dataset) -> Tensor:
    x, y = first_batch(dataset)
    return F.cross_entropy(deepcopy(state.trainee.model).train()(x), y).detach()


def counts(strategy: InconsistentSGD) -> list[int]:
    assert strategy.counts is not None
    return [int(count) for count in strategy.counts.tolist()]


def test_below_the_limit_it_is_plain_sgd(digits: Dataset) -> None:
    reports, trained = finish(using(InconsistentSGD(sigmas=99, fixed=False)), digits)
    plain, other = finish(using(), digits)
    assert [report.loss for report in reports] == [report.loss for report in plain]
    assert same_weights(trained.model, other.model)
    assert reports[2].events == ("0 of 30 batches were above the limit: 0 further steps",)


def test_in_the_first_epoch_nothing_is_above_the_limit(digits: Dataset) -> None:
    state = begin(using(InconsistentSGD(sigmas=0.0)), digits)
    (strategy,) = state.pipeline.strategies
    assert isinstance(strategy, InconsistentSGD)
    running, (x, y) = executor(state), first_batch(digits)
    for _ in range(10):
        running.step(x, y)
    assert counts(strategy) == [10, 0, 0]
    running.step(x, (y + 5) % 10)  # a loss that no batch before it had
    assert counts(strategy)[:2] == [11, 1]


@pytest.mark.parametrize("stop", [1, 3, 20])
def test_further_steps_reduce_the_loss_of_a_batch_until_they_are_used_up(stop: int, digits: Dataset) -> None:
    plain = begin(using(), digits)
    executor(plain).step(*first_batch(digits))
    state, strategy = watching(InconsistentSGD(stop=stop, pace=0.05), digits)
    executor(state).step(*first_batch(digits))
    assert counts(strategy) == [1, 1, stop]
    assert loss_of(state, digits) < loss_of(plain, digits)


def test_further_steps_end_at_the_limit(digits: Dataset) -> None:
    plain = begin(using(), digits)
    executor(plain).step(*first_batch(digits))
    near, strategy = watching(InconsistentSGD(sigmas=0.0, stop=50, pace=30), digits)
    assert strategy.losses is not None
    limit = float(loss_of(plain, digits)) - 0.05
    strategy.losses.fill_(limit)
    executor(near).step(*first_batch(digits))
    assert 0 < counts(strategy)[2] < 50
    assert loss_of(near, digits) <= limit


def test_a_further_step_follows_the_published_problem(digits: Dataset) -> None:
    """(psi - L) grad psi + epsilon (w - w') / n, w' before the ordinary step; momentum does not see it."""
    x, y = first_batch(digits)
    plain, (state, _) = begin(using(), digits), watching(InconsistentSGD(stop=1, pace=0.5), digits)
    before = [w.detach().clone() for w in plain.trainee.model.parameters()]
    for each in (plain, state):
        executor(each).step(x, y)
    last = torch.linspace(0.1, 0.2, 10)
    limit = last.mean() + 3 * last.std(correction=0)
    weights = list(plain.trainee.model.parameters())
    psi = F.cross_entropy(deepcopy(plain.trainee.model).train()(x), y)
    model = deepcopy(plain.trainee.model).train()
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    n, rate = sum(w.numel() for w in weights), 0.5 * 0.2
    for found, w, gradient, start in zip(state.trainee.model.parameters(), weights, gradients, before, strict=True):
        step = (psi - limit) * gradient + PULL / n * (w.detach() - start)
        torch.testing.assert_close(found.detach(), w.detach() - rate * step.detach(), rtol=1e-4, atol=1e-6)
    one, other = contents(plain.trainee), contents(state.trainee)
    rest = [name for name in one if "momentum" in name or "running" in name]
    assert rest
    assert all(torch.equal(one[name], other[name]) for name in rest)  # and batch norms count the batch once


def test_a_step_that_loss_scaling_skips_is_not_compared_and_fp16_chases_too(digits: Dataset) -> None:
    state, strategy = watching(InconsistentSGD(stop=2), digits, number_format="fp16")
    running, (x, y) = executor(state, LossScaler("cpu", 2.0**12)), first_batch(digits)
    assert strategy.losses is not None
    before = strategy.losses.clone()
    assert running.step(x * 1e6, y).taken == 0
    assert counts(strategy) == [0, 0, 0]
    assert torch.equal(strategy.losses, before)
    running.step(x, y)
    assert counts(strategy) == [1, 1, 2]
    assert torch.equal(strategy.losses[:-1], before[1:])


@pytest.mark.parametrize("fixed", [True, False])
def test_batches_are_the_same_in_every_epoch_where_they_are_fixed(fixed: bool, digits: Dataset) -> None:
    labels = Labels()
    finish(using(InconsistentSGD(fixed=fixed), labels, epochs=3, crop=True), digits)
    epochs = torch.stack(labels.seen[-30:]).view(3, -1)
    assert all(torch.equal(epochs[0], other) == fixed for other in epochs[1:])


@pytest.mark.parametrize("parameters", [{"sigmas": -1.0}, {"stop": 101}, {"pace": 0.0}])
def test_parameters_out_of_range_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sigmas must lie in"):
        InconsistentSGD(**parameters)  # type: ignore[arg-type]
