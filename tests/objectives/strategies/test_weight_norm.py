"""Laws of weight normalisation as a strategy: how it begins, and what else knows of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.device.executors import Compiled, Eager, Segment
from objectives.device.formats import FORMATS
from objectives.export import export, load_model
from objectives.networks.norms.slots import MeanNorm, Norm, Shift
from objectives.networks.plain import residual
from objectives.reduction.settings import Reduction
from objectives.reduction.terms import Terms
from objectives.state import TrainState
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.swa import Swa
from objectives.strategies.weight_norm import WeightNorm
from objectives.strategies.whitening import Whitening
from objectives.train import deployed, starting_state
from tests.objectives.strategies.cases import (
    SEEDS,
    TASK,
    begin,
    begin_in_double,
    contents,
    finish,
    first_batch,
    stepped,
    using,
)

BOTH = (WeightNorm(), WeightNorm(norm="mean_only"))
each_norm = pytest.mark.parametrize("strategy", BOTH, ids=lambda s: s.norm)


def put_out(state: TrainState, x: Tensor) -> dict[str, Tensor]:
    """What every norm makes of a batch in training, by name."""
    found: dict[str, Tensor] = {}
    names = {module: name for name, module in state.trainee.model.named_modules() if isinstance(module, Norm)}
    handles = [
        module.register_forward_hook(lambda m, _, out: found.update({names[m]: out.detach().clone()}))
        for module in names
    ]
    state.trainee.model(x)
    for handle in handles:
        handle.remove()
    return found


@each_norm
@pytest.mark.parametrize("before", [(), (Whitening(),)], ids=["random", "whitened"])
def test_before_the_first_step_norms_put_out_mean_0_and_variance_1(
    strategy: WeightNorm, before: tuple[Whitening, ...], digits: Dataset
) -> None:
    state = begin_in_double(using(*before, strategy, width=1.0, depth=2), digits)
    x = first_batch(digits)[0].double()
    n_ones = n = 0
    for name, out in put_out(state, x).items():
        variance, mean = torch.var_mean(out, (0, 2, 3), correction=0)
        if name.endswith("bn2"):  # the end of a branch: nothing
            assert not out.any()
            continue
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-10)
        assert (variance < 1 + 1e-9).all()
        n, n_ones = n + len(variance), n_ones + int((variance > 1 - 1e-9).sum())
    assert n_ones > 0.9 * n  # all but those that hardly vary


@each_norm
def test_only_lengths_and_biases_are_calibrated(strategy: WeightNorm, digits: Dataset) -> None:
    pipeline = using(strategy)
    drawn = starting_state(pipeline, TASK, digits, SEEDS).trainee.model.state_dict()
    begun = begin(pipeline, digits).trainee.model.state_dict()
    changed = {name.rpartition(".")[2] for name in drawn if not torch.equal(drawn[name], begun[name])}
    assert changed == ({"gain", "running_mean"} if strategy.norm == "mean_only" else {"gain", "bias"})


def test_on_the_batch_that_calibrates_it_a_mean_only_network_is_in_evaluation_what_it_is_in_training(
    digits: Dataset,
) -> None:
    state = begin_in_double(using(BOTH[1]), digits)
    x, model = first_batch(digits)[0].double(), state.trainee.model
    torch.testing.assert_close(model.eval()(x), model.train()(x), rtol=1e-10, atol=1e-10)


@pytest.mark.long  # compiles
def test_a_compiled_step_does_what_an_eager_one_does(digits: Dataset) -> None:
    """Of the norm without means; the other one is under the same law with all strategies."""
    one, other = (begin(using(BOTH[0]), digits) for _ in range(2))
    segments = [Segment(s.trainee, s.pipeline.strategies, FORMATS["fp32"], None, 0.0) for s in (one, other)]
    x, y = first_batch(digits)
    for running in (Eager(segments[0]), Compiled(segments[1], backend="aot_eager")):
        for _ in range(3):
            running.step(x, y)
        assert running.notes == []
    torch.testing.assert_close(contents(other.trainee), contents(one.trainee), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("strategy", "has_effect"), [(BOTH[0], False), (BOTH[1], True)])
def test_ghost_batches_have_an_effect_on_means_alone(strategy: WeightNorm, has_effect: bool, digits: Dataset) -> None:
    one, other = (
        contents(stepped(begin(using(strategy, ghost_batch=ghost), digits), digits).trainee) for ghost in (0, 16)
    )
    assert any(not torch.equal(one[name], other[name]) for name in one) == has_effect


def test_the_biases_in_the_place_of_norms_have_a_learning_rate_of_their_own(digits: Dataset) -> None:
    state = begin(using(BOTH[0], BiasLearningRate(factor=8.0)), digits)
    chosen = {p for group in state.trainee.optimizer.param_groups if "lr_factor" in group for p in group["params"]}
    assert chosen == {m.bias for m in state.trainee.model.modules() if isinstance(m, Shift)}


def test_averages_get_means_of_their_own(digits: Dataset) -> None:
    state = begin_in_double(using(BOTH[1], Swa(0.0, images=200)), digits)
    for epoch in (1, 2, 3):
        state = stepped(replace(state, epoch=epoch), digits, 2)
        state = state.pipeline.strategies[1].between_epochs(state)
    state = replace(state, epoch=4)
    network = deployed(state)
    chosen = [i * 5 // 2 for i in range(200)]  # evenly over 500 training images, in 4 batches of 50
    read: list[Tensor] = []
    first = network.get_submodule("stem.1")
    assert isinstance(first, MeanNorm)
    handle = first.register_forward_pre_hook(lambda _, given: read.append(given[0].mean((0, 2, 3))))
    for batch in range(4):
        network(state.normalise(digits.train.x[chosen[batch::4]]).double())
    handle.remove()
    torch.testing.assert_close(first.running_mean, torch.stack(read).mean(0), rtol=1e-9, atol=1e-12)


@each_norm
def test_what_is_made_smaller_of_an_export_has_the_weights_that_it_computes_with(
    strategy: WeightNorm, digits: Dataset, tmp_path: Path
) -> None:
    _, trained = finish(using(strategy, epochs=2), digits)
    export(trained, digits, tmp_path / "model", {})
    loaded = load_model(tmp_path / "model")
    assert residual(loaded.network.architecture).norm == strategy.norm
    terms = Terms.of(loaded, digits, Reduction())
    network = terms.trainable(loaded.network)
    assert residual(network.architecture).norm == "none"
    torch.testing.assert_close(
        network(terms.normalise(digits.val.x)), loaded.logits(digits.val.x), rtol=1e-4, atol=1e-4
    )
    assert terms.evaluated(network).accuracy == pytest.approx(trained.report.accuracy, abs=1 / 300)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm is weight, mean_only or batch"):
        WeightNorm(norm="layer")  # type: ignore[arg-type]
