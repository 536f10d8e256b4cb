"""The laws of LotteryTicket."""

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
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.base import Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.lottery_ticket import MASKS, WEIGHTS, LotteryTicket
from objectives.strategies.muon import Muon
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.swa import Swa
from objectives.strategies.whitening import Whitening
from objectives.train import after_boundary, bound, deployed
from tests.objectives.strategies.cases import (
    PLAIN,
    NothingIsRead,
    begin,
    contents,
    executor,
    finish,
    first_batch,
    repeats,
    same_weights,
    stepped,
    subset,
    untimed,
    using,
)

ONCE = LotteryTicket(levels=1, share=0.3)  # after two epochs of four
AVERAGED = [(ONCE, Ema()), (Ema(), ONCE), (ONCE, Lookahead(3, 0.5)), (Lookahead(3, 0.5), ONCE)]


def boundary(state: TrainState, *epochs: int) -> TrainState:
    """The state after the boundaries that follow some epochs."""
    for epoch in epochs:
        state = bound(after_boundary(replace(state, epoch=epoch, events=())))
    return state


def prunable(model: ResNet) -> dict[str, Tensor]:
    """The weights of all convolutions and of the head."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.dim() > 1}


def zeros(model: ResNet) -> dict[str, Tensor]:
    """Where those weights are 0."""
    return {name: weight == 0 for name, weight in prunable(model).items()}


def n_zeros(model: ResNet) -> int:
    return sum(int(mask.sum()) for mask in zeros(model).values())


def n_weights(model: ResNet) -> int:
    return sum(weight.numel() for weight in prunable(model).values())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "rewind", "positions"),  # in its schedule of each epoch, by training
    [
        (1, 0, [[0, 1], [0, 1]]),
        (1, 0, [[0, 1], [0, 1, 2]]),
        (2, 0, [[0, 1], [0, 1, 2], [0, 1, 2]]),
        (1, 1, [[0, 1], [1, 2]]),
        (2, 1, [[0, 1, 2], [1, 2], [1, 2, 3]]),
        (3, 2, [[0, 1, 2], [2], [2], [2]]),
    ],
)
def test_all_trainings_fit_into_the_run_and_each_schedule_goes_on_from_the_epoch_that_it_goes_back_to(
    levels: int, rewind: int, positions: list[list[int]], digits: Dataset
) -> None:
    epochs = sum(map(len, positions))
    strategy = LotteryTicket(levels, rewind=rewind)
    state = begin(using(strategy, epochs=epochs, schedule="cosine"), digits)
    epoch = 0
    for training in positions:
        for position in training:
            state = boundary(state, epoch) if epoch > 0 else state
            whole = replace(state.schedule, begins=0.0, epochs=training[-1] + 1)
            assert state.schedule(epoch + 0.5) == pytest.approx(whole(position + 0.5))
            epoch += 1
            assert strategy.settled(replace(state, epoch=epoch)) == (training is positions[-1])
    assert state.ends == epochs


def test_a_run_takes_the_epochs_that_it_was_given_and_says_what_it_did(digits: Dataset) -> None:
    reports, _ = finish(using(LotteryTicket(levels=2, share=0.5, rewind=1), epochs=8), digits)
    assert {report.epoch: report.events for report in reports if report.events} == {
        1: ("kept the weights of epoch 1",),
        3: ("level 1: 50% of weights pruned, back to epoch 1",),
        5: ("level 2: 75% of weights pruned, back to epoch 1",),
    }
    assert [report.settled for report in reports] == [False] * 5 + [True] * 3
    assert (reports[-1].epoch, reports[-1].epochs) == (8, 8)


@pytest.mark.parametrize(("levels", "rewind"), [(4, 0), (1, 3), (2, 2)])
def test_a_run_that_is_too_short_says_so_and_is_left_alone(levels: int, rewind: int, digits: Dataset) -> None:
    (first, *others), trained = finish(using(LotteryTicket(levels, rewind=rewind)), digits)
    n = levels + 1
    words = f"{n} trainings of which all but the first begin at epoch {rewind} take {rewind + n} epochs"
    assert first.events == (f"LotteryTicket does nothing in this run: {words}",)
    plain, other = finish(PLAIN, digits)
    assert list(map(untimed, [replace(first, events=()), *others])) == list(map(untimed, plain))
    assert same_weights(trained.model, other.model)


def test_no_network_costs_less(digits: Dataset) -> None:
    reports, trained = finish(using(replace(ONCE, share=0.9)), digits)
    forward, step = flops.count(trained.model.architecture, 8)
    assert {report.inference_flops for report in reports} == {forward}
    assert [report.train_flops for report in reports] == [500 * step * epoch for epoch in (1, 2, 3, 4)]


# --- what is pruned ---------------------------------------------------------------------------------------------------


def test_the_smallest_of_all_layers_together_are_pruned(digits: Dataset) -> None:
    state = stepped(begin(using(ONCE), digits), digits, 5)
    before, after = prunable(state.trainee.model), zeros(boundary(state, 2).trainee.model)
    gone = torch.cat([before[name][mask].abs() for name, mask in after.items()])
    left = torch.cat([before[name][~mask].abs() for name, mask in after.items()])
    assert gone.max() <= left.min()
    assert len(gone) == n_weights(state.trainee.model) - round(0.7 * n_weights(state.trainee.model))
    assert len({round(float(mask.double().mean()), 2) for mask in after.values()}) > 1  # not of each layer the same


@pytest.mark.parametrize(("levels", "share"), [(1, 0.001), (2, 0.2), (3, 0.9), (9, 0.2)])
def test_levels_prune_a_share_of_what_the_ones_before_left(levels: int, share: float, digits: Dataset) -> None:
    state = begin(using(LotteryTicket(levels, share), epochs=levels + 1), digits)
    n, before = n_weights(state.trainee.model), zeros(state.trainee.model)
    for level in range(1, levels + 1):
        state = boundary(stepped(state, digits), level)
        now = zeros(state.trainee.model)
        assert all((now[name] >= before[name]).all() for name in now)  # for good
        assert n_zeros(state.trainee.model) == pytest.approx(n * (1 - (1 - share) ** level), abs=1)
        before = now


def test_weights_that_happen_to_be_zero_are_not_taken_for_pruned_ones(digits: Dataset) -> None:
    state = begin(using(IdentityInit(), LotteryTicket(levels=2, share=0.3), lr=0.0), digits)
    n = n_weights(state.trainee.model)
    assert n_zeros(state.trainee.model) > 0.6 * n
    for level in (1, 2):
        state = boundary(state, level)
        masks = state.trainee.shadows[MASKS].tensors.values()
        assert sum(int((mask == 0).sum()) for mask in masks) == n - round(n * 0.7**level)


@pytest.mark.parametrize("strategies", [(ONCE,), (ONCE, Whitening(frozen=0.0)), *AVERAGED], ids=repr)
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_pruned_weights_stay_zero_while_training_and_in_what_is_deployed(
    strategies: tuple[Strategy, ...], number_format: str, digits: Dataset
) -> None:
    pipeline = using(*strategies, number_format=number_format)
    state = boundary(stepped(begin(pipeline, digits), digits, 5), 2)
    pruned = zeros(state.trainee.model)
    for _ in range(4):
        state = stepped(state, digits)
        for model in (state.trainee.model, deployed(state)):
            assert same(zeros(model), pruned)
    _, trained = finish(pipeline, digits)
    n = n_weights(trained.model)
    assert n_zeros(trained.model) == n - round(0.7 * n)


def test_masks_travel_through_surgery_and_new_blocks_are_whole(digits: Dataset) -> None:
    torch.manual_seed(1)
    state = boundary(stepped(begin(using(ONCE), digits), digits, 3), 2)
    for operated in (
        reindex(state.trainee, subset(state.trainee)),
        reindex(state.trainee, repeats(state.trainee)),
        insert_block(state.trainee, 0, 1, 5),
    ):
        pruned = zeros(operated.model)
        after = stepped(bound(replace(state, trainee=operated)), digits, 3)
        assert same(zeros(after.trainee.model), pruned)
        assert same({name: mask == 0 for name, mask in operated.shadows[MASKS].tensors.items()}, pruned)
    assert not pruned["stages.0.1.conv1.weight"].any()


# --- the way back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewind", [0, 1])
def test_what_is_left_goes_back_to_the_weights_that_were_kept_without_momentum(rewind: int, digits: Dataset) -> None:
    state = begin(using(IdentityInit(share=0.5), LotteryTicket(1, 0.3, rewind), epochs=4 + rewind), digits)
    if rewind:
        state = boundary(stepped(state, digits, 3), 1)
    kept = {name: tensor.clone() for name, tensor in state.trainee.model.state_dict().items()}
    state = stepped(state, digits, 3)
    assert not any(torch.equal(kept[name], tensor) for name, tensor in prunable(state.trainee.model).items())
    state = boundary(state, 2 + rewind)
    model, masks = state.trainee.model, state.trainee.shadows[MASKS].tensors
    for name, tensor in model.state_dict().items():  # statistics too
        assert torch.equal(tensor, kept[name] * masks[name] if name in masks else kept[name]), name
    momenta = [value for memory in state.trainee.optimizer.state.values() for value in memory.values()]
    assert len(momenta) == len(list(model.parameters()))
    assert not any(momentum.any() for momentum in momenta)


@pytest.mark.parametrize("strategies", AVERAGED, ids=repr)
def test_averages_begin_anew(strategies: tuple[Strategy, ...], digits: Dataset) -> None:
    state = boundary(stepped(begin(using(*strategies), digits), digits, 4), 2)
    now = state.trainee.model.state_dict()
    (averages,) = (s.tensors for key, s in state.trainee.shadows.items() if key not in (WEIGHTS, MASKS))
    assert all(torch.equal(average, now[name]) for name, average in averages.items())
    assert not any(int(average) for average in averages.values() if average.dim() == 0)  # steps counted
    assert same(dict(deployed(state).state_dict()), dict(now))


def test_each_level_goes_back_to_the_same_weights(digits: Dataset) -> None:
    state = begin(using(LotteryTicket(levels=2, share=0.3)), digits)
    kept = dict(state.trainee.shadows[WEIGHTS].tensors)
    for epoch in (1, 2):
        state = boundary(stepped(state, digits, 3), epoch)
        assert same(dict(state.trainee.shadows[WEIGHTS].tensors), kept)
        left = {name: ~mask for name, mask in zeros(state.trainee.model).items()}
        assert all(torch.equal(prunable(state.trainee.model)[name][at], kept[name][at]) for name, at in left.items())


def test_the_old_trainee_stays_as_it_was_and_shares_nothing_with_the_new_one(digits: Dataset) -> None:
    for strategies, epoch in (((ONCE, Ema()), 2), ((LotteryTicket(1, rewind=1), Lookahead()), 1)):
        state = stepped(begin(using(*strategies), digits), digits, 3)
        before = contents(state.trainee)
        after = boundary(state, epoch)
        assert after.trainee is not state.trainee
        assert same(contents(state.trainee), before)
        held = contents(after.trainee)
        kept = {name: held[name] for name in held if epoch == 2 or name.startswith(WEIGHTS)}
        stepped(state, digits, 2)
        now = contents(after.trainee)
        assert same({name: now[name] for name in kept}, kept)


@pytest.mark.parametrize("strategies", [(Whitening(), ONCE), (ONCE, Whitening())], ids=repr)
def test_a_frozen_stem_is_neither_pruned_nor_taken_back(strategies: tuple[Strategy, ...], digits: Dataset) -> None:
    state = begin(using(*strategies), digits)
    stem = state.trainee.model.stem[0].weight.detach().clone()
    state = stepped(boundary(stepped(state, digits, 3), 2), digits, 3)
    assert torch.equal(state.trainee.model.stem[0].weight, stem)
    n = n_weights(state.trainee.model) - stem.numel()
    assert n_zeros(state.trainee.model) == n - round(0.7 * n)


# --- a step -----------------------------------------------------------------------------------------------------------


def test_no_step_waits_for_the_device(digits: Dataset) -> None:
    state = boundary(begin(using(ONCE), digits), 2)
    with NothingIsRead():
        executor(state).step(*first_batch(digits))


def test_a_skipped_step_changes_nothing_once_weights_are_pruned(digits: Dataset) -> None:
    state = boundary(begin(using(ONCE, number_format="fp16"), digits), 2)
    running = executor(state, LossScaler("cpu", 2.0**12))
    x, y = first_batch(digits)
    assert running.step(x, y).taken == 1
    before = contents(state.trainee)
    assert running.step(x * 1e6, y).taken == 0
    assert same(contents(state.trainee), before)


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [PruneTrain, Net2Net, Adaptive, Plateau, Freeze, Swa, Muon])
def test_there_is_no_way_back_from_what_changes_the_network_the_end_or_the_norm(other: type[Strategy]) -> None:
    with pytest.raises(ValueError, match=f"LotteryTicket cannot run with {other.__name__}: choose one"):
        using(LotteryTicket(), other())


@pytest.mark.parametrize("parameters", [{"levels": -1}, {"share": 0.0}, {"share": 1.0}, {"rewind": -1}])
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"levels and rewind from 0, share in \(0, 1\)"):
        LotteryTicket(**parameters)  # type: ignore[arg-type]
