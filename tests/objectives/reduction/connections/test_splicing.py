"""Laws of dynamic network surgery: what is pruned lives on, and may come back."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from objectives.reduction.connections.masks import Fixed, MaskedTraining, accuracy
from objectives.reduction.connections.saliency import connections
from objectives.reduction.connections.splicing import Spliced, Surgery, operated
from objectives.task import Seeds
from tests.objectives.reduction.trained import PIPELINE, trained


@pytest.fixture(scope="module")
def training() -> MaskedTraining:
    return MaskedTraining(trained()[1], PIPELINE, epochs=2, lr=1.0, seeds=Seeds(1, 2, 3))


def step(spliced: Spliced, model: torch.nn.Module, values: list[float]) -> list[float]:
    """What a network of five weights computes with after an optimizer step that made these of the whole ones."""
    spliced.before_step(model)
    with torch.no_grad():
        model.get_parameter("weight").copy_(torch.tensor([values]))
    spliced.after_step(model)
    return [round(value, 3) for value in model.get_parameter("weight").flatten().tolist()]


def test_weights_go_below_nine_tenths_of_the_threshold_and_come_back_above_eleven_tenths() -> None:
    model = torch.nn.Linear(5, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)  # mean 1, deviation 0: the threshold is 1
    spliced = Spliced(model, Surgery(gamma=0.0), seed=0)
    assert step(spliced, model, [0.89, -0.89, 0.95, 1.05, 2.0]) == [0.0, 0.0, 0.95, 1.05, 2.0]
    assert step(spliced, model, [1.05, -1.2, 0.95, 0.5, 2.0]) == [0.0, -1.2, 0.95, 0.0, 2.0]
    assert spliced.n_spliced == 1
    spliced.before_step(model)
    assert model.weight.flatten().tolist() == pytest.approx([1.05, -1.2, 0.95, 0.5, 2.0])  # all of them live on


def test_masks_change_ever_more_seldom_and_at_last_no_more() -> None:
    model = torch.nn.Linear(5, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
    changes = []
    spliced = Spliced(model, Surgery(gamma=0.01, stop=900), seed=0)
    for number in range(1200):
        values = [0.5 if number % 2 else 1.5] * 5
        before = spliced.masks["weight"].clone()
        step(spliced, model, values)
        changes.append(not before.equal(spliced.masks["weight"]))
    assert 100 > sum(changes[:300]) > 3 * sum(changes[600:900]) > 0
    assert not any(changes[900:])


def test_connections_come_back_while_a_network_trains_and_the_masked_ones_are_0(training: MaskedTraining) -> None:
    model, dataset = trained()
    made = deepcopy(model)
    spliced = Spliced(made, Surgery(c=0.0), seed=1)
    training.train_(made, spliced)
    assert spliced.n_spliced > 0
    assert list(spliced.masks) == list(connections(model))
    assert all((made.get_parameter(name)[mask == 0] == 0).all() for name, mask in spliced.masks.items())
    share = [float((mask == 0).double().mean()) for mask in spliced.masks.values()]
    assert all(0.2 < each < 0.9 for each in share)
    assert accuracy(made, dataset) > 0.6


def test_surgery_of_no_threshold_is_the_ordinary_training(training: MaskedTraining) -> None:
    model, _ = trained()
    plain, made = deepcopy(model), deepcopy(model)
    training.train_(plain, Fixed({}))
    training.train_(made, Spliced(made, Surgery(c=-1e9), seed=1))
    assert all(tensor.equal(made.state_dict()[name]) for name, tensor in plain.state_dict().items())


def test_an_operation_is_the_same_under_a_seed_and_leaves_the_network_as_it_was(training: MaskedTraining) -> None:
    model, dataset = trained()
    before, layers = deepcopy(model.state_dict()), list(connections(model))[1:3]
    one, same = (operated(model, Surgery(c=0.5, gamma=0.1), training, layers) for _ in range(2))
    other = operated(model, Surgery(c=0.5, gamma=0.1), replace(training, seeds=Seeds(7, 2, 3)), layers)
    assert list(one.masks) == layers
    assert all(one.masks[name].equal(same.masks[name]) for name in layers)
    assert any(not one.masks[name].equal(other.masks[name]) for name in layers)
    assert one.accuracy == same.accuracy == accuracy(one.model, dataset)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("values", "rule"),
    [({"prune_at": 1.2}, "the first is the smaller"), ({"gamma": -1.0}, "must not be negative")],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Surgery(**values)  # type: ignore[arg-type]
