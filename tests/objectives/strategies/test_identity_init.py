"""The laws of IdentityInit."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from objectives.data.dataset import Dataset
from objectives.networks.resnet import Convolution
from objectives.strategies.identity_init import IdentityInit
from objectives.train import begun, starting_state
from tests.objectives.strategies.cases import SEEDS, TASK, first_batch, using

Family = Literal["small", "fast"]


def convolutions(share: float, family: Family, digits: Dataset) -> list[Convolution]:
    pipeline = using(*[IdentityInit(share)] * (share > 0), width=0.25)
    state = starting_state(pipeline, replace(TASK, family=family), digits, SEEDS)
    return begun(state, *first_batch(digits)).trainee.model.convolutions()


@pytest.mark.parametrize("family", ["small", "fast"])
def test_the_first_outputs_are_the_inputs_and_the_rest_is_as_random_as_before(family: Family, digits: Dataset) -> None:
    torch.manual_seed(0)
    n_identities = 0
    plain = convolutions(0.0, family, digits)
    for number, (layer, before) in enumerate(zip(convolutions(1.0, family, digits), plain, strict=True)):
        if number == 0 or layer.kernel_size == (1, 1):
            assert torch.equal(layer.weight, before.weight)
            continue
        x = torch.randn(2, layer.in_channels, 5, 5)
        n = min(layer.in_channels, layer.out_channels)
        found = F.conv2d(x, layer.weight, padding=1)
        assert torch.equal(found[:, :n], x[:, :n])
        assert torch.equal(layer.weight[n:], before.weight[n:])
        n_identities += 1
    assert n_identities == {"small": 4, "fast": 7}[family]


def test_a_share_lies_between_the_random_start_and_the_identity(digits: Dataset) -> None:
    layers = (convolutions(share, "small", digits) for share in (0.0, 0.25, 1.0))
    for random, quarter, whole in zip(*layers, strict=True):
        torch.testing.assert_close(quarter.weight, 0.75 * random.weight + 0.25 * whole.weight)


def test_it_draws_nothing_and_leaves_the_old_trainee_as_it_was(digits: Dataset) -> None:
    state = starting_state(using(IdentityInit()), TASK, digits, SEEDS)
    layers, random = state.trainee.model.convolutions(), torch.get_rng_state()
    before = [layer.weight.detach().clone() for layer in layers]
    begun(state, *first_batch(digits))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers, before, strict=True))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"identity initialisation is {share!r}: it must lie in \[0, 1\]"):
        IdentityInit(share)
