"""The laws of LowRank."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.device.formats import LossScaler
from objectives.export import export, load_model
from objectives.networks import factors, flops
from objectives.networks.architecture import FAMILIES, HEAD, Architecture, Stage, build
from objectives.networks.resnet import ResNet, module_name
from objectives.state import TrainState
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.ema import Ema
from objectives.strategies.fixed_architecture import FixedArchitecture
from objectives.strategies.freeze import Freeze
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.muon import Muon
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.swa import Swa
from objectives.train import after_boundary, bound, deployed
from tests.objectives.strategies.cases import (
    begin,
    begin_in_double,
    contents,
    executor,
    finish,
    first_batch,
    stepped,
    using,
)

HALF = LowRank(rank=0.5, at=0.25)  # after the first epoch of four
BLOCKS = ["stage0.block0.conv1", "stage0.block0.conv2", "stage1.block0.conv1", "stage1.block0.conv2"]  # of PLAIN
EVENT = re.compile(r"factorised (\d) of 5 layers, which keep (\d+)% of their energy; (\d+)% of the FLOPs")


def boundary(state: TrainState, *epochs: int) -> TrainState:
    """The state after the boundaries that follow some epochs."""
    for epoch in epochs:
        state = bound(after_boundary(replace(state, epoch=epoch, events=())))
    return state


def ranks(model: ResNet) -> dict[str, tuple[int, ...]]:
    return dict(model.architecture.factors)


def whole(model: ResNet) -> ResNet:
    """The network whose layers are the products of the factors."""
    plain = ResNet(replace(model.architecture, factors=())).to(next(model.parameters()).dtype)
    weights = model.state_dict()
    for label in ranks(model):
        name = module_name(label)
        parts = {part: weights.pop(f"{name}.{part}.weight") for part, _ in model.get_submodule(name).named_children()}
        if label == HEAD:
            weights[f"{name}.bias"] = weights.pop(f"{name}.expand.bias")
        weights[f"{name}.weight"] = factors.product(parts)
    plain.load_state_dict(weights)
    return plain.train(model.training)


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "epochs", "expected"),
    [(0.3, 4, 2), (0.25, 4, 1), (0.5, 2, 1), (0.01, 5, 1), (0.99, 4, 3), (0.3, 10, 3), (0.7, 10, 7)],
)
def test_it_factorises_once_at_the_first_boundary_from_its_share_of_the_run_on_and_at_the_last_one_at_the_latest(
    at: float, epochs: int, expected: int, digits: Dataset
) -> None:
    state = begin(using(LowRank(0.5, at), epochs=epochs), digits)
    for epoch in range(1, epochs):
        before = state.trainee
        state = boundary(state, epoch)
        assert (state.trainee is not before) == (epoch == expected) == bool(state.events)
        assert bool(ranks(state.trainee.model)) == (epoch >= expected)


def test_accuracy_says_something_once_factors_have_been_trained(digits: Dataset) -> None:
    for pipeline, settled in (
        (using(LowRank(0.5, 0.3)), [False, False, True, True]),
        (using(LowRank(1.0, 0.3)), [True] * 4),
        (using(LowRank(0.5, 0.3), epochs=1), [True]),
    ):
        reports, _ = finish(pipeline, digits)
        assert [report.settled for report in reports] == settled


@pytest.mark.parametrize("at", [0.3, 0.8])
def test_a_plateau_waits_until_it_has(at: float, digits: Dataset) -> None:
    for strategies in ((Plateau(gain=0.9), LowRank(0.5, at)), (LowRank(0.5, at), Plateau(gain=0.9))):
        _, trained = finish(using(*strategies, epochs=6), digits)
        assert set(ranks(trained.model)) == set(BLOCKS)


def test_a_run_of_one_epoch_is_left_alone_and_says_so(digits: Dataset) -> None:
    (report,), trained = finish(using(HALF, epochs=1), digits)
    assert report.events == (
        "LowRank does nothing in this run: a run of one epoch has no boundary at which it could factorise",
    )
    assert not ranks(trained.model)


# --- what -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0.1, 0.25, 0.5])
def test_ranks_are_shares_of_the_channels_on_either_side_and_one_at_least(rank: float, digits: Dataset) -> None:
    found = ranks(boundary(begin(using(LowRank(rank, 0.25)), digits), 1).trainee.model)
    low, high = max(1, round(8 * rank)), round(16 * rank)
    expected = dict(zip(BLOCKS, [(low, low), (low, low), (low, high), (high, high)], strict=True))
    if max(1, high) * (16 + 10) < 16 * 10:
        expected[HEAD] = (max(1, high),)
    assert found == expected


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.long] * known.stem_pool) for name, known in FAMILIES.items()]
)
@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("rank", [0.1, 0.6, 0.8, 1.0])
def test_a_layer_is_factorised_exactly_where_that_makes_the_network_cheaper(
    family: str, size: int, rank: float
) -> None:
    """By PyTorch's own count."""
    full = build(family, depth=1, width=0.5, in_channels=3, n_classes=50)
    chosen, before = LowRank(rank)._cheaper(full, size), flops.count(full, size)[0]
    for label, channels in LowRank(rank)._ranks(full).items():
        if label == HEAD and channels[0] > min(full.stages[-1].width, full.n_classes):
            assert label not in chosen
            continue
        after = flops.count(replace(full, factors=((label, channels),)), size)[0]
        assert (label in chosen) == (after < before), label
    idle = LowRank(rank).idle(Outline(full, size, 4))
    assert (idle is None) == bool(chosen)
    assert chosen or idle == f"no layer becomes cheaper by a rank of {rank:.0%}"


def test_a_network_without_layers_to_factorise_is_known_before_the_run() -> None:
    stump = Architecture(3, 2, (Stage(8, ()), Stage(16, (0,))))
    assert LowRank(0.5).idle(Outline(stump, 8, 4)) is not None


def test_what_is_frozen_stays_whole(digits: Dataset) -> None:
    freeze = Freeze(start=0.25, until=0.75)  # stem, stage 0, stage 1 at the boundaries of four epochs
    for at, n in ((0.25, 4), (0.5, 2), (0.75, 0)):
        state = begin(using(freeze, LowRank(0.5, at)), digits)
        state = boundary(state, *range(1, round(4 * at) + 1))
        assert list(ranks(state.trainee.model)) == BLOCKS[4 - n :]
        (event,) = [event for event in state.events if event.startswith("factorised")]
        assert event.startswith(f"factorised {n or 'none'} of 5 layers")
    assert event == "factorised none of 5 layers: none that is trained becomes cheaper"
    state = stepped(boundary(begin(using(LowRank(0.5, 0.25), freeze), digits), 1, 2), digits)
    within = [p for name, p in state.trainee.model.named_parameters() if name.startswith("stages.0.")]
    assert len([p for p in within if p.dim() == 4]) == 6
    assert not any(p.requires_grad for p in within)  # factors are frozen like any other layer


def test_it_looks_at_the_network_that_it_finds(digits: Dataset) -> None:
    fixed = FixedArchitecture(((8, (8, 24)), (16, (0, 12))))
    state = boundary(begin(using(fixed, HALF), digits), 1)
    assert ranks(state.trainee.model)["stage0.block1.conv1"] == (4, 12)
    assert ranks(state.trainee.model)["stage1.block1.conv2"] == (6, 8)


# --- the function -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0.25, 0.5])
@pytest.mark.parametrize("averaged", [(), (Ema(horizon=0.5),), (Lookahead(3, 0.5),)], ids=repr)
def test_the_function_is_that_of_the_products_of_the_factors(
    rank: float, averaged: tuple[Strategy, ...], digits: Dataset
) -> None:
    state = stepped(begin_in_double(using(LowRank(rank, 0.25), *averaged), digits), digits, 3)
    after = boundary(state, 1)
    x = first_batch(digits)[0].double()
    for model in (after.trainee.model, deployed(after)):
        assert len(ranks(model)) >= 4
        for training in (True, False):
            torch.testing.assert_close(model.train(training)(x), whole(model)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", [0.1, 0.25, 0.5, 0.75])
def test_the_event_says_what_is_left_of_layers_and_of_work(rank: float, digits: Dataset) -> None:
    state = stepped(begin_in_double(using(LowRank(rank, 0.25)), digits), digits, 5)
    before = {name: weight.detach().clone() for name, weight in state.trainee.model.named_parameters()}
    after = boundary(state, 1)
    (event,) = after.events
    found = EVENT.fullmatch(event)
    assert found
    n, energy, work = map(int, found.groups())
    names = [f"{module_name(label)}.weight" for label in ranks(after.trainee.model)]
    products = whole(after.trainee.model)
    lost = sum(float((products.get_parameter(name).detach() - before[name]).square().sum()) for name in names)
    total = sum(float(before[name].square().sum()) for name in names)
    assert n == len(names)
    assert energy == round(100 * (1 - lost / total))
    counts = [flops.count(each.trainee.model.architecture, 8)[0] for each in (state, after)]
    assert work == round(100 * counts[1] / counts[0]) < 100


def test_a_larger_rank_keeps_more_and_costs_more(digits: Dataset) -> None:
    state = stepped(begin(using(LowRank(0.1, 0.25)), digits), digits, 5)
    kept = []
    for rank in (0.1, 0.25, 0.5, 0.7):
        of_rank = LowRank(rank, 0.25)
        (event,) = boundary(state.with_strategy(state.pipeline.strategies[0], of_rank), 1).events
        found = EVENT.fullmatch(event)
        assert found
        kept.append((int(found[2]), int(found[3])))
    assert kept == sorted(kept)
    assert len(set(kept)) == 4


def test_flops_of_inference_fall_by_what_the_event_says_and_those_of_training_follow(digits: Dataset) -> None:
    reports, trained = finish(using(HALF), digits)
    (event,) = [event for report in reports for event in report.events]
    found = EVENT.fullmatch(event)
    assert found
    before, *after = [report.inference_flops for report in reports]
    assert len(set(after)) == 1
    assert round(100 * after[-1] / before) == int(found[3])
    assert {report.full_flops for report in reports} == {before}
    plain, low = (flops.count(replace(trained.model.architecture, factors=f), 8)[1] for f in ((), HALF_FACTORS))
    assert [report.train_flops for report in reports] == [500 * (plain + n * low) for n in range(4)]
    assert reports[-1].n_parameters < reports[0].n_parameters


HALF_FACTORS = tuple(zip(BLOCKS, [(4, 4), (4, 4), (4, 8), (8, 8)], strict=True))


def test_kinds_of_layers_are_known_before_the_run(digits: Dataset) -> None:
    _, trained = finish(using(HALF), digits)
    full = replace(trained.model.architecture, factors=())
    may_be = {layer.kind for layer in HALF.reached(full).layers(8)}
    assert {layer.kind for layer in trained.model.architecture.layers(8)} <= may_be
    assert LowRank(1.0).reached(full) == full


# --- with others ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaged", [Ema(horizon=0.5), Lookahead(3, 0.5), Swa(start=0.25, images=200)], ids=repr)
def test_what_averages_deploy_is_finite_and_close_to_the_network_after_the_change(
    averaged: Strategy, digits: Dataset
) -> None:
    for strategies in ((HALF, averaged), (averaged, HALF)):
        reports, _ = finish(using(*strategies), digits)
        assert not any(report.diverged for report in reports)
        assert reports[-1].accuracy > 0.6
    state = boundary(stepped(begin(using(HALF, averaged), digits), digits, 10), 1)
    x = first_batch(digits)[0]
    network, average = state.trainee.model.eval()(x), deployed(state)(x)
    assert average.isfinite().all()
    assert (average - network).norm() < network.norm()


def test_factors_take_the_options_of_their_layer_and_begin_without_momentum(digits: Dataset) -> None:
    for strategy in (Muon(), BiasLearningRate(8.0)):
        state = stepped(begin(using(strategy, HALF), digits), digits, 3)
        after = boundary(state, 1)
        old, new = (
            {
                name: {key: value for key, value in group.items() if key != "params"}
                for group in each.trainee.optimizer.param_groups
                for name, p in each.trainee.model.named_parameters()
                if any(p is one for one in group["params"])
            }
            for each in (state, after)
        )
        assert set(new) == {name for name, _ in after.trainee.model.named_parameters()}
        parts = [name for name in new if name not in old]
        assert len(parts) == 12
        for name in parts:
            assert new[name] == old[re.sub(r"\.(reduce|core|expand)", "", name)]
            momenta = after.trainee.optimizer.state[after.trainee.model.get_parameter(name)]
            assert not any(momentum.any() for momentum in momenta.values())
        assert all(new[name] == old[name] for name in new if name in old)
        stepped(after, digits, 3)


def test_the_old_trainee_stays_as_it_was(digits: Dataset) -> None:
    state = stepped(begin(using(HALF, Ema()), digits), digits, 3)
    before = contents(state.trainee)
    stepped(boundary(state, 1), digits, 2)
    now = contents(state.trainee)
    assert all(torch.equal(now[name], before[name]) for name in before)


def test_a_skipped_step_changes_no_factor(digits: Dataset) -> None:
    state = boundary(begin(using(HALF, number_format="fp16"), digits), 1)
    running = executor(state, LossScaler("cpu", 2.0**12))
    x, y = first_batch(digits)
    assert running.step(x, y).taken == 1
    before = contents(state.trainee)
    assert running.step(x * 1e6, y).taken == 0
    after = contents(state.trainee)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("rank", [0.25, 0.5])
def test_what_is_exported_computes_the_same_logits_bit_for_bit(rank: float, digits: Dataset, tmp_path: Path) -> None:
    """With a rank of 0.25 the head is factorised too."""
    _, trained = finish(using(LowRank(rank, 0.25), Ema()), digits)
    assert (HEAD in ranks(trained.model)) == (rank == 0.25)
    export(trained, digits, tmp_path / "model", {})
    loaded = load_model(tmp_path / "model")
    x = Normalisation(digits, torch.device("cpu"))(digits.val.x)
    assert torch.equal(loaded.network(x), trained.model(x))
    assert loaded.network.architecture == trained.model.architecture


@pytest.mark.parametrize("other", [PruneTrain, Net2Net, Adaptive, LotteryTicket])
def test_what_weighs_or_changes_channels_is_refused(other: type[Strategy]) -> None:
    with pytest.raises(ValueError, match="cannot run with"):
        using(LowRank(), other())


@pytest.mark.parametrize("parameters", [{"rank": 0.0}, {"rank": 1.1}, {"at": 0.0}, {"at": 1.0}])
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rank must lie in \(0, 1\], at in \(0, 1\)"):
        LowRank(**parameters)
