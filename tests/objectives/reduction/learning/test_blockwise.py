"""Laws of block-wise retraining: the parts around a cut learn what they did, and no other tensor moves."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from objectives.data.dataset import Dataset
from objectives.device.clock import Clock
from objectives.export import ExportedModel
from objectives.reduction.attempts import cut
from objectives.reduction.learning.blockwise import around, taught
from objectives.reduction.settings import Reduction
from objectives.reduction.terms import Terms
from objectives.task import Seeds
from tests.objectives.reduction.networks import NETWORKS, images, network

SETTINGS = Reduction(retraining="blocks", epochs=2, criterion="random")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_of_a_network_are_the_network(name: str) -> None:
    model, (x, _) = network(NETWORKS[name]), images(NETWORKS[name])
    out = x
    for _, compute in model.parts():
        out = compute(out)
    assert torch.equal(out, model(x))
    holders = [part for part, _ in model.parts()]
    for parameter, _ in model.named_parameters():
        assert sum(parameter.startswith(f"{holder}.") for holder in holders) == 1


def test_around_a_cut_lies_all_that_produces_or_reads_the_axis() -> None:
    model = network(NETWORKS["stages"])  # stem, 0.0, 0.1, 1.0, 1.1, head
    assert around(model, "stage0.block1") == range(2, 3)
    assert around(model, "stage0") == range(4)
    assert around(model, "stage1") == range(3, 6)
    plain = network(NETWORKS["convolutions"])  # conv1, conv2, dense1, head
    assert [around(plain, axis) for axis in ("conv1", "conv2", "dense1")] == [range(2), range(1, 3), range(2, 4)]
    assert around(network(NETWORKS["dense"]), "inputs") == range(1)


@pytest.mark.parametrize("axis", ["stage0", "stage0.block0", "stage1", "stage1.block0"])
def test_the_parts_around_a_cut_come_nearer_to_what_they_did_and_the_rest_stays(
    base: ExportedModel, digits: Dataset, axis: str
) -> None:
    terms = Terms.of(base, digits, SETTINGS)
    before = terms.trainable(base.network)
    smaller = cut(before, axis, before.architecture.axis_sizes()[axis] - 2, terms, seed=0)
    model = taught(deepcopy(smaller), before, axis, terms, Seeds(1, 2, 3), Clock(terms.device))
    assert not model.training
    x = terms.normalise(digits.val.x)
    places = around(before, axis)

    def put_out(network: torch.nn.Module) -> torch.Tensor:
        out = x
        for _, compute in network.parts()[: places.stop]:
            out = compute(out)
        return out.detach()

    target = put_out(before)
    assert (put_out(model) - target).norm() < 0.9 * (put_out(smaller) - target).norm()
    trained = [name for name, _ in model.parts()[places.start : places.stop]]
    for name, tensor in smaller.state_dict().items():
        moves = any(name.startswith(f"{part}.") for part in trained)
        assert moves or torch.equal(tensor, model.state_dict()[name])
