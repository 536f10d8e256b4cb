"""The laws of BatchGrowth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from objectives.data.dataset import Dataset
from objectives.networks.trainee import Trainee
from objectives.state import Step, TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.batch_growth import BatchGrowth
from objectives.strategies.muon import Muon
from objectives.strategies.prune_train import PruneTrain
from objectives.train import after_boundary, set_lr
from tests.objectives.strategies.cases import begin, begin_in_double, contents, executor, first_batch, using

ONCE = BatchGrowth(at=0.5, until=0.5, steps=1)


@dataclass(frozen=True)
class Steady(Strategy):
    """The same gradient in every step, 1 everywhere."""

    def gradients(self, trainee: Trainee, step: Step) -> None:
        for parameter in trainee.model.parameters():
            assert parameter.grad is not None
            parameter.grad.fill_(1.0)


def course(
    pipeline_strategies: tuple[Strategy, ...], dataset: Dataset, epochs: int, **settings: object
) -> list[TrainState]:
    """The states in which the epochs of a run begin."""
    states = [begin(using(*pipeline_strategies, epochs=epochs, **settings), dataset)]
    for epoch in range(1, epochs):
        states.append(after_boundary(replace(states[-1], epoch=epoch, events=())))
    return states


@pytest.mark.parametrize(
    ("strategy", "batches"),  # of ten epochs
    [
        (ONCE, [10] * 5 + [20] * 5),
        (BatchGrowth(), [10] * 5 + [20] * 3 + [40] * 2),
        (BatchGrowth(factor=4, at=0.2, until=0.8, steps=3), [10] * 2 + [40] * 3 + [160] * 3 + [500] * 2),
        (BatchGrowth(at=0.95, until=0.95, steps=1), [10] * 9 + [20]),
        (BatchGrowth(factor=1), [10] * 10),
    ],
    ids=repr,
)
def test_batches_grow_at_even_intervals_up_to_all_images(
    strategy: BatchGrowth, batches: list[int], digits: Dataset
) -> None:
    states = course((strategy,), digits, 10, batch_size=10)
    assert [state.pipeline.batch_size for state in states] == batches
    changes = [one != other for one, other in zip(batches, [10, *batches[:-1]], strict=True)]
    assert [bool(state.events) for state in states][1:] == changes[1:]


def test_where_there_are_no_larger_batches_it_says_so(digits: Dataset) -> None:
    (before, after) = course((ONCE,), digits, 2, batch_size=500)
    assert after.events == ("the batch stays at 500: there are no larger ones",)
    assert after.pipeline == before.pipeline


@pytest.mark.parametrize("rule", ["none", "sqrt", "linear"])
@pytest.mark.parametrize("rate", ["kept", "scaled"])
def test_the_peak_learning_rate_is_kept_or_follows_the_batch_whatever_the_rule(
    rate: str, rule: str, digits: Dataset
) -> None:
    strategy = replace(ONCE, rate=rate, factor=4)  # type: ignore[arg-type]
    before, after = course((strategy,), digits, 2, lr_rule=rule)
    factor = 4 if rate == "scaled" else 1
    assert after.pipeline.peak_lr == pytest.approx(factor * before.pipeline.peak_lr)


@pytest.mark.parametrize("momentum", ["kept", "corrected"])
@pytest.mark.parametrize(("rate", "speed"), [("kept", 1.0), ("scaled", 2.0)])
def test_under_a_steady_gradient_weights_move_at_their_new_speed_from_the_first_step_on(
    rate: str, speed: float, momentum: str, digits: Dataset
) -> None:
    """`scaled`: as far per image as before, since a step has twice as many. No momentum has to settle."""
    strategy = replace(ONCE, rate=rate, momentum=momentum)  # type: ignore[arg-type]
    state = begin_in_double(using(strategy, Steady(), momentum=0.5, weight_decay=0.0, epochs=2), digits)
    x, y = first_batch(digits)

    def moved(state: TrainState, n_steps: int) -> list[float]:
        set_lr(state.trainee.optimizer, state.pipeline.peak_lr)
        running, bias = executor(state), state.trainee.model.get_parameter("head.bias")
        found = []
        for _ in range(n_steps):
            before = bias.detach().clone()
            running.step(x.double(), y)
            found.append(float((before - bias.detach()).mean()))
        return found

    settled = moved(state, 50)[-1]
    assert settled == pytest.approx(state.pipeline.peak_lr / (1 - 0.5))
    grown = after_boundary(replace(state, epoch=1))
    assert moved(grown, 3) == pytest.approx([speed * settled] * 3)
    (group,) = grown.trainee.optimizer.param_groups
    assert group["momentum"] == (0.25 if momentum == "corrected" else 0.5)


def test_a_correction_leaves_the_old_trainee_as_it_is_and_muon_its_steps(digits: Dataset) -> None:
    state = begin(using(replace(ONCE, momentum="corrected"), Muon(), epochs=2), digits)
    executor(state).step(*first_batch(digits))
    before, options = contents(state.trainee), [dict(g) for g in state.trainee.optimizer.param_groups]
    grown = after_boundary(replace(state, epoch=1))
    executor(grown).step(*first_batch(digits))
    assert all(torch.equal(tensor, before[name]) for name, tensor in contents(state.trainee).items())
    assert [g["momentum"] for g in state.trainee.optimizer.param_groups] == [g["momentum"] for g in options]
    plain, muon = grown.trainee.optimizer.param_groups
    assert plain["momentum"] == pytest.approx(0.9**2)
    assert plain["lr_factor"] == pytest.approx((1 - 0.9**2) / (1 - 0.9))
    assert (muon["momentum"], muon["lr_factor"]) == (pytest.approx(0.6**2), options[1]["lr_factor"])


def test_a_batch_that_fills_freed_memory_goes_on_from_the_grown_one(digits: Dataset) -> None:
    """PruneTrain sets the batch by what its network's activations leave, and here they leave nothing."""
    strategies = replace(ONCE, at=0.25, until=0.25), PruneTrain(lpr=1e-3, interval=1, adapt_batch=True)
    states = course(strategies, digits, 4, batch_size=64)
    assert [state.pipeline.batch_size for state in states] == [64, 128, 128, 128]


@pytest.mark.parametrize(
    "parameters", [{"factor": 0}, {"at": 0.0}, {"at": 0.8, "until": 0.7}, {"until": 1.0}, {"steps": 0}, {"rate": "up"}]
)
def test_parameters_out_of_range_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="BatchGrowth"):
        BatchGrowth(**parameters)  # type: ignore[arg-type]
