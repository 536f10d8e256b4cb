"""Laws of saliencies: they are what their formulas say, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from objectives.reduction.connections.masks import examples
from objectives.reduction.connections.saliency import (
    SaliencyName,
    connections,
    fisher_diagonal,
    hessian_diagonal,
    saliencies,
    signs,
)
from tests.objectives.reduction.trained import trained


@pytest.fixture
def tiny() -> tuple[nn.Module, Tensor, Tensor]:
    """A network of eight connections, in double precision, and six examples."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    return model, torch.randn(6, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])


def exact_diagonal(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Second derivatives of the mean loss, weight by weight."""
    weights = connections(model)
    found = {}
    for name, weight in weights.items():

        def loss(values: Tensor, name: str = name) -> Tensor:
            return F.cross_entropy(functional_call(model, {name: values}, (x,)), y)

        n = weight.numel()
        hessian = torch.autograd.functional.hessian(loss, weight.detach())
        found[name] = hessian.reshape(n, n).diagonal().view_as(weight)
    return found


def every_sign(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    weights = connections(model)
    sizes = [weight.numel() for weight in weights.values()]
    for chosen in product((-1.0, 1.0), repeat=sum(sizes)):
        parts = torch.tensor(chosen, dtype=torch.float64).split(sizes)
        yield {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def test_over_all_probes_hutchinsons_signed_diagonal_is_that_of_exact_second_derivatives(
    tiny: tuple[nn.Module, Tensor, Tensor],
) -> None:
    exact = exact_diagonal(*tiny)
    assert min(float(each.min()) for each in exact.values()) < 0, "a diagonal without a sign would do"
    found = hessian_diagonal(*tiny, every_sign(tiny[0]))
    for name in exact:
        torch.testing.assert_close(found[name], exact[name])


def test_with_more_probes_it_comes_nearer(tiny: tuple[nn.Module, Tensor, Tensor]) -> None:
    exact = exact_diagonal(*tiny)
    errors = []
    for n in (4, 64, 1024):
        found = hessian_diagonal(*tiny, signs(connections(tiny[0]), n, seed=1))
        errors.append(sum(float((found[name] - exact[name]).square().sum()) for name in exact) ** 0.5)
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2]


def test_images_in_parts_have_the_same_second_derivatives(
    tiny: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hessian_diagonal(*tiny, signs(connections(tiny[0]), 3, seed=1))
    monkeypatch.setattr("objectives.reduction.connections.saliency.AT_ONCE", 4)
    parts = hessian_diagonal(*tiny, signs(connections(tiny[0]), 3, seed=1))
    for name, each in whole.items():
        torch.testing.assert_close(parts[name], each)


def test_fishers_diagonal_is_the_exact_one_where_labels_are_those_that_the_network_draws() -> None:
    model = nn.Linear(3, 4).double()
    with torch.no_grad():  # every class is as likely as the others, and each image has all of them
        model.weight.copy_(torch.randn(3, dtype=torch.float64).expand(4, 3))
        model.bias.zero_()
    x, y = torch.randn(5, 3, dtype=torch.float64).repeat_interleave(4, 0), torch.arange(4).repeat(5)
    torch.testing.assert_close(fisher_diagonal(model, x, y)["weight"], exact_diagonal(model, x, y)["weight"])


def test_they_are_what_a_naive_loop_over_images_and_weights_gives(tiny: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = tiny
    taylor, fisher = saliencies(model, "taylor", x, y), saliencies(model, "obd_fisher", x, y)
    exact = exact_diagonal(model, x, y)
    hutchinson = hessian_diagonal(model, x, y, signs(connections(model), 9, seed=5))
    obd = saliencies(model, "obd_hutchinson", x, y, seed=5, probes=9)
    assert min(float(each.min()) for each in hutchinson.values()) < 0, "what is worth something by its size alone"
    for name, weight in connections(model).items():
        for place in product(*map(range, weight.shape)):
            first, second, w = [], [], weight.detach()[place]
            for number in range(len(y)):
                model.zero_grad()
                F.cross_entropy(model(x[number : number + 1]), y[number : number + 1]).backward()
                slope = weight.grad[place]  # type: ignore[index]
                first.append(abs(slope * w))
                second.append(slope**2)
            torch.testing.assert_close(taylor[name][place], sum(first) / len(y))
            torch.testing.assert_close(fisher[name][place], sum(second) / len(y) * w**2 / 2)
            torch.testing.assert_close(obd[name][place], abs(hutchinson[name][place]) * w**2 / 2)
        assert saliencies(model, "magnitude", x, y)[name].equal(weight.detach().abs())
        assert exact[name].shape == weight.shape


@pytest.mark.parametrize("name", get_args(SaliencyName))
def test_saliencies_are_the_same_under_a_seed_and_leave_a_network_as_it_is(name: SaliencyName) -> None:
    model, dataset = trained()
    model = deepcopy(model).train()
    before = deepcopy(model.state_dict())
    x, y = examples(dataset, 40, seed=0)
    found = saliencies(model, name, x, y, seed=1, probes=3)
    again = saliencies(model, name, x, y, seed=1, probes=3)
    other = saliencies(model, name, x, y, seed=2, probes=3)
    assert list(found) == list(connections(model))
    assert all(found[key].equal(again[key]) and found[key].shape == connections(model)[key].shape for key in found)
    assert any(not found[key].equal(other[key]) for key in found) == (name in ("random", "obd_hutchinson"))
    assert model.training
    assert all(tensor.equal(before[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all((each >= 0).all() for each in found.values())


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    model, dataset = trained()
    with pytest.raises(ValueError, match="unknown saliency 'size': choose magnitude, obd_fisher"):
        saliencies(model, "size", *examples(dataset, 2, 0))  # type: ignore[arg-type]
