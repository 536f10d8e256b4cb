"""The laws of BiasLearningRate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from objectives.data.dataset import Dataset
from objectives.networks.surgery import drop_block, insert_block, reindex
from objectives.networks.trainee import Trainee
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.train import begun, bound, set_lr, starting_state
from tests.objectives.strategies.cases import SEEDS, TASK, begin, contents, first_batch, repeats, stepped, subset, using

TIMES_8 = using(BiasLearningRate(8.0), weight_decay=0.01)


def norm_biases(trainee: Trainee) -> set[str]:
    """The names of the biases of batch norms, and of what is left of one whose branch is gone."""
    norms = [name for name, layer in trainee.model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    offsets = {name for name, _ in trainee.model.named_parameters() if name.endswith(".offset")}
    return {f"{name}.bias" for name in norms} | offsets


def groups(trainee: Trainee) -> list[tuple[set[str], dict[str, object]]]:
    """(names, options) of every parameter group."""
    names = {parameter: name for name, parameter in trainee.model.named_parameters()}
    return [
        ({names[p] for p in group["params"]}, {key: value for key, value in group.items() if key != "params"})
        for group in trainee.optimizer.param_groups
    ]


def assert_only_biases_are_faster(trainee: Trainee) -> None:
    (others, plain), (biases, faster) = groups(trainee)
    assert biases == norm_biases(trainee)
    assert biases | others == {name for name, _ in trainee.model.named_parameters()}
    assert "head.bias" in others
    assert "lr_factor" not in plain
    assert faster == {**plain, "lr": plain["lr"] * 8, "lr_factor": 8.0, "weight_decay": 0.01 / 8}  # type: ignore[operator]
    assert faster["lr"] * faster["weight_decay"] == plain["lr"] * plain["weight_decay"]  # type: ignore[operator]


def test_biases_of_batch_norms_get_a_group_of_their_own_and_nothing_else_changes(digits: Dataset) -> None:
    start = starting_state(TIMES_8, TASK, digits, SEEDS)
    for kept in start.trainee.optimizer.state.values():
        kept["momentum_buffer"].normal_()
    before, group = contents(start.trainee), dict(start.trainee.optimizer.param_groups[0])
    state = begun(start, *first_batch(digits))
    assert_only_biases_are_faster(state.trainee)
    after = contents(state.trainee)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert start.trainee.optimizer.param_groups == [group]  # the old trainee is as it was


def test_the_schedule_moves_both_learning_rates(digits: Dataset) -> None:
    trainee = begin(TIMES_8, digits).trainee
    for lr in (0.3, 0.01):
        set_lr(trainee.optimizer, lr)
        assert [group["lr"] for group in trainee.optimizer.param_groups] == [lr, 8 * lr]
        assert_only_biases_are_faster(trainee)


def test_a_bias_moves_as_many_times_as_far_in_a_step(digits: Dataset) -> None:
    """Without momentum and weight decay, whose first step would be alike."""
    moved = []
    for factor in (1.0, 8.0):
        state = begin(using(BiasLearningRate(factor), momentum=0.0, weight_decay=0.0), digits)
        before = contents(state.trainee)
        after = contents(stepped(state, digits).trainee)
        moved.append({name: after[f"model {name}"] - before[f"model {name}"] for name in groups(state.trainee)[0][0]})
        biases = norm_biases(state.trainee)
        moved[-1] |= {name: after[f"model {name}"] - before[f"model {name}"] for name in biases}
    once, eight_times = moved
    for name, distance in eight_times.items():
        expected = once[name] * (8 if name in biases else 1)
        torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-6)


def test_a_bias_decays_as_fast_as_without_the_strategy(digits: Dataset) -> None:
    """A step with a gradient of zero."""
    decayed = []
    for strategy in (BiasLearningRate(1.0), BiasLearningRate(8.0)):
        state = begin(using(strategy, momentum=0.0, weight_decay=0.01), digits)
        with torch.no_grad():
            for parameter in state.trainee.model.parameters():
                parameter.fill_(1.0)
                parameter.grad = torch.zeros_like(parameter)
        state.trainee.optimizer.step()
        decayed.append(contents(state.trainee))
    torch.testing.assert_close(decayed[0], decayed[1], rtol=1e-6, atol=0)
    assert decayed[0]["model stem.1.bias"].max() < 1


@pytest.mark.parametrize(
    "surgery",
    [
        pytest.param(lambda trainee: reindex(trainee, subset(trainee)), id="prune"),
        pytest.param(lambda trainee: reindex(trainee, repeats(trainee)), id="widen"),
        pytest.param(lambda trainee: insert_block(trainee, 1, 1, 5), id="insert a block"),
        pytest.param(lambda trainee: drop_block(trainee, 0, 0), id="drop a branch"),
    ],
)
def test_groups_and_their_options_travel_through_surgery(
    surgery: Callable[[Trainee], Trainee], digits: Dataset
) -> None:
    torch.manual_seed(2)
    state = stepped(begin(TIMES_8, digits), digits, 2)
    operated = surgery(state.trainee)
    assert_only_biases_are_faster(operated)
    set_lr(operated.optimizer, 0.05)
    assert [group["lr"] for group in operated.optimizer.param_groups] == [0.05, 0.4]
    stepped(bound(replace(state, trainee=operated)), digits)


def test_groups_that_are_there_already_are_split_each_for_itself(digits: Dataset) -> None:
    start = starting_state(TIMES_8, TASK, digits, SEEDS)
    optimizer = start.trainee.optimizer
    (group,) = optimizer.param_groups
    head = list(start.trainee.model.head.parameters())
    stem_norm = list(start.trainee.model.stem[1].parameters())
    apart = {id(parameter) for parameter in head + stem_norm}
    group["params"] = [parameter for parameter in group["params"] if id(parameter) not in apart]
    optimizer.add_param_group({**group, "params": head})
    optimizer.add_param_group({**group, "params": stem_norm, "lr_factor": 2.0})
    found = groups(begun(start, *first_batch(digits)).trainee)
    assert [options.get("lr_factor", 1.0) for _, options in found] == [1.0, 1.0, 2.0, 8.0, 16.0]
    assert found[-1][0] == {"stem.1.bias"}


@pytest.mark.parametrize("factor", [0.99, -64.0, 1025.0, float("nan")])
def test_a_factor_out_of_range_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"the bias learning rate is .*: it must lie in \[1, 1024\]"):
        BiasLearningRate(factor)
