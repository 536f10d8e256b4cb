"""Laws of merging: what computes the same becomes one and nothing changes; else as little as can be."""

from __future__ import annotations

import pytest
import torch

from objectives.networks import surgery
from objectives.networks.network import Network
from objectives.networks.trainee import Trainee
from objectives.reduction.merging import merge, saliencies
from tests.objectives.reduction.networks import NETWORKS, images, network


def merged(model: Network, axis: str, n: int) -> Network:
    """The network with so many channels on an axis."""
    copy, left = merge(model, axis, n)
    return surgery.reindex(Trainee(copy, torch.optim.SGD(copy.parameters(), lr=0.1), {}, {}), {axis: left}).model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_merge_of_identical_neurons_is_exact(name: str) -> None:
    x, _ = images(NETWORKS[name])
    for axis, n in NETWORKS[name].axis_sizes().items():
        if axis == "inputs":
            continue  # no weights produce them
        model = network(NETWORKS[name])
        labels, twins = model.axes(), {n - 1: 0, n - 2: 0} if n > 2 else {n - 1: 0}
        with torch.no_grad():
            for key, tensor in model.state_dict().items():
                if labels[key][:1] == (axis,):  # what produces it; what reads it stays different
                    for twin, of in twins.items():
                        tensor[twin] = tensor[of]
        assert saliencies(model, axis)[list(twins)].abs().max() == 0
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        small = merged(model, axis, n - len(twins))
        assert small.architecture.axis_sizes()[axis] == n - len(twins)
        torch.testing.assert_close(small(x), model(x), rtol=1e-10, atol=1e-12)
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_neurons_whose_norms_make_them_the_same_are_identical() -> None:
    model = network(NETWORKS["stages"])
    x, _ = images(NETWORKS["stages"])
    block = model.stages[0][0]
    with torch.no_grad():
        block.conv1.weight[1] = 3 * block.conv1.weight[0]
        for name in ("weight", "bias"):
            getattr(block.bn1, name)[1] = getattr(block.bn1, name)[0]
        block.bn1.running_mean[1] = 3 * block.bn1.running_mean[0]
        block.bn1.running_var[1] = 9 * (block.bn1.running_var[0] + block.bn1.eps) - block.bn1.eps
    assert saliencies(model, "stage0.block0")[1] < 1e-20
    torch.testing.assert_close(merged(model, "stage0.block0", 4)(x), model(x), rtol=1e-10, atol=1e-12)


def test_pairs_are_merged_in_the_order_of_a_naive_loop() -> None:
    model, axis = network(NETWORKS["stages"]), "stage0.block1"  # 4 channels, behind a norm
    block = model.stages[0][1]
    scale = (block.bn1.weight / (block.bn1.running_var + block.bn1.eps).sqrt()).detach()
    shift = (block.bn1.bias - scale * block.bn1.running_mean).detach()
    w = [torch.cat([(block.conv1.weight[i] * scale[i]).flatten(), shift[i : i + 1]]).detach() for i in range(4)]
    a = [block.conv2.weight[:, i].detach().clone() for i in range(4)]
    alive = [0, 1, 2, 3]
    for n in (3, 2, 1):
        pairs = [(float((a[j] ** 2).mean() * ((w[i] - w[j]) ** 2).sum()), i, j) for i in alive for j in alive if i != j]
        _, i, j = min(pairs)
        alive.remove(j)
        a[i] += a[j]
        copy, left = merge(model, axis, n)
        assert left.tolist() == alive
        for channel in alive:
            torch.testing.assert_close(copy.stages[0][1].conv2.weight[:, channel], a[channel])
