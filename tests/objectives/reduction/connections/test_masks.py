"""Laws of masks: exactly the share that was asked for goes, and stays away for as long as it should."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from objectives.reduction.connections.masks import (
    Fixed,
    Judge,
    MaskedTraining,
    accuracy,
    examples,
    hold_,
    largest_share,
    masks_of,
    pruned,
    pruned_in_steps,
)
from objectives.reduction.connections.saliency import connections, saliencies
from objectives.task import Seeds
from tests.objectives.reduction.trained import PIPELINE, trained

SHARES = (0.0, 0.01, 0.37, 0.5, 0.999, 1.0)


@pytest.fixture(scope="module")
def training() -> MaskedTraining:
    return MaskedTraining(trained()[1], PIPELINE, seeds=Seeds(1, 2, 3))


@pytest.mark.parametrize("share", SHARES)
def test_masks_prune_exactly_the_share_that_is_asked_for_and_the_least_worth(share: float) -> None:
    model, _ = trained()
    worth = {name: weight.detach().abs() for name, weight in connections(model).items()}
    for name, mask in masks_of(worth, share).items():
        n = mask.numel()
        assert int((mask == 0).sum()) == round(share * n)
        assert int((mask == 1).sum()) == n - round(share * n)
        if 0 < round(share * n) < n:
            assert worth[name][mask == 0].max() <= worth[name][mask == 1].min()
    everywhere = masks_of(worth, share, "global")
    n = sum(mask.numel() for mask in everywhere.values())
    assert sum(int((mask == 0).sum()) for mask in everywhere.values()) == round(share * n)
    assert [mask.shape for mask in everywhere.values()] == [each.shape for each in worth.values()]


def test_of_equals_a_larger_share_prunes_the_same_ones_and_what_is_held_goes_first() -> None:
    worth = {"weight": torch.tensor([[1.0, 1.0, 0.5], [1.0, 0.0, 1.0]])}
    masks = [masks_of(worth, number / 6)["weight"] for number in range(7)]
    assert all((smaller >= larger).all() for smaller, larger in pairwise(masks))
    held = {"weight": torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])}
    assert masks_of(worth, 2 / 6, held=held)["weight"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan")])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="cannot be pruned: choose from 0 to 1"):
        masks_of({"weight": torch.ones(2, 2)}, share)


def test_a_network_is_whole_again_after_it_was_pruned_for_a_while() -> None:
    model, dataset = trained()
    before, masks = deepcopy(model.state_dict()), masks_of(dict(connections(model)), 0.9)
    with pruned(model, masks):
        assert all((model.get_parameter(name)[mask == 0] == 0).all() for name, mask in masks.items())
        assert accuracy(model, dataset) < accuracy(trained()[0], dataset) + 1
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["magnitude", "taylor", "random"])
def test_the_largest_share_is_accepted_and_one_step_more_is_refused(name: str) -> None:
    model, dataset = trained()
    judge = Judge.of(model, dataset, epsilon=0.01)
    worth = saliencies(model, name, *examples(dataset, 100, seed=0))  # type: ignore[arg-type]
    for layer, each in list(worth.items())[:3]:
        share = largest_share(model, {layer: each}, judge, step=0.05)
        for tried in (share, share + 0.05):
            with pruned(model, masks_of({layer: each}, min(1.0, tried))):
                assert judge.accepts(accuracy(model, dataset)) == (tried == share) or tried > 1
    assert largest_share(model, worth, replace(judge, epsilon=1.0), scope="global") == 1.0
    assert largest_share(model, worth, replace(judge, epsilon=-1.0)) == 0.0


def test_masked_weights_stay_0_while_the_others_learn(training: MaskedTraining) -> None:
    model, dataset = trained()
    cut = deepcopy(model)
    masks = masks_of({name: weight.detach().abs() for name, weight in connections(cut).items()}, 0.7)
    hold_(cut, masks)
    hurt = accuracy(cut, dataset)
    made = deepcopy(cut)
    replace(training, epochs=3).train_(made, Fixed(masks))
    for name, mask in masks.items():
        assert (made.get_parameter(name)[mask == 0] == 0).all()
        assert (made.get_parameter(name) != cut.get_parameter(name))[mask == 1].double().mean() > 0.9
    assert accuracy(made, dataset) > hurt + 0.05
    assert not made.training


def test_pruning_in_steps_ends_with_the_last_share_that_is_accepted_and_is_the_same_under_a_seed(
    training: MaskedTraining,
) -> None:
    model, dataset = trained()
    before, layers = deepcopy(model.state_dict()), list(connections(model))
    judge = Judge.of(model, dataset, epsilon=0.03)
    shares = (0.3, 0.6, 0.8, 0.99)
    found = pruned_in_steps(model, "taylor", layers, shares, judge, training, n_examples=50)
    again = pruned_in_steps(model, "taylor", layers, shares, judge, training, n_examples=50)
    assert 0.3 <= round(found.share, 2) < 0.99
    assert min(abs(found.share - share) for share in shares) < 0.005
    assert judge.accepts(found.accuracy)
    assert found.accuracy == accuracy(found.model, dataset)
    assert all((found.model.get_parameter(n)[mask == 0] == 0).all() for n, mask in found.masks.items())
    assert all(tensor.equal(again.model.state_dict()[name]) for name, tensor in found.model.state_dict().items())
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_where_no_step_is_accepted_the_network_itself_comes_back(training: MaskedTraining) -> None:
    model, dataset = trained()
    judge = Judge.of(model, dataset, epsilon=-1.0)
    found = pruned_in_steps(model, "random", list(connections(model))[:1], [0.5], judge, training, n_examples=2)
    assert found.share == 0
    assert all(tensor.equal(found.model.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_an_unknown_layer_is_refused_with_those_that_there_are(training: MaskedTraining) -> None:
    model, dataset = trained()
    with pytest.raises(ValueError, match=r"no weight 'dense9': it has stem\.0\.weight"):
        pruned_in_steps(model, "random", ["dense9"], [0.5], Judge.of(model, dataset, 0.1), training)
