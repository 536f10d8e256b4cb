"""The laws of PruneTrain."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.data.dataset import Dataset, Images
from objectives.networks import flops
from objectives.networks.resnet import Block
from objectives.networks.surgery import reindex
from objectives.networks.trainee import Shadow, Trainee
from objectives.pipeline import LrRule
from objectives.state import TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.methods import lasso
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import LEAST_KAPPA, MAX_BATCH, PruneTrain
from objectives.train import after_boundary, bound
from tests.objectives.strategies.cases import (
    PLAIN,
    begin,
    begin_in_double,
    contents,
    finish,
    first_batch,
    killed,
    same_weights,
    stepped,
    subset,
    untimed,
    using,
)

DEEP = {"depth": 2}  # 8[8 8]-16[16 16]
FAINT = PruneTrain(lpr=1e-3, interval=1)  # kills nothing by itself


def bound_in(state: TrainState) -> PruneTrain:
    """The strategy of a state, as it is in force."""
    (strategy,) = state.pipeline.strategies
    assert isinstance(strategy, PruneTrain)
    return strategy


def boundary(state: TrainState, epoch: int = 1) -> TrainState:
    """The state after the boundary that follows `epoch` epochs."""
    return after_boundary(replace(state, epoch=epoch, events=()))


def kill_one(trainee: Trainee, axis: str, channel: int) -> None:
    """Kills one channel of an axis. In place."""
    channels = torch.arange(trainee.model.architecture.axis_sizes()[axis])
    killed(trainee, {axis: channels[channels != channel]})


def outputs(state: TrainState, x: Tensor) -> dict[str, Tensor]:
    """What the network computes in evaluation and in training; the network itself is left alone."""
    model = deepcopy(state.trainee.model)
    return {"evaluation": model.eval()(x).detach(), "training": model.train()(x).detach()}


def sizes(state: TrainState) -> dict[str, int]:
    return state.trainee.model.architecture.axis_sizes()


# --- strength ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lpr", [0.05, 0.35, 0.9])
def test_on_the_first_batch_the_penalty_is_the_ratio_of_the_whole_loss(lpr: float, digits: Dataset) -> None:
    state = begin_in_double(using(PruneTrain(lpr=lpr)), digits)
    x, y = first_batch(digits)
    loss = F.cross_entropy(deepcopy(state.trainee.model).train()(x.double()), y)
    penalty = lasso.penalty(state.trainee.model, bound_in(state).strength, {})
    assert float((penalty / (loss + penalty)).detach()) == pytest.approx(lpr, rel=1e-6)


def test_the_strength_of_the_first_batch_stays(digits: Dataset) -> None:
    state = begin(using(FAINT), digits)
    strength = bound_in(state).strength
    for epoch in (1, 2, 3):
        state = bound(boundary(stepped(state, digits), epoch))
        assert bound_in(state).strength == strength > 0


@pytest.mark.parametrize("order", ["grow, prune", "prune, grow"])
@pytest.mark.parametrize("start", [{"start_width": 0.5}, {"start_width": 0.5, "start_depth": 0.5, "steps": 2}], ids=str)
def test_the_ratio_is_that_of_the_full_network_once_it_has_grown(
    start: dict[str, float], order: str, digits: Dataset
) -> None:
    """On the small network that it starts with, lambda is larger: its weights have fewer norms to add up."""
    settings = {"width": 1.0, "depth": 2}
    growing, pruning = Net2Net(at=0.25, until=0.5, **start), PruneTrain(lpr=0.35)  # type: ignore[arg-type]
    strategies = (growing, pruning) if order == "grow, prune" else (pruning, growing)

    def strength(state: TrainState) -> float:
        return next(s.strength for s in state.pipeline.strategies if isinstance(s, PruneTrain))

    state, full = begin(using(*strategies, **settings), digits), begin(using(pruning, **settings), digits)
    small = strength(state)
    assert small > 1.3 * strength(full)
    random = torch.get_rng_state()
    _ = bound(replace(state, epoch=1))
    assert torch.equal(torch.get_rng_state(), random)
    for epoch in (1, 2, 3):
        state = bound(boundary(stepped(state, digits), epoch))
    assert state.trainee.model.architecture == state.full
    assert strength(state) == pytest.approx(strength(full), rel=0.1)
    x, y = first_batch(digits)
    model = full.trainee.model
    loss, penalty = float(F.cross_entropy(model(x), y).detach()), strength(state) * float(lasso.value(model))
    assert penalty / (loss + penalty) == pytest.approx(0.35, abs=0.03)


def test_a_proximal_step_is_a_plain_step_and_then_the_shrinking(digits: Dataset) -> None:
    pruning, plain = begin_in_double(using(PruneTrain(lpr=0.5)), digits), begin_in_double(using(), digits)
    stepped(pruning, digits)
    stepped(plain, digits)
    amount = PLAIN.peak_lr * bound_in(pruning).strength / (1 - PLAIN.momentum)
    lasso.shrink_(plain.trainee.model, torch.tensor(amount), {})
    torch.testing.assert_close(contents(pruning.trainee), contents(plain.trainee), rtol=1e-6, atol=1e-9)


def test_a_subgradient_step_follows_the_gradient_of_the_penalty(digits: Dataset) -> None:
    settings = {"momentum": 0.0, "weight_decay": 0.0}
    pruning = begin_in_double(using(PruneTrain(lpr=0.5, mode="subgrad"), **settings), digits)
    plain = begin_in_double(using(**settings), digits)
    parameters = dict(pruning.trainee.model.named_parameters())
    penalty = lasso.penalty(pruning.trainee.model, bound_in(pruning).strength, {})
    weights = [parameter for parameter in parameters.values() if parameter.dim() > 1]
    gradients = dict(zip(weights, torch.autograd.grad(penalty, weights), strict=True))
    stepped(pruning, digits)
    stepped(plain, digits)
    for name, parameter in parameters.items():
        expected = plain.trainee.model.get_parameter(name) - PLAIN.peak_lr * gradients.get(parameter, 0.0)
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mode", ["prox", "subgrad"])
@pytest.mark.parametrize("stop", [0.0, 0.25, 0.5])
def test_after_its_stop_nothing_is_penalised(mode: str, stop: float, digits: Dataset) -> None:
    state = begin(using(PruneTrain(lpr=0.5, mode=mode, stop=stop)), digits)  # type: ignore[arg-type]
    for epoch in range(4):
        now = bound(replace(state, epoch=epoch, trainee=deepcopy(state.trainee)))
        plain = replace(now, pipeline=PLAIN, trainee=deepcopy(state.trainee))
        weights, others = contents(stepped(now, digits).trainee), contents(stepped(plain, digits).trainee)
        assert all(torch.equal(weights[name], others[name]) for name in weights) == (epoch / 4 >= stop)


def test_a_subgradient_step_commutes_with_pruning_dead_channels(digits: Dataset) -> None:
    """As the proximal one does, by the laws of all strategies: a norm of 0 is smoothed and has no gradient."""
    torch.manual_seed(4)
    state = stepped(begin_in_double(using(PruneTrain(lpr=0.5, mode="subgrad"), **DEEP), digits), digits, 3)
    keep = subset(state.trainee)
    killed(state.trainee, keep)
    pruned = stepped(bound(replace(state, trainee=reindex(state.trainee, keep))), digits, 2)
    stepped(state, digits, 2)
    found, expected = contents(pruned.trainee), contents(reindex(state.trainee, keep))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "parameters",
    [
        {"lpr": 1.0},
        {"lpr": -0.1},
        {"interval": 0},
        {"round_to": 0},
        {"grace": -1},
        {"kappa": -1.0},
        {"mode": "gradient"},
        {"threshold": 0.0},
        {"stop": 1.1},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused_in_one_line(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^PruneTrain\(.*\): .*(lpr must lie|kappa must lie|mode is prox or subgrad)"):
        PruneTrain(**parameters)  # type: ignore[arg-type]


# --- what is removed --------------------------------------------------------------------------------------------------


def weights_of(trainee: Trainee, axis: str) -> list[tuple[str, int]]:
    """(weight, dimension) of every producer and every consumer of an axis."""
    axes, named = trainee.model.axes(), trainee.model.named_parameters()
    return [(name, dim) for name, p in named if p.dim() > 1 for dim in (0, 1) if axes[name][dim] == axis]


@pytest.mark.parametrize(("axis", "n_weights"), [("stage0", 7), ("stage1", 5), ("stage0.block1", 2)])
def test_a_channel_goes_when_all_that_produce_and_all_that_read_it_are_dead(
    axis: str, n_weights: int, digits: Dataset
) -> None:
    """Channel union: one weight of the threshold anywhere in the stage keeps it for all."""
    state = begin(using(FAINT, **DEEP), digits)
    owners = weights_of(state.trainee, axis)
    assert len(owners) == n_weights
    kill_one(state.trainee, axis, 5)
    without = {**sizes(state), axis: sizes(state)[axis] - 1}
    assert sizes(boundary(state)) == without
    for name, dim in owners:
        alive = replace(state, trainee=deepcopy(state.trainee))
        with torch.no_grad():
            alive.trainee.model.get_parameter(name).select(dim, 5)[-1] = -FAINT.threshold
        assert sizes(boundary(alive)) == sizes(state)
        with torch.no_grad():
            alive.trainee.model.get_parameter(name).select(dim, 5)[-1] = 0.99 * FAINT.threshold
        assert sizes(boundary(alive)) == without


def test_pruning_hand_zeroed_channels_changes_no_output(digits: Dataset) -> None:
    """Whatever the batch norms of dead channels say: nobody reads them."""
    torch.manual_seed(1)
    state = stepped(begin_in_double(using(FAINT, **DEEP), digits), digits, 3)
    keep = subset(state.trainee)
    killed(state.trainee, keep)
    with torch.no_grad():
        for name, tensor in state.trainee.model.state_dict().items():
            if re.search(r"(bn.|stem\.1|shortcut\.1)\.(weight|bias|running)", name):
                tensor.uniform_(0.5, 1.5)
    pruned, x = boundary(state), first_batch(digits)[0].double()
    assert sizes(pruned) == {axis: len(channels) for axis, channels in keep.items()}
    torch.testing.assert_close(outputs(pruned, x), outputs(state, x), rtol=1e-10, atol=1e-10)


def test_all_that_belongs_to_a_channel_is_sliced(digits: Dataset) -> None:
    torch.manual_seed(2)
    state = stepped(begin(using(FAINT, **DEEP), digits), digits, 2)
    keep = subset(state.trainee)
    killed(state.trainee, keep)
    for kept in state.trainee.optimizer.state.values():
        kept["momentum_buffer"].normal_()
    masks = {name: torch.rand_like(p) for name, p in state.trainee.model.named_parameters()}
    state = replace(state, trainee=state.trainee.with_shadow("mask", Shadow(masks, "mask")))
    expected = contents(reindex(state.trainee, keep))
    found = contents(boundary(state).trainee)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    for name, parameter in state.trainee.model.named_parameters():
        buffer = state.trainee.optimizer.state[parameter]["momentum_buffer"]
        for dim, axis in enumerate(state.trainee.model.axes()[name]):
            buffer = buffer if axis is None else buffer.index_select(dim, keep[axis])
        assert torch.equal(found[f"momentum_buffer {name}"], buffer)


def test_an_axis_never_loses_its_last_channel(digits: Dataset) -> None:
    state = begin(using(FAINT), digits)
    nothing = torch.empty(0, dtype=torch.int64)
    killed(state.trainee, {"stage0": nothing, "stage1": nothing})
    pruned = boundary(state)
    assert sizes(pruned) == {"stage0": 1, "stage1": 1}
    stepped(bound(pruned), digits)


@pytest.mark.parametrize(
    ("stage", "block", "biased", "left"),
    [
        (0, 0, False, "8[8]-16[16 16]"),
        (0, 1, True, "8[8 0]-16[16 16]"),
        (1, 0, True, "8[8 8]-16[0 16]"),
        (1, 1, False, "8[8 8]-16[16]"),
    ],
)
def test_a_branch_whose_last_convolution_is_dead_goes_as_a_whole(
    stage: int, block: int, biased: bool, left: str, digits: Dataset
) -> None:
    state = stepped(begin_in_double(using(FAINT, **DEEP), digits), digits, 2)
    dead = state.trainee.model.stages[stage][block]  # type: ignore[index]
    assert isinstance(dead, Block)
    with torch.no_grad():
        dead.conv2.weight.fill_(0.0)
        dead.bn2.running_mean.zero_()
        dead.bn2.bias.uniform_(0.1, 0.3) if biased else dead.bn2.bias.zero_()
    pruned, x = boundary(state), first_batch(digits)[0].double()
    assert pruned.trainee.model.architecture.describe() == left
    assert pruned.events == (f"pruned 8[8 8]-16[16 16] to {left}",)
    torch.testing.assert_close(outputs(pruned, x), outputs(state, x), rtol=1e-10, atol=1e-10)
    stepped(bound(pruned), digits)


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize(
    ("stage", "block", "left"),
    [(0, 0, "8[0 8]-16[16 16]"), (1, 0, "8[8 8]-16[0 16]"), (1, 1, "8[8 8]-16[16 0]")],
)
def test_a_branch_whose_first_convolution_is_dead_goes_as_a_whole_and_the_function_stays(
    stage: int, block: int, left: str, passes: bool, digits: Dataset
) -> None:
    """Exactly, if its last convolution reads nothing but 0, or does not see the zeros of the padding."""
    state = begin_in_double(using(FAINT, **DEEP), digits)
    dead = state.trainee.model.stages[stage][block]  # type: ignore[index]
    assert isinstance(dead, Block)
    with torch.no_grad():
        dead.conv1.weight.zero_()
        dead.bn1.bias.uniform_(0.1, 0.3) if passes else dead.bn1.bias.uniform_(-0.3, -0.1)
        dead.bn2.bias.uniform_(0.1, 0.3)
        middle = torch.zeros(3, 3, dtype=torch.float64)
        middle[1, 1] = 1.0
        dead.conv2.weight.mul_(middle)
    model = state.trainee.model.train()
    for _ in range(200):  # until the running statistics are those of the constant
        model(first_batch(digits)[0].double())
    pruned, x = boundary(state), first_batch(digits)[0].double()
    assert pruned.trainee.model.architecture.describe() == left
    before, after = outputs(state, x)["evaluation"], outputs(pruned, x)["evaluation"]
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    stepped(bound(pruned), digits)


def test_all_branches_can_go(digits: Dataset) -> None:
    state = begin(using(FAINT, **DEEP), digits)
    with torch.no_grad():
        for name, parameter in state.trainee.model.named_parameters():
            if name.endswith("conv2.weight"):
                parameter.zero_()
    pruned = boundary(state)
    assert pruned.trainee.model.architecture.describe() == "8[]-16[0]"
    stepped(bound(pruned), digits)
    assert boundary(pruned, 2).trainee is pruned.trainee


def test_without_anything_dead_the_state_is_the_same(digits: Dataset) -> None:
    state = replace(begin(using(FAINT), digits), epoch=1)
    assert after_boundary(state) is state


def test_a_training_that_prunes_nothing_does_not_notice_its_reconfigurations(digits: Dataset) -> None:
    (reports, often), (others, seldom) = (
        finish(using(PruneTrain(lpr=0.2, interval=interval), crop=True), digits) for interval in (1, 4)
    )
    assert not any("pruned" in event for report in reports for event in report.events)
    assert list(map(untimed, reports)) == list(map(untimed, others))
    assert same_weights(often.model, seldom.model)


@pytest.mark.parametrize(
    ("round_to", "n_dense", "n_kept"),
    [(1, 5, 5), (4, 5, 8), (4, 4, 4), (4, 3, 4), (4, 1, 4), (3, 5, 6), (3, 7, 8), (8, 1, 8), (16, 5, 8), (5, 6, 8)],
)
def test_widths_are_rounded_up_and_what_crosses_no_step_is_left_out(
    round_to: int, n_dense: int, n_kept: int, digits: Dataset
) -> None:
    state = begin_in_double(using(replace(FAINT, round_to=round_to)), digits)
    state = replace(stepped(state, digits, 2), epoch=1, events=())
    dense = torch.tensor([0, 2, 3, 4, 5, 6, 7])[-n_dense:]
    killed(state.trainee, {"stage0.block0": dense})
    pruned, x = after_boundary(state), first_batch(digits)[0].double()
    assert sizes(pruned) == {**sizes(state), "stage0.block0": n_kept}
    assert (pruned is state) == (n_kept == 8)
    torch.testing.assert_close(outputs(pruned, x), outputs(state, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("interval", "at"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (5, [5]), (9, [5])])
def test_it_reconfigures_every_interval_and_at_the_last_boundary(interval: int, at: list[int], digits: Dataset) -> None:
    state = begin(using(replace(FAINT, interval=interval), epochs=6), digits)
    kill_one(state.trainee, "stage0.block0", 3)
    assert [epoch for epoch in range(1, 6) if boundary(state, epoch).events] == at


# --- channels born by growth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["prox", "subgrad"])
@pytest.mark.parametrize("grace", [0, 1, 2])
def test_channels_born_by_growth_are_exempt_for_their_grace_and_then_no_more(
    mode: str, grace: int, digits: Dataset
) -> None:
    pruning = PruneTrain(lpr=0.5, mode=mode, grace=grace)  # type: ignore[arg-type]
    state = begin(using(pruning, epochs=8, momentum=0.0, weight_decay=0.0), digits)
    copied = torch.cat([torch.arange(8), torch.tensor([1, 1])])
    grown = reindex(state.trainee, {"stage0.block0": copied}, epoch=2)
    for epoch in range(2, 6):
        now = bound(replace(state, epoch=epoch, trainee=deepcopy(grown)))
        plain = replace(now, pipeline=using(epochs=8, momentum=0.0, weight_decay=0.0), trainee=deepcopy(grown))
        stepped(now, digits)
        stepped(plain, digits)
        left = norms(now, "stages.0.0.conv1.weight") / norms(plain, "stages.0.0.conv1.weight")
        assert (left[:8] < 0.9995).all()
        exempt = left[8:] > left[1] * 1.001  # not 1: the groups of the inputs are old and touch these weights, too
        assert exempt.tolist() == [epoch < 2 + grace] * 2


def norms(state: TrainState, name: str) -> Tensor:
    """Of the rows of a weight."""
    return state.trainee.model.get_parameter(name).detach().flatten(1).norm(dim=1)


def test_a_network_that_never_grew_has_no_grace(digits: Dataset) -> None:
    torch.manual_seed(3)
    state = begin(using(FAINT), digits)
    killed(state.trainee, subset(state.trainee))
    for epoch in (1, 2, 3):
        state = bound(boundary(state, epoch))
        assert bound_in(state).exempt is None


# --- a run too short to prune -----------------------------------------------------------------------------------------

WARNING = (
    r"PruneTrain will hardly prune: norms of \S+ shrink by \S+ in this run, "
    r"it takes 2.5 times their size; raise lpr, the learning rate or the epochs"
)


def expected_shrink(state: TrainState) -> float:
    """By how much the penalty shrinks a norm until the last boundary, in weights that are in two groups, by steps."""
    n_steps = len(state.data.y) // state.pipeline.batch_size
    pruning = bound_in(state)
    shares = [
        state.schedule(epoch + (step + 0.5) / n_steps)
        for epoch in range(state.ends - 1)
        for step in range(n_steps)
        if epoch / state.ends < pruning.stop
    ]
    return 2 * pruning.strength * state.pipeline.peak_lr * sum(shares) / (1 - state.pipeline.momentum)


@pytest.mark.parametrize(
    "settings",
    [{}, {"lr": 0.02}, {"momentum": 0.5}, {"epochs": 12}, {"batch_size": 25, "lr_rule": "linear"}, {"width": 1.0}],
    ids=repr,
)
@pytest.mark.parametrize("stop", [0.5, 1.0])
def test_a_run_that_cannot_prune_says_so_and_no_other_does(
    settings: dict[str, object], stop: float, digits: Dataset
) -> None:
    def begun_with(lpr: float) -> TrainState:
        return begin(using(PruneTrain(lpr=lpr, stop=stop), **settings), digits)

    state = begun_with(0.5)  # at this ratio lambda is CE / GL
    norms = [g.weight.detach().flatten(1).norm(dim=1) for g in lasso.grouped(state.trainee.model) if g.out_axis]
    limit = LEAST_KAPPA * float(torch.cat(norms).median()) / expected_shrink(state)  # of lambda, in CE / GL
    for factor, cannot in ((0.9, True), (1.1, False)):
        ratio = limit * factor
        events = begun_with(ratio / (1 + ratio)).events
        assert re.fullmatch(r"lambda \S+ from LPR \S+", events[0])
        assert [bool(re.fullmatch(WARNING, event)) for event in events[1:]] == [True] * cannot


@pytest.mark.parametrize("settings", [{}, {"lr": 0.02}, {"epochs": 8, "momentum": 0.5, "batch_size": 25}], ids=repr)
def test_a_kappa_prunes_alike_whatever_the_epochs_and_the_rate(settings: dict[str, object], digits: Dataset) -> None:
    state = begin(using(PruneTrain(kappa=12.0, lpr=0.999), **settings), digits)
    norms = [g.weight.detach().flatten(1).norm(dim=1) for g in lasso.grouped(state.trainee.model) if g.out_axis]
    assert expected_shrink(state) == pytest.approx(12 * float(torch.cat(norms).median()), rel=0.05)
    assert len(state.events) == 1  # no warning
    reports, _ = finish(using(PruneTrain(kappa=12.0, lpr=0.999, interval=1), **settings), digits)
    assert reports[-1].inference_flops < 0.9 * reports[-1].full_flops


def test_a_run_that_was_said_not_to_prune_does_not(digits: Dataset) -> None:
    reports, _ = finish(using(PruneTrain(lpr=0.02, interval=1)), digits)
    assert re.fullmatch(WARNING, reports[0].events[1])  # where it cannot be overlooked
    assert [event for report in reports[1:] for event in report.events] == ["PruneTrain removed nothing"]


@pytest.mark.parametrize("killed_at", [None, 1, 2, 3])
def test_a_run_that_removed_nothing_says_so_at_its_last_boundary_and_no_other(
    killed_at: int | None, digits: Dataset
) -> None:
    state = begin(using(FAINT), digits)
    for epoch in (1, 2, 3):
        if epoch == killed_at:
            kill_one(state.trainee, "stage1", 2)
        state = bound(boundary(state, epoch))
        says_so = state.events == ("PruneTrain removed nothing",)
        assert says_so == (epoch == 3 and killed_at is None)
        assert bool(state.events) == (says_so or epoch == killed_at)


# --- the batch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr_rule", ["none", "sqrt", "linear"])
@pytest.mark.parametrize(
    ("batch_size", "n_left", "after"),
    [
        (50, 8, None),  # 60, but batches grow to multiples of 32
        (60, 8, 64),
        (50, 3, 96),
        (60, 1, 96),
        (64, 1, 128),  # never more than twice as large
        (400, 1, 500),  # there are no more images
        (500, 1, None),
    ],
)
def test_the_batch_grows_as_activations_shrink_and_the_peak_learning_rate_alike(
    batch_size: int, n_left: int, after: int | None, lr_rule: LrRule, digits: Dataset
) -> None:
    pipeline = using(replace(FAINT, adapt_batch=True), batch_size=batch_size, lr_rule=lr_rule)
    state = begin(pipeline, digits)
    killed(state.trainee, {axis: torch.arange(min(n, n_left)) for axis, n in sizes(state).items()})
    adapted = boundary(state)
    assert set(sizes(adapted).values()) == {n_left} | ({8} if n_left > 8 else set())
    now, batch = adapted.pipeline, batch_size if after is None else after
    assert now.batch_size == batch
    assert now.peak_lr == pytest.approx(pipeline.peak_lr * batch / batch_size)
    assert replace(now, batch_size=batch_size, lr=pipeline.lr) == pipeline
    notes = () if after is None else (f"batch {batch_size} to {after}",)
    assert adapted.events[1:] == notes
    assert adapted.events[0].startswith("pruned 8[8]-16[16] to ")
    size = digits.size
    ratio = state.trainee.model.architecture.activations(size) / adapted.trainee.model.architecture.activations(size)
    assert batch <= max(batch_size, ratio * batch_size)  # so that it fits where the old one did


def test_the_batch_never_grows_beyond_its_limit(digits: Dataset) -> None:
    many = replace(digits, train=Images(digits.train.x.repeat(10, 1, 1, 1), digits.train.y.repeat(10)))
    state = begin(using(replace(FAINT, adapt_batch=True), batch_size=3000), many)
    killed(state.trainee, {axis: torch.zeros(1, dtype=torch.int64) for axis in sizes(state)})
    assert boundary(state).pipeline.batch_size == MAX_BATCH < 5000


def test_many_small_reconfigurations_grow_the_batch_as_one_large_one_does(digits: Dataset) -> None:
    state = begin(using(replace(FAINT, adapt_batch=True), batch_size=64), digits)
    batches = []
    for n_left in (7, 6, 5, 4):
        killed(state.trainee, {axis: torch.arange(min(n, 2 * n_left)) for axis, n in sizes(state).items()})
        killed(state.trainee, {axis: torch.arange(n_left) for axis, n in sizes(state).items() if n <= 8})
        state = boundary(state)
        batches.append(state.pipeline.batch_size)
    assert batches == [64, 64, 96, 128]


def test_the_batch_shrinks_again_where_the_network_grows_but_not_below_the_sampled_one(digits: Dataset) -> None:
    state = begin(using(replace(FAINT, adapt_batch=True), batch_size=64), digits)
    killed(state.trainee, {axis: torch.arange(2) for axis in sizes(state)})
    small = boundary(state)
    assert small.pipeline.batch_size == 128
    wide = {axis: torch.arange(24) % n for axis, n in sizes(small).items()}
    grown = boundary(replace(small, trainee=reindex(small.trainee, wide)))
    assert grown.pipeline.batch_size == 64
    assert grown.pipeline.peak_lr == pytest.approx(state.pipeline.peak_lr)


@pytest.mark.parametrize(("lr", "after"), [(0.0, 0.0), (90.0, 100.0)])
def test_a_learning_rate_at_an_end_of_its_range_stays_in_it(lr: float, after: float, digits: Dataset) -> None:
    state = begin(using(replace(FAINT, adapt_batch=True), batch_size=64, lr=lr), digits)
    killed(state.trainee, {axis: torch.arange(1) for axis in sizes(state)})
    adapted = boundary(state)
    assert (adapted.pipeline.batch_size, adapted.pipeline.lr) == (128, after)


@dataclass(frozen=True)
class Kill(Strategy):
    """Kills most channels after the first epoch, as a strong penalty would."""

    def between_epochs(self, state: TrainState) -> TrainState:
        if state.epoch == 1:
            killed(state.trainee, {axis: torch.arange(4) for axis in sizes(state)})
        return state


@pytest.mark.parametrize("lr_rule", ["none", "sqrt", "linear"])
def test_it_trains_through_with_the_new_batch(lr_rule: LrRule, digits: Dataset) -> None:
    pipeline = using(Kill(), replace(FAINT, adapt_batch=True), lr_rule=lr_rule)
    pipeline = replace(pipeline, lr=PLAIN.lr * pipeline.lr / pipeline.peak_lr, epochs=6)
    reports, trained = finish(pipeline, digits)
    assert reports[0].events[-2:] == ("pruned 8[8]-16[16] to 4[4]-4[4]", "batch 50 to 96")
    work = flops.count(trained.model.architecture, digits.size)[1]
    n_images = [(after.train_flops - before.train_flops) / work for before, after in pairwise(reports)]
    assert n_images == [480] * 5
    assert [event for report in reports[1:] for event in report.events] == []
    assert reports[-1].accuracy >= 0.5
    assert reports[-1].accuracy > reports[1].accuracy
    assert trained.pipeline == pipeline  # as sampled
