"""The laws of Freeze."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.device.formats import LossScaler
from objectives.networks import flops
from objectives.networks.resnet import ResNet
from objectives.networks.surgery import insert_block, reindex
from objectives.state import TrainState
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.methods import lasso
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from objectives.train import after_boundary, bound
from tests.objectives.strategies.cases import (
    begin,
    contents,
    executor,
    finish,
    first_batch,
    repeats,
    stepped,
    subset,
    using,
)

EARLY = Freeze(start=0.25, until=0.75)  # stem, stage 0, stage 1 at the boundaries of four epochs
PARTS = ("stem.", "stages.0.", "stages.1.")


def boundary(state: TrainState, *epochs: int) -> TrainState:
    """The state after the boundaries that follow some epochs."""
    for epoch in epochs:
        state = bound(after_boundary(replace(state, epoch=epoch, events=())))
    return state


def frozen(model: ResNet) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def within(model: ResNet, *prefixes: str) -> set[str]:
    """The names of the parameters of some parts."""
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def values(model: ResNet, names: set[str]) -> dict[str, Tensor]:
    return {name: model.get_parameter(name).detach().clone() for name in names}


@pytest.mark.parametrize(
    ("strategy", "n_frozen"),  # parts in each of ten epochs
    [
        (Freeze(), [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]),  # 0.5, 0.75, 1
        (Freeze(start=0.2, until=0.6), [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]),
        (Freeze(start=0.3, until=0.3), [0, 0, 0, 3, 3, 3, 3, 3, 3, 3]),
        (Freeze(start=1.0), [0] * 10),
    ],
    ids=repr,
)
def test_parts_freeze_from_the_stem_on_at_even_intervals(
    strategy: Freeze, n_frozen: list[int], digits: Dataset
) -> None:
    state = begin(using(strategy, epochs=10, depth=2), digits)
    for epoch in range(1, 10):
        before = state.trainee
        state = boundary(state, epoch)
        names = within(state.trainee.model, *PARTS[: n_frozen[epoch]]) if n_frozen[epoch] else set()
        assert frozen(state.trainee.model) == names
        changes = n_frozen[epoch] != n_frozen[epoch - 1]
        assert (state.trainee is not before) == changes == bool(state.events)
        if changes:
            assert frozen(before.model) < names  # the old trainee is as it was
    assert not any(name.startswith("head.") for name in frozen(state.trainee.model))


def test_frozen_weights_are_bit_identical_from_then_on_and_the_others_move(digits: Dataset) -> None:
    """Momentum, weight decay and averaging go on around them."""
    state = stepped(begin(using(EARLY, Ema(), weight_decay=0.1), digits), digits, 5)
    for epoch in (1, 2, 3):
        state = boundary(state, epoch)
        model, optimizer = state.trainee.model, state.trainee.optimizer
        names = within(model, *PARTS[:epoch])
        others = {name for name, _ in model.named_parameters()} - names
        before, moving = values(model, names), values(model, others)
        assert all(optimizer.state[model.get_parameter(name)]["momentum_buffer"].any() for name in names)
        stepped(state, digits, 5)
        assert all(torch.equal(tensor, before[name]) for name, tensor in values(model, names).items())
        assert not any(torch.equal(tensor, moving[name]) for name, tensor in values(model, others).items())


def test_freezing_changes_nothing_by_itself(digits: Dataset) -> None:
    state = stepped(begin(using(EARLY, Ema()), digits), digits, 3)
    after = boundary(state, 1)
    old, new = contents(state.trainee), contents(after.trainee)
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_what_frozen_weights_read_is_not_dead_but_what_they_alone_produce_is(digits: Dataset) -> None:
    """PruneTrain removes a channel only when all readers do without it; a frozen producer can never die."""
    state = begin(using(EARLY), digits)
    trained, frozen = (boundary(state, *epochs).trainee.model for epochs in ((), (1, 2, 3)))
    before, after = (lasso.dense_channels(model, 0.3) for model in (trained, frozen))
    assert not all(mask.all() for mask in before.values())
    assert before.keys() == after.keys()
    for axis in before:
        readers = [g.weight.detach().abs() for g in lasso.grouped(frozen) if g.in_axis == axis]
        producers = [g for g in lasso.grouped(frozen) if g.out_axis == axis and g.weight.requires_grad]
        read = torch.stack([weight.transpose(0, 1).flatten(1).amax(1) >= 0.3 for weight in readers]).any(0)
        assert (after[axis] >= read).all()
        assert (after[axis] <= before[axis]).all()
        assert producers or torch.equal(after[axis], read)


def test_training_the_old_trainee_does_not_move_the_new_one(digits: Dataset) -> None:
    state = stepped(begin(using(EARLY, Ema()), digits), digits, 3)
    after = boundary(state, 1)
    before = contents(after.trainee)
    stepped(state, digits, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in contents(after.trainee).items())


def test_the_backward_pass_ends_before_what_is_frozen(digits: Dataset) -> None:
    model = boundary(begin(using(EARLY), digits), 1, 2).trainee.model.train()
    has_gradient: dict[str, bool] = {}
    for name, layer in model.named_modules():
        layer.register_forward_hook(lambda _, __, out, name=name: has_gradient.update({name: out.requires_grad}))
    model(first_batch(digits)[0])
    assert len(has_gradient) > 10
    for name, found in has_gradient.items():
        assert found == (name == "" or name.startswith(("stages.1", "head"))), name


def test_flops_fall_as_counted(digits: Dataset) -> None:
    reports, trained = finish(using(EARLY), digits)
    architecture = trained.model.architecture
    work = [
        flops.count(architecture, 8, frozenset(within(trained.model, *PARTS[:n]) if n else ()))[1] for n in range(4)
    ]
    forward = flops.count(architecture, 8)[0]
    assert [report.train_flops for report in reports] == [500 * sum(work[: n + 1]) for n in range(4)]
    assert work[0] > work[1] > work[2] > work[3] > forward
    head = 2 * architecture.stages[-1].width * architecture.n_classes
    assert work[3] == forward + head  # in the end only the head has a gradient


def test_statistics_of_frozen_batch_norms_go_on(digits: Dataset) -> None:
    state = boundary(stepped(begin(using(EARLY), digits), digits, 2), 1, 2, 3)
    before = state.trainee.model.stem[1].running_mean.clone()
    stepped(state, digits)
    assert not torch.equal(state.trainee.model.stem[1].running_mean, before)


@pytest.mark.parametrize("mode", ["prox", "subgrad"])
def test_prune_train_leaves_frozen_weights_alone(mode: str, digits: Dataset) -> None:
    prune = PruneTrain(lpr=0.5, interval=9, mode=mode)  # type: ignore[arg-type]
    state = boundary(begin(using(EARLY, prune), digits), 1, 2)
    names = within(state.trainee.model, *PARTS[:2])
    before = values(state.trainee.model, names)
    stepped(state, digits, 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(state.trainee.model, names).items())


def test_frozen_parameters_stay_frozen_through_surgery_and_new_blocks_train(digits: Dataset) -> None:
    torch.manual_seed(3)
    state = boundary(begin(using(EARLY), digits), 1, 2)
    names = within(state.trainee.model, *PARTS[:2])
    for index in (subset(state.trainee), repeats(state.trainee)):
        assert frozen(reindex(state.trainee, index).model) == names
    deeper = insert_block(state.trainee, 0, 1, 5)
    assert frozen(deeper.model) == names
    assert frozen(boundary(replace(state, trainee=deeper), 3).trainee.model) >= names


def test_growth_after_freezing_trains_what_it_adds(digits: Dataset) -> None:
    grow = Net2Net(start_depth=0.5, at=0.5, until=0.5, operators="deeper")
    reports, trained = finish(using(EARLY, grow, depth=2), digits)
    assert [bool(report.events) for report in reports] == [True, True, True, False]
    assert reports[-1].train_flops > 0
    assert len(trained.model.architecture.stages[0].interiors) == 2


def test_a_step_with_loss_scaling_leaves_frozen_weights_alone(digits: Dataset) -> None:
    state = boundary(begin(using(EARLY, number_format="fp16"), digits), 1, 2)
    names = within(state.trainee.model, *PARTS[:2])
    before = values(state.trainee.model, names)
    x, y = first_batch(digits)
    running = executor(state, LossScaler("cpu", 2.0**8))
    assert running.step(x, y).taken == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(state.trainee.model, names).items())


@pytest.mark.parametrize("parameters", [{"start": 0.0}, {"start": 0.8, "until": 0.7}, {"until": 1.1}])
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 < start <= until <= 1"):
        Freeze(**parameters)
