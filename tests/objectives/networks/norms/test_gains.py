"""Laws of surgery on networks without batch norms: gains and scales travel, and their optimizer's state with them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objectives.networks.architecture import STEM, Architecture, NormKind, Stage
from objectives.networks.norms import gains
from objectives.networks.resnet import Convolution, ResNet
from objectives.networks.surgery import GAIN, drop_block, insert_block, reindex, resize_stem
from objectives.networks.trainee import Trainee
from objectives.strategies.ema import SHADOW
from objectives.strategies.methods import widening
from tests.objectives.networks.test_surgery import (
    NEW,
    assert_close,
    assert_equal,
    averaged,
    block,
    enlarged,
    everything,
    gradients,
    identity,
    images,
    outputs,
    repeats,
    step,
    subset,
    trainee_of,
)
from tests.objectives.strategies.cases import killed

KINDS: tuple[NormKind, ...] = ("weight", "mean_only", "none")
OF_WEIGHTS = KINDS[:2]
SHAPES = (
    Architecture(3, 4, (Stage(5, (6, 4)), Stage(7, (3, 0, 4)))),
    Architecture(1, 3, (Stage(4, (3,)), Stage(6, (0, 2))), transition="pool", stem="haar"),
)
CASES = [(replace(shape, norm=kind), seed) for shape in SHAPES for kind in KINDS for seed in (1, 2)]
each_case = pytest.mark.parametrize(("architecture", "seed"), CASES, ids=lambda c: getattr(c, "norm", c))


def assert_same_function(new: Trainee, old: Trainee) -> None:
    """Of the network in training and in evaluation, and of its averages."""
    x, _ = images(old.model.architecture, 7)
    assert_close(outputs(new.model, x), outputs(old.model, x))
    assert_close(outputs(averaged(new), x), outputs(averaged(old), x))


@each_case
def test_all_channels_in_order_are_the_identity_bit_for_bit(architecture: Architecture, seed: int) -> None:
    old = trainee_of(architecture, seed)
    for index in (identity(old), {}):
        assert_equal(everything(reindex(old, index)), everything(old))


@each_case
def test_widening_preserves_the_function_and_that_of_the_averages(architecture: Architecture, seed: int) -> None:
    old = trainee_of(architecture, seed)
    wide = reindex(old, repeats(old))
    for new in (wide, reindex(wide, repeats(wide))):
        assert_same_function(new, old)


@each_case
def test_carried_gradients_are_those_of_the_widened_network(architecture: Architecture, seed: int) -> None:
    """Their squares too, but for directions, whose gradients turn with them."""
    old = trainee_of(architecture, seed)
    x, y = images(architecture)
    for parameter, gradient in gradients(old, x, y).items():
        square = gradient.square()
        old.optimizer.state[parameter] = {"momentum_buffer": gradient, "exp_avg": gradient, "exp_avg_sq": square}
    wide = reindex(old, repeats(old))
    for new in (wide, reindex(wide, repeats(wide))):
        turned = {weight for weight, _ in gains.pairs(new.model)}
        names = {parameter: name for name, parameter in new.model.named_parameters()}
        for parameter, gradient in gradients(new, x, y).items():
            state = new.optimizer.state[parameter]
            torch.testing.assert_close(state["momentum_buffer"], gradient, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(state["exp_avg"], gradient, rtol=1e-9, atol=1e-12)
            if names[parameter] not in turned:
                torch.testing.assert_close(state["exp_avg_sq"], gradient.square(), rtol=1e-9, atol=1e-12)


@each_case
def test_new_channels_change_nothing_and_begin_with_their_own_length(architecture: Architecture, seed: int) -> None:
    old = trainee_of(architecture, seed)
    index = enlarged(old)
    new = reindex(old, index)
    assert_same_function(new, old)
    labels = new.model.axes()
    for weight, gain in gains.pairs(new.model):
        if (axis := labels[weight][0]) in index:
            is_new = index[axis] == NEW  # type: ignore[index]
            for tensors in (dict(new.model.named_parameters()), new.shadows[SHADOW].tensors):
                torch.testing.assert_close(tensors[gain][is_new].detach(), gains.lengths(tensors[weight])[is_new])
    assert all(tensor.isfinite().all() for tensor in everything(step(new, *images(architecture))).values())


@each_case
def test_pruning_dead_channels_commutes_with_a_step(architecture: Architecture, seed: int) -> None:
    """Dead at both ends and without momentum: a filter is as long as all that it reads, and what comes alive counts."""
    old = trainee_of(architecture, seed)
    keep = subset(old)
    killed(old, keep)
    x, y = images(architecture)
    pruned_first = step(reindex(old, keep), x, y)
    assert_same_function(reindex(old, keep), old)
    assert_close(everything(pruned_first), everything(reindex(step(old, x, y), keep)))


@pytest.mark.parametrize("kind", OF_WEIGHTS)
def test_copies_that_are_read_with_different_weights_preserve_the_function(kind: NormKind) -> None:
    old = trainee_of(replace(SHAPES[0], norm=kind), 3)
    index = {axis: torch.cat([torch.arange(n), torch.arange(n)]) for axis, n in SHAPES[0].axis_sizes().items()}
    new = reindex(old, index)
    before = new.model.get_parameter("stages.0.0.conv2.weight").clone()
    widening.part_(new, index)
    assert not torch.allclose(new.model.get_parameter("stages.0.0.conv2.weight"), before)
    assert_same_function(new, old)


# --- blocks and stems -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stage", "position"), [(0, 0), (0, 2), (1, 2)])
def test_an_inserted_block_is_the_identity_and_learns(kind: NormKind, stage: int, position: int) -> None:
    old = trainee_of(replace(SHAPES[0], norm=kind), 4)
    new, (x, y) = insert_block(old, stage, position, 6), images(SHAPES[0])
    assert_equal(outputs(new.model, x), outputs(old.model, x))
    assert_equal(outputs(averaged(new), x), outputs(averaged(old), x))
    inserted = block(new, stage, position)
    assert not inserted.last_scale.any()
    if kind != "none":
        torch.testing.assert_close(inserted.conv1.filters, inserted.conv1.weight)
    step(new, x, y)
    assert inserted.last_scale.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [(0, 1), (1, 0), (1, 2)])
@pytest.mark.parametrize("dead", ["conv1", "conv2"])
def test_a_dead_branch_leaves_its_constant_behind(kind: NormKind, at: tuple[int, int], dead: str) -> None:
    """Of the first convolution that is dead the last one makes a constant, which a mean-only batch norm takes away.

    Seen away from the border, whose padding draws a pattern.
    """
    stage, position = at
    old = trainee_of(replace(SHAPES[0], norm=kind), 5)
    for tensors in (old.model.state_dict(), old.shadows[SHADOW].tensors):
        for name, tensor in tensors.items():
            if name.startswith((f"stages.{stage}.{position}.{dead}", f"stages.{stage}.{position}.bn2.running_mean")):
                tensor.zero_()
        tensors[f"stages.{stage}.{position}.bn1.bias"].fill_(3.0)  # the constant is large
    new = drop_block(old, stage, position)
    x = torch.rand(3, block(old, stage, position).conv1.in_channels, 9, 9).double()
    is_training = kind == "mean_only" and dead == "conv1"  # only then does the mean follow what is dead
    for after, before in ((new.model, old.model), (averaged(new), averaged(old))):
        found, expected = (m.train(is_training).stages[stage][position](x) for m in (after, before))
        inside = (..., slice(1, -1), slice(1, -1))
        tolerance = {"rtol": 1e-10, "atol": 1e-10}
        if is_training:  # the border is in the mean
            tolerance = {"rtol": 0.0, "atol": 0.5}
        torch.testing.assert_close(found[inside], expected[inside], **tolerance)


@pytest.mark.parametrize("kind", OF_WEIGHTS)
def test_a_resampled_stem_has_the_filters_that_it_would_have_without_normalisation(kind: NormKind) -> None:
    old = trainee_of(replace(SHAPES[0], norm=kind), 6)
    plain = trainee_of(SHAPES[0], 6)
    tensors, stem = dict(old.model.named_parameters()), old.model.convolutions()[0]
    plain.model.get_parameter(STEM).data.copy_(stem.filters)
    averages = old.shadows[SHADOW].tensors
    plain.shadows[SHADOW].tensors[STEM].copy_(_filters(averages))
    new, expected = resize_stem(old, 5), resize_stem(plain, 5)
    torch.testing.assert_close(new.model.convolutions()[0].filters, expected.model.get_parameter(STEM))
    torch.testing.assert_close(_filters(new.shadows[SHADOW].tensors), expected.shadows[SHADOW].tensors[STEM])
    assert tensors[GAIN].shape == new.model.get_parameter(GAIN).shape


def _filters(tensors: object) -> Tensor:
    """Of the stem, by the tensors of an average."""
    from objectives.networks.norms.slots import normalised

    assert isinstance(tensors, dict)
    return normalised(tensors[STEM], tensors[GAIN])


# --- folding ----------------------------------------------------------------------------------------------------------


@each_case
def test_a_folded_network_computes_the_same_in_evaluation(architecture: Architecture, seed: int) -> None:
    model = trainee_of(architecture, seed).model
    x, _ = images(architecture, 7)
    made = gains.folded(model)
    assert made.training == model.training
    torch.testing.assert_close(made.eval()(x), model.eval()(x), rtol=1e-12, atol=1e-12)
    if architecture.norm == "none":
        assert made is model
        return
    assert made.architecture == replace(architecture, norm="none")
    assert not any(re.search(r"gain|running", name) for name in made.state_dict())
    assert isinstance(made, ResNet)
    assert all(layer.gain is None for layer in made.modules() if isinstance(layer, Convolution))
