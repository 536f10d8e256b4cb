"""The flat form of the group lasso does what the form per layer does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.networks.architecture import Architecture, Stage
from objectives.networks.resnet import ResNet
from objectives.strategies.methods import lasso
from objectives.strategies.methods.flat_lasso import FlatGroups

ARCHITECTURES = {
    "blocks": Architecture(3, 4, (Stage(5, (6, 4)), Stage(7, (3, 0, 4)))),
    "grey, only a stem": Architecture(1, 3, (Stage(4, ()),)),
    "pooled": Architecture(1, 3, (Stage(4, (2,)), Stage(5, (0, 3))), stem="haar", transition="pool"),
}
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())


def twins(architecture: Architecture, *, frozen: bool) -> tuple[ResNet, ResNet]:
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model = ResNet(architecture).double()
        model.stem[0].weight.requires_grad_(not frozen)
        models.append(model)
    return models[0], models[1]


@each_architecture
@pytest.mark.parametrize("frozen", [False, True])
@given(amount=st.floats(0, 2), seed=st.integers(0, 99))
def test_the_proximal_step_is_that_of_the_form_per_layer(
    architecture: Architecture, frozen: bool, amount: float, seed: int
) -> None:
    layered, flat = twins(architecture, frozen=frozen)
    torch.manual_seed(seed)
    exempt = {axis: torch.rand(size) < 0.3 for axis, size in architecture.axis_sizes().items()}
    lasso.shrink_(layered, torch.tensor(amount, dtype=torch.float64), exempt)
    FlatGroups(flat, exempt).shrink_(torch.tensor(amount, dtype=torch.float64))
    for (name, one), other in zip(layered.named_parameters(), flat.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12, msg=name)


@each_architecture
@pytest.mark.parametrize("frozen", [False, True])
def test_value_and_gradient_are_those_of_the_form_per_layer(architecture: Architecture, frozen: bool) -> None:
    layered, flat = twins(architecture, frozen=frozen)
    exempt = {"stage0": torch.arange(architecture.stages[0].width) == 1}
    expected, found = lasso.penalty(layered, 0.3, exempt), FlatGroups(flat, exempt).penalty(0.3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for penalty in (expected, found):
        penalty.backward()
    for (name, one), other in zip(layered.named_parameters(), flat.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-10, atol=1e-12, msg=name)
