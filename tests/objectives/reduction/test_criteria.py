"""Laws of criteria: they are what their formulas say, channel by channel and image by image, and cuts are masks."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.networks import surgery
from objectives.networks.network import Network, build
from objectives.networks.trainee import Trainee
from objectives.reduction import merging
from objectives.reduction.criteria import kept, scores
from objectives.reduction.settings import CriterionName
from tests.objectives.reduction.networks import NETWORKS, images, network

EACH = pytest.mark.parametrize("name", NETWORKS)


def reads(model: Network, axis: str, x: Tensor) -> list[Tensor]:
    """What each layer that reads an axis is given."""
    found: list[Tensor] = []
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
        for name in merging.readers(model, axis)
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return found


def without(model: Network, axis: str, channels: list[int], share: float = 0.0) -> Network:
    """The network in which nobody reads these channels of an axis; with `share`, so much of them."""
    masked = build(model.architecture).double().eval()
    masked.load_state_dict(model.state_dict())
    with torch.no_grad():
        for weight in merging.reading(masked, axis):
            weight[channels] *= share
    return masked


@EACH
def test_taylor_is_the_change_of_the_loss_of_each_image_when_a_channel_begins_to_go(name: str) -> None:
    model = network(NETWORKS[name])
    x, y = images(NETWORKS[name])
    step = 1e-6
    found = scores(model, list(NETWORKS[name].axis_sizes()), [(x[:4], y[:4]), (x[4:], y[4:])], "taylor")
    for axis, n in NETWORKS[name].axis_sizes().items():
        expected = torch.zeros(n, dtype=torch.float64)
        for channel in range(n):
            losses = [
                F.cross_entropy(without(model, axis, [channel], 1 + sign * step)(x), y, reduction="none")
                for sign in (1, -1)
            ]
            expected[channel] = ((losses[0] - losses[1]) / (2 * step)).detach().abs().mean()
        torch.testing.assert_close(found[axis], expected / expected.norm(), rtol=1e-5, atol=1e-7)


@EACH
def test_criteria_of_activations_agree_with_a_naive_loop(name: str) -> None:
    model, axes = network(NETWORKS[name]), NETWORKS[name].axis_sizes()
    x, y = images(NETWORKS[name])
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    for criterion in ("activation", "taylor_sum"):
        found = scores(model, list(axes), batches, criterion)
        for axis, n in axes.items():
            expected = torch.zeros(n, dtype=torch.float64)
            for image, label in zip(x, y, strict=True):
                values = reads(model, axis, image[None])
                gradients = [torch.zeros_like(value) for value in values]
                if criterion == "taylor_sum":
                    gradients = gradients_of_reads(model, axis, image[None], label[None])
                for value, gradient in zip(values, gradients, strict=True):
                    for channel in range(n):
                        h = value[0].reshape(n, -1)[channel]
                        g = gradient[0].reshape(n, -1)[channel]
                        terms = [abs(float(a * b)) for a, b in zip(h, g, strict=True)]
                        means = [abs(float(a)) / len(h) for a in h]
                        expected[channel] += sum(terms if criterion == "taylor_sum" else means)
            torch.testing.assert_close(found[axis], expected)


def gradients_of_reads(model: Network, axis: str, x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradient of the loss to what each reader of an axis is given, by that reader alone: one pass for each."""
    found = []
    for name in merging.readers(model, axis):
        given: list[Tensor] = []

        def replaced(_: object, inputs: tuple[Tensor, ...], given: list[Tensor] = given) -> Tensor:
            given.append(inputs[0].detach().clone().requires_grad_())
            return given[0]

        handle = model.get_submodule(name).register_forward_pre_hook(replaced)
        F.cross_entropy(model(x), y).backward()
        handle.remove()
        assert given[0].grad is not None
        found.append(given[0].grad)
    return found


@EACH
def test_criteria_of_weights_are_sums_over_all_who_produce_or_read_a_channel(name: str) -> None:
    model, axes = network(NETWORKS[name]), NETWORKS[name].axis_sizes()
    own, read = ({axis: torch.zeros(n, dtype=torch.float64) for axis, n in axes.items()} for _ in range(2))
    for tensor, ends in ((dict(model.state_dict())[key], ends) for key, ends in model.axes().items()):
        if tensor.dim() < 2:
            continue
        for sums, dim in ((own, 0), (read, 1)):
            if ends[dim] is not None:
                for channel in range(tensor.shape[dim]):
                    sums[ends[dim]][channel] += tensor.select(dim, channel).abs().sum()
    if "inputs" in own:
        own["inputs"] = read["inputs"]  # nobody produces them
    expected = {
        "l1_own": own,
        "l1_next": read,
        "l1_both": {axis: own[axis] * (axis != "inputs") + read[axis] for axis in axes},
    }
    for criterion, each in expected.items():
        found = scores(model, list(axes), (), criterion)
        for axis in axes:
            torch.testing.assert_close(found[axis], each[axis])


@pytest.mark.parametrize("criterion", get_args(CriterionName))
def test_judging_leaves_the_network_as_it_was(criterion: CriterionName) -> None:
    model = network(NETWORKS["stages"]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, y = images(NETWORKS["stages"])
    for axis, found in scores(model, list(NETWORKS["stages"].axis_sizes()), [(x, y)], criterion, seed=3).items():
        assert found.shape == (NETWORKS["stages"].axis_sizes()[axis],)
        assert found.dtype == torch.float64
        assert not found.requires_grad
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_random_follows_its_seed_alone() -> None:
    model, axes = network(NETWORKS["stages"]), list(NETWORKS["stages"].axis_sizes())
    one, two, other = (scores(model, axes, (), "random", seed)["stage0"] for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_channels_worth_most_are_kept_in_their_order_and_of_equals_the_first() -> None:
    assert kept(torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0]), 3).tolist() == [0, 2, 4]
    assert kept(torch.tensor([1.0, 2.0, 1.0, 1.0]), 3).tolist() == [0, 1, 2]


@EACH
def test_a_reduced_network_is_the_masked_one_whatever_axes_are_cut(name: str) -> None:
    model, sizes = network(NETWORKS[name]), NETWORKS[name].axis_sizes()
    x, _ = images(NETWORKS[name])
    generator = torch.Generator().manual_seed(2)
    for _ in range(8):
        axes = [axis for axis in sizes if torch.rand((), generator=generator) < 0.6] or list(sizes)[:1]
        index, masked = {}, model
        for axis in axes:
            n = int(torch.randint(1, sizes[axis] + 1, (), generator=generator))
            index[axis] = torch.randperm(sizes[axis], generator=generator)[:n].sort().values
            masked = without(masked, axis, [c for c in range(sizes[axis]) if c not in index[axis].tolist()])
        trainee = Trainee(model, torch.optim.SGD(model.parameters(), lr=0.1), {}, {})
        reduced = surgery.reindex(trainee, index).model
        torch.testing.assert_close(reduced(x), masked(x), rtol=1e-10, atol=1e-12)
