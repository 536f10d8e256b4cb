"""The laws of GradientApproximation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from objectives.data.dataset import Dataset
from objectives.device.executors import Compiled
from objectives.networks import flops
from objectives.strategies.column_row_sampling import ColumnRowSampling
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.gradient_approximation import GradientApproximation
from objectives.strategies.inconsistent_sgd import InconsistentSGD
from objectives.train import after_boundary, bound
from tests.objectives.strategies.cases import (
    PLAIN_GROUNDS,
    begin,
    contents,
    executor,
    finish,
    first_batch,
    same_weights,
    stepped,
    using,
)
from tests.objectives.strategies.watching import gradients_of


def lots(share: float = 0.4) -> dict[bool, int]:
    """A seed for a step that leaves gradients out, and one for a step that does not."""
    drawn = {seed: float(torch.rand((), generator=torch.Generator().manual_seed(seed))) < share for seed in range(20)}
    return {
        leaves_out: next(seed for seed, found in drawn.items() if found == leaves_out) for leaves_out in (True, False)
    }


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_parts", [2, 5])
def test_from_a_part_of_the_samples_comes_in_the_mean_over_the_parts_the_gradient_itself(
    n_parts: int, digits: Dataset
) -> None:
    exact = gradients_of(using(), digits)
    approximate = using(GradientApproximation("batch", share=1 - 1 / n_parts))
    shifts = [torch.arange(50).roll(part * 50 // n_parts) for part in range(n_parts)]
    found = [gradients_of(approximate, digits, order=order) for order in shifts]
    close({name: torch.stack([each[name] for each in found]).mean(0) for name in exact}, exact)
    approximated = {name for name in exact if not torch.allclose(found[0][name], exact[name], rtol=1e-6)}
    assert approximated == {
        "stages.0.0.conv1.weight",
        "stages.0.0.conv2.weight",
        "stages.1.0.conv1.weight",
        "stages.1.0.conv2.weight",
    }


@pytest.mark.parametrize("mode", ["skip", "early"])
def test_what_a_step_leaves_out_is_zero_and_all_else_is_exact(mode: str, digits: Dataset) -> None:
    exact, strategy = gradients_of(using(), digits), GradientApproximation(mode, share=0.4)  # type: ignore[arg-type]
    without, whole = (gradients_of(using(strategy), digits, seed=lots()[leaves_out]) for leaves_out in (True, False))
    close(whole, exact)
    out = {name for name in exact if (name.startswith("stages.0") or name.startswith("stem"))}
    if mode == "skip":
        out = {name for name in exact if "conv" in name}
    assert {name for name, gradient in without.items() if not gradient.any()} == out
    close({name: without[name] for name in exact if name not in out}, {n: exact[n] for n in exact if n not in out})


@pytest.mark.parametrize("ground", ["small", "vgg"])
@pytest.mark.parametrize("mode", ["batch", "skip", "early"])
def test_what_is_not_counted_is_not_computed(mode: str, ground: str, digits: Dataset) -> None:
    """PyTorch's own counter, in a step that leaves gradients out and in one that does not."""
    strategy = GradientApproximation(mode, share=0.4)  # type: ignore[arg-type]
    pipeline, task = (using(strategy), None) if ground == "small" else (PLAIN_GROUNDS["vgg"].using(strategy), "vgg")
    state = begin(pipeline, digits, *([PLAIN_GROUNDS[task].task] if task else []))
    running, batch, model = executor(state), first_batch(digits), state.trainee.model
    computed = {}
    for leaves_out, seed in lots().items():
        torch.manual_seed(seed)
        with FlopCounterMode(display=False) as counter:
            running.step(*batch)
        computed[leaves_out] = counter.get_total_flops() / 50
    names, share = state.pipeline.strategies[0].left_out(model)
    whole = flops.count(model.architecture, digits.size)[1]
    without = flops.count(model.architecture, digits.size, names)[1]
    assert (share, without < whole) == (0.4, True)
    if mode == "batch":
        assert computed[True] == computed[False] == pytest.approx(whole - share * (whole - without))
    else:
        assert (computed[True], computed[False]) == (without, whole)


def test_reports_count_what_is_left_out_until_gradients_are_exact(digits: Dataset) -> None:
    reports, trained = finish(using(GradientApproximation("early", share=0.5, until=0.5)), digits)
    others, _ = finish(using(), digits)
    spent, whole = ([r.train_flops for r in each] for each in (reports, others))
    assert spent[1] < 0.9 * whole[1]
    assert spent[3] - spent[1] == pytest.approx(whole[3] - whole[1])
    assert all(layer.multiply is None for layer in trained.model.convolutions())


def test_weights_without_a_gradient_follow_their_momentum(digits: Dataset) -> None:
    state = stepped(begin(using(GradientApproximation("skip", share=0.4)), digits), digits, 2)
    layer = state.trainee.model.convolutions()[1]
    (group,), before = state.trainee.optimizer.param_groups, layer.weight.detach().clone()
    buffer = state.trainee.optimizer.state[layer.weight]["momentum_buffer"].clone()
    torch.manual_seed(lots()[True])
    executor(state).step(*first_batch(digits))
    decay = group["weight_decay"] * before
    step = decay + group["momentum"] * (group["momentum"] * buffer + decay)
    torch.testing.assert_close(layer.weight.detach(), before - group["lr"] * step, rtol=1e-5, atol=1e-7)


def test_what_is_frozen_stays_so_and_is_not_counted_twice(digits: Dataset) -> None:
    strategies = Freeze(start=0.25, until=0.75), GradientApproximation("skip", share=0.4), Ema()
    state = begin(using(*strategies), digits)
    for epoch in (1, 2):
        state = bound(after_boundary(replace(state, epoch=epoch)))
    before = contents(state.trainee)
    after = contents(stepped(state, digits, 4).trainee)
    frozen = {name for name, p in state.trainee.model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(torch.equal(before[f"model {name}"], after[f"model {name}"]) for name in frozen)
    names, _ = state.pipeline.strategies[1].left_out(state.trainee.model)
    assert names
    assert not names & frozen


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch, where it traces one
@pytest.mark.parametrize("mode", ["batch", pytest.param("early", marks=pytest.mark.long)])
def test_a_compiled_step_approximates_as_an_eager_one_does(mode: str, digits: Dataset) -> None:
    """`skip` stands among the laws of all strategies."""
    strategy = GradientApproximation(mode)  # type: ignore[arg-type]
    one, other = (begin(using(strategy), digits) for _ in range(2))
    eager, compiled = executor(one), Compiled(executor(other).segment, backend="aot_eager")
    for running in (eager, compiled):
        torch.manual_seed(1)
        for _ in range(3):
            running.step(*first_batch(digits))
    assert not compiled.notes
    expected, found = contents(one.trainee), contents(other.trainee)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)


def test_only_what_takes_the_same_way_in_every_step_may_be_captured() -> None:
    assert [GradientApproximation(mode).capturable for mode in ("batch", "skip", "early")] == [True, False, False]


def test_batches_that_never_change_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="InconsistentSGD cannot run with GradientApproximation"):
        using(GradientApproximation(), InconsistentSGD())


@pytest.mark.parametrize("parameters", [{"mode": "all"}, {"share": 1.0}, {"share": -0.1}, {"until": 0.0}])
def test_parameters_out_of_range_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="GradientApproximation"):
        GradientApproximation(**parameters)  # type: ignore[arg-type]


def test_it_acts_within_what_others_make_of_a_product_wherever_it_stands(digits: Dataset) -> None:
    one, other = GradientApproximation(), ColumnRowSampling(share=0.5, least=4)
    (_, before), (_, behind) = (finish(using(*both), digits) for both in ((one, other), (other, one)))
    assert same_weights(before.model, behind.model)
