"""Laws of the group lasso: its groups, its value and gradient, its proximal step, and what counts as dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from objectives.networks.architecture import Architecture, Stage
from objectives.networks.resnet import ResNet
from objectives.strategies.methods import lasso
from tests.objectives.networks.test_resnet import architectures

seeds = st.integers(0, 10_000)
few = settings(max_examples=20)


def network(architecture: Architecture, seed: int) -> ResNet:
    """In double precision, with random weights; some groups have died, among them groups of every kind."""
    torch.manual_seed(seed)
    model = ResNet(architecture).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        for weight, dim, _ in groups(model):
            dead = (torch.rand(weight.shape[dim]) < 0.1).nonzero().flatten()
            weight.index_fill_(dim, dead, 0.0)
    return model


def groups(model: ResNet) -> Iterator[tuple[Tensor, int, str]]:
    """(weight, dimension, axis) of every kind of group, written out: convolutions both ways, the head one way."""
    named, axes = dict(model.named_parameters()), model.axes()
    for name in [n for n in named if named[n].dim() > 1]:
        for dim in (0, 1):
            axis = axes[name][dim]
            image_or_class = (name, dim) in [("stem.0.weight", 1), ("head.weight", 0), ("head.expand.weight", 0)]
            assert image_or_class == (axis is None)
            if axis is not None:
                yield named[name], dim, axis


def some_exempt(model: ResNet, seed: int) -> dict[str, Tensor]:
    """Random channels of about half of the axes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = model.architecture.axis_sizes()
    masks = {axis: torch.rand(n, generator=generator) < 0.4 for axis, n in sizes.items()}
    return {axis: mask for axis, mask in masks.items() if torch.rand((), generator=generator) < 0.5}


def formula(model: ResNet, exempt: Mapping[str, Tensor]) -> Tensor:
    """The sum of the smoothed norms of all groups that are not exempt, one by one."""
    total = torch.zeros((), dtype=torch.float64)
    for weight, dim, axis in groups(model):
        for channel in range(weight.shape[dim]):
            if not (axis in exempt and exempt[axis][channel]):
                total = total + (weight.select(dim, channel).square().sum() + 1e-8).sqrt()
    return total


# --- groups -----------------------------------------------------------------------------------------------------------


@few
@given(architectures, seeds)
def test_groups_are_the_channels_of_convolutions_and_the_inputs_of_the_head(
    architecture: Architecture, seed: int
) -> None:
    """The images' channels, the classes, batch norms and biases are in none."""
    model = network(architecture, seed)
    found = [
        (id(g.weight), dim, axis)
        for g in lasso.grouped(model)
        for dim, axis in ((0, g.out_axis), (1, g.in_axis))
        if axis is not None
    ]
    assert sorted(found) == sorted((id(weight), dim, axis) for weight, dim, axis in groups(model))
    grouped = {g.name for g in lasso.grouped(model)}
    assert {name for name, p in model.named_parameters() if p.dim() == 1}.isdisjoint(grouped)


# --- the penalty ------------------------------------------------------------------------------------------------------


@few
@given(architectures, seeds)
def test_the_value_is_the_sum_of_the_norms_of_all_groups(architecture: Architecture, seed: int) -> None:
    model = network(architecture, seed)
    torch.testing.assert_close(lasso.value(model), formula(model, {}).detach(), rtol=1e-12, atol=0)
    assert not lasso.value(model).requires_grad


@few
@given(architectures, seeds, st.booleans())
def test_the_penalty_and_its_gradient_are_those_of_the_formula(
    architecture: Architecture, seed: int, exempts: bool
) -> None:
    model = network(architecture, seed)
    exempt = some_exempt(model, seed) if exempts else {}
    found, expected = lasso.penalty(model, 0.3, exempt), 0.3 * formula(model, exempt)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assume(expected.requires_grad)
    parameters = dict(model.named_parameters())
    # of a function of the penalty, as loss scaling makes it
    left = torch.autograd.grad(512 * found.square(), list(parameters.values()), allow_unused=True)
    right = torch.autograd.grad(512 * expected.square(), list(parameters.values()), allow_unused=True)
    for name, ours, theirs in zip(parameters, left, right, strict=True):
        theirs = torch.zeros_like(parameters[name]) if theirs is None else theirs
        assert (ours is None) == (parameters[name].dim() == 1), name
        torch.testing.assert_close(torch.zeros_like(theirs) if ours is None else ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_group_of_zeros_has_no_gradient() -> None:
    model = ResNet(Architecture(1, 2, (Stage(3, (2,)),))).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    lasso.penalty(model, 1.0, {}).backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


@given(st.floats(0.01, 0.99), st.floats(1e-3, 10), st.floats(1e-3, 1e5))
def test_at_its_strength_the_penalty_is_the_ratio_of_the_whole_loss(ratio: float, loss: float, penalty: float) -> None:
    share = lasso.strength(ratio, loss, penalty) * penalty
    assert share / (loss + share) == pytest.approx(ratio)


# --- the proximal step ------------------------------------------------------------------------------------------------


def shrunk(model: ResNet, amount: float, exempt: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every weight after W_g *= max(0, 1 - amount / ||W_g||), rows and then columns, group by group."""
    after = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for weight, dim, axis in groups(model):  # of each weight dim 0 comes first
        for channel in range(weight.shape[dim]):
            group = after[names[id(weight)]].select(dim, channel)
            norm = float(group.norm())
            if norm > 0 and not (axis in exempt and exempt[axis][channel]):
                group.mul_(max(0.0, 1 - amount / norm))
    return after


@few
@given(architectures, seeds, st.sampled_from([0.0, 0.1, 1.0, 3.0, 100.0]), st.booleans())
def test_the_proximal_step_shrinks_rows_and_then_columns_by_the_amount(
    architecture: Architecture, seed: int, amount: float, exempts: bool
) -> None:
    model = network(architecture, seed)
    exempt = some_exempt(model, seed) if exempts else {}
    expected = shrunk(model, amount, exempt)
    lasso.shrink_(model, torch.tensor(amount, dtype=torch.float64), exempt)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12)
        if parameter.dim() > 1:  # zeros are exact: they are what makes a channel dead
            assert torch.equal(parameter == 0, expected[name] == 0)


@few
@given(architectures, seeds)
def test_a_proximal_step_of_nothing_changes_no_bit(architecture: Architecture, seed: int) -> None:
    """It is how a skipped step leaves the weights alone."""
    model = network(architecture, seed).float()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lasso.shrink_(model, torch.zeros(()), {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@few
@given(architectures, seeds)
def test_frozen_weights_are_neither_penalised_nor_shrunk(architecture: Architecture, seed: int) -> None:
    model = network(architecture, seed)
    penalty = float(lasso.penalty(model, 1.0, {}).detach())
    frozen = model.stem[0].weight.requires_grad_(False)
    before, norms = frozen.clone(), [(row.square().sum() + 1e-8).sqrt() for row in frozen]
    assert float(lasso.penalty(model, 1.0, {}).detach()) == pytest.approx(penalty - float(sum(norms)), rel=1e-9)
    lasso.shrink_(model, torch.ones((), dtype=torch.float64), {})
    assert torch.equal(frozen, before)


# --- what is dead -----------------------------------------------------------------------------------------------------


@few
@given(architectures, seeds, st.sampled_from([1e-12, 0.5, 2.0, 100.0]))
def test_a_channel_is_dense_where_any_of_its_groups_has_a_weight_of_the_threshold(
    architecture: Architecture, seed: int, threshold: float
) -> None:
    model = network(architecture, seed)
    expected = {axis: [False] * n for axis, n in architecture.axis_sizes().items()}
    for weight, dim, axis in groups(model):
        for channel in range(weight.shape[dim]):
            expected[axis][channel] |= any(abs(w) >= threshold for w in weight.select(dim, channel).flatten().tolist())
    assert {axis: mask.tolist() for axis, mask in lasso.dense_channels(model, threshold).items()} == expected


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_magnitudes_are_compared_with_the_threshold(sign: float) -> None:
    """The published code compares signed weights, so that a channel of negative ones is dead."""
    model = ResNet(Architecture(1, 2, (Stage(1, (3,)),)))
    with torch.no_grad():
        for name, dim in (("stages.0.0.conv1.weight", 0), ("stages.0.0.conv2.weight", 1)):
            for channel, size in enumerate((0.9e-3, 1e-3, 1.1e-3)):
                model.get_parameter(name).select(dim, channel).fill_(sign * size)
    assert lasso.dense_channels(model, 1e-3)["stage0.block0"].tolist() == [False, True, True]
