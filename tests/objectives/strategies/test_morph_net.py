"""The laws of MorphNet."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from objectives.data.dataset import Dataset
from objectives.networks import flops
from objectives.networks.architecture import Architecture, Stage
from objectives.state import Schedule, TrainState
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.ema import SHADOW, Ema
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.muon import Muon
from objectives.train import after_boundary, bound
from tests.objectives.strategies.cases import NothingIsRead, begin, contents, executor, finish, first_batch, using

ONCE = MorphNet(strength=3.0, learn=0.5)  # of four epochs


def morphed(state: TrainState, epoch: int = 2) -> TrainState:
    """The state after the boundary of an epoch."""
    return bound(after_boundary(replace(state, epoch=epoch, events=())))


def with_scales(state: TrainState, values: dict[str, float]) -> TrainState:
    """The state whose scales start, and where a name is given end, with these values. In place."""
    with torch.no_grad():
        for name, value in values.items():
            scale = state.trainee.model.get_parameter(name)
            scale[: len(scale) // 2] = value
    return state


def the_strategy(state: TrainState) -> MorphNet:
    (found,) = (strategy for strategy in state.pipeline.strategies if isinstance(strategy, MorphNet))
    return found


# --- what it learns ---------------------------------------------------------------------------------------------------


def test_scales_shrink_while_widths_are_learned_and_channels_die(digits: Dataset) -> None:
    reports, _ = finish(using(ONCE, epochs=8, width=1.0), digits)
    (event,) = (event for report in reports for event in report.events)
    share = re.search(r"(\d+)% of the channels were alive, omega ([\d.]+)", event)
    assert share is not None
    assert int(share[1]) < 95
    assert float(share[2]) > 1.0
    assert reports[-1].accuracy >= 0.8


def test_the_result_costs_what_the_network_did_within_a_channel(digits: Dataset) -> None:
    reports, result = finish(using(ONCE, epochs=8, width=1.0), digits)
    before, after = reports[0].inference_flops, reports[-1].inference_flops
    assert after <= before
    architecture = result.model.architecture
    wider = replace(
        architecture, stages=tuple(Stage(s.width + 1, tuple(w + 1 for w in s.interiors)) for s in architecture.stages)
    )
    assert flops.count(wider, 8)[0] > before


@pytest.mark.parametrize("budget", [0.5, 1.5])
def test_the_budget_is_a_share_of_the_cost_at_the_start(budget: float, digits: Dataset) -> None:
    for cost in ("flops", "size"):
        reports, _ = finish(using(replace(ONCE, budget=budget, cost=cost), width=1.0), digits)
        found = [r.inference_flops if cost == "flops" else r.n_parameters for r in (reports[0], reports[-1])]
        assert found[1] / found[0] == pytest.approx(budget, rel=0.12), cost


def test_the_penalty_ends_with_the_widths_and_has_no_say_in_a_strength_of_0(digits: Dataset) -> None:
    state = begin(using(ONCE), digits)
    assert the_strategy(state).penalty(state.trainee) is not None
    state = morphed(state)
    assert the_strategy(state).penalty(state.trainee) is None
    weak = begin(using(replace(ONCE, strength=0.0)), digits)
    assert the_strategy(weak).penalty(weak.trainee) is None


def test_its_share_of_the_loss_is_as_documented(digits: Dataset) -> None:
    state = begin(using(ONCE), digits)
    penalty = the_strategy(state).penalty(state.trainee)
    assert penalty is not None
    assert 1.5 * ONCE.strength < penalty.item() <= 2 * ONCE.strength


def test_its_part_of_a_step_reads_nothing_on_the_host(digits: Dataset) -> None:
    state = begin(using(ONCE), digits)
    with NothingIsRead():
        penalty = the_strategy(state).penalty(state.trainee)
        assert penalty is not None
        penalty.backward()  # type: ignore[no-untyped-call]


# --- what becomes of it -----------------------------------------------------------------------------------------------


def test_from_scratch_nothing_is_left_of_what_was_learned_but_the_widths(digits: Dataset) -> None:
    state = with_scales(begin(using(ONCE, Ema()), digits), {"stages.0.0.bn1.weight": 1e-4})
    executor(state).step(*first_batch(digits))
    after = morphed(state)
    model = after.trainee.model
    assert not any(value.any() for held in after.trainee.optimizer.state.values() for value in held.values())
    assert all((p == 1).all() for name, p in model.named_parameters() if p.dim() == 1 and name.endswith(".weight"))
    averages = after.trainee.shadows[SHADOW].tensors
    assert all(torch.equal(averages[name], parameter) for name, parameter in model.named_parameters())
    assert after.schedule == Schedule("one_cycle", 4, begins=2.0)
    assert after.schedule(2.0) == pytest.approx(0.1)


def test_going_on_keeps_the_function_where_what_goes_is_dead(digits: Dataset) -> None:
    state = begin(using(replace(ONCE, then="continue", budget=2.0), width=1.0), digits)
    for axis in ("stages.0.0.bn1", "stages.1.0.bn1"):
        for kind in ("weight", "bias"):
            with_scales(state, {f"{axis}.{kind}": 0.0})
    x, _ = first_batch(digits)
    before = state.trainee.model.train()(x).detach()
    after = morphed(state)
    assert "with the weights that it kept" in after.events[0]
    torch.testing.assert_close(after.trainee.model.train()(x), before, rtol=1e-4, atol=1e-4)
    assert after.trainee.model.architecture.stages[1].width > state.trainee.model.architecture.stages[1].width


def test_what_goes_on_is_alive_and_what_is_added_is_new(digits: Dataset) -> None:
    state = begin(using(replace(ONCE, then="continue", budget=2.0), width=1.0), digits)
    name, n = "stages.0.0.bn1.weight", 16
    with torch.no_grad():
        state.trainee.model.get_parameter(name).copy_(torch.linspace(0.5, 0.9, n))
    with_scales(state, {name: 1e-3})  # the first half is dead
    after = morphed(state).trainee
    found = after.model.get_parameter(name).detach()
    assert len(found) > n // 2
    assert torch.equal(found[: n // 2], torch.linspace(0.5, 0.9, n)[n // 2 :])
    assert (found[n // 2 :] == 1).all()
    assert (after.born["stage0.block0"][n // 2 :] == 2).all()


@pytest.mark.parametrize("then", ["retrain", "continue"])
def test_a_branch_without_an_alive_channel_is_gone(then: str, digits: Dataset) -> None:
    state = begin(using(replace(ONCE, then=then), depth=2), digits)
    with torch.no_grad():
        state.trainee.model.get_parameter("stages.0.1.bn1.weight").zero_()
        state.trainee.model.get_parameter("stages.0.1.bn2.bias").zero_()
        state.trainee.model.get_parameter("stages.1.0.bn1.weight").zero_()
    after = morphed(state).trainee.model.architecture
    assert [len(stage.interiors) for stage in after.stages] == [1, 2]
    assert after.stages[1].interiors[0] == 0  # a transition keeps its shortcut


def test_a_stage_without_an_alive_channel_keeps_its_strongest(digits: Dataset) -> None:
    state = begin(using(ONCE), digits)
    with torch.no_grad():
        for name, parameter in state.trainee.model.named_parameters():
            if parameter.dim() == 1 and name.endswith(".weight"):
                parameter.fill_(1e-5)
    after = morphed(state).trainee.model
    assert after.architecture.stages[0].width >= 1
    assert after(first_batch(digits)[0]).isfinite().all()


def test_the_old_trainee_is_the_way_back(digits: Dataset) -> None:
    for then in ("retrain", "continue"):
        state = with_scales(begin(using(replace(ONCE, then=then)), digits), {"stages.0.0.bn1.weight": 0.0})
        before = contents(state.trainee)
        morphed(state)
        assert all(torch.equal(tensor, before[name]) for name, tensor in contents(state.trainee).items())


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("iterations", "learn", "epochs", "ends"),
    [(1, 0.4, 10, [4]), (2, 0.6, 10, [3, 6]), (1, 0.9, 2, [1]), (3, 0.1, 10, [1, 2, 3]), (3, 0.99, 4, [1, 2, 3])],
)
def test_widths_are_read_at_even_times_and_the_rest_trains(
    iterations: int, learn: float, epochs: int, ends: list[int], digits: Dataset
) -> None:
    strategy = replace(ONCE, iterations=iterations, learn=learn)
    state = begin(using(strategy, epochs=epochs), digits)
    found = []
    for epoch in range(1, epochs):
        assert state.schedule.held == (len(found) < iterations)
        state = morphed(state, epoch)
        assert the_strategy(state).settled(state) == (len(found) == iterations)
        found += [epoch] if state.events else []
    assert found == ends
    assert state.schedule.epochs == epochs


def test_the_run_has_as_many_epochs_as_any_other(digits: Dataset) -> None:
    reports, _ = finish(using(ONCE), digits)
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    assert [report.settled for report in reports] == [False, False, True, True]


@pytest.mark.parametrize(
    ("strategy", "epochs", "reason"),
    [
        (MorphNet(iterations=0), 4, "it has no iterations"),
        (MorphNet(iterations=2), 2, "the run has too few epochs for its iterations"),
        (MorphNet(), 2, None),
    ],
)
def test_it_says_where_it_can_do_nothing(strategy: Strategy, epochs: int, reason: str | None, digits: Dataset) -> None:
    full = Architecture(1, 10, (Stage(8, (8,)), Stage(16, (16,))))
    assert strategy.idle(Outline(full, 8, epochs)) == reason


@pytest.mark.parametrize("beside", [Muon(), Lookahead(), Ema(horizon=0.5)])
def test_it_trains_beside_what_follows_weights(beside: Strategy, digits: Dataset) -> None:
    reports, _ = finish(using(beside, ONCE, epochs=6), digits)
    assert reports[-1].accuracy >= 0.6


@pytest.mark.parametrize(
    "wrong",
    [
        {"strength": -1.0},
        {"budget": 0.0},
        {"threshold": 1.0},
        {"iterations": 11},
        {"learn": 1.0},
        {"cost": "seconds"},
        {"then": "stop"},
    ],
)
def test_a_parameter_outside_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="MorphNet"):
        MorphNet(**wrong)  # type: ignore[arg-type]
