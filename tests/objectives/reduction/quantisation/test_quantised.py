"""Laws of quantised networks: how far a weight may move, and that what is stored is what was measured."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.networks.network import Network, build
from objectives.reduction.connections.masks import accuracy, examples, hold_, masks_of
from objectives.reduction.connections.saliency import connections
from objectives.reduction.quantisation import forms
from objectives.reduction.quantisation.quantised import (
    Quantised,
    affine,
    centroids,
    clustered,
    eight_bit,
    eight_bit_inputs,
    nearest,
    ranges,
    shared,
    sizes,
)
from tests.objectives.reduction.trained import trained

FLOATS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0, -1.0])


@pytest.fixture(scope="module")
def masked() -> Network:
    """The trained network without nine tenths of its connections."""
    model = deepcopy(trained()[0])
    hold_(model, masks_of({name: weight.detach().abs() for name, weight in connections(model).items()}, 0.9))
    return model


@given(st.lists(st.lists(FLOATS, min_size=6, max_size=6), min_size=1, max_size=4))
def test_8_bits_move_a_weight_by_half_a_step_at_most_and_0_not_at_all(rows: list[list[float]]) -> None:
    weight = torch.tensor(rows).view(-1, 3, 2)
    form = affine(weight)
    found = form.tensor()
    spans = weight.flatten(1).amax(1).clamp(min=0) - weight.flatten(1).amin(1).clamp(max=0)
    limit = (spans / 255 / 2).view(-1, 1, 1) * (1 + 1e-4) + 1e-37
    assert ((found - weight).abs() <= limit).all()
    assert (found[weight == 0] == 0).all()


@given(st.lists(FLOATS, max_size=60), st.integers(1, 12))
def test_as_many_centroids_as_there_are_values_lose_nothing_and_fewer_are_a_mean_each(
    listed: list[float], k: int
) -> None:
    values = np.array(listed, np.float32)
    codebook = centroids(values, k)
    assert len(codebook) <= k
    assert (np.diff(codebook) > 0).all()
    found = codebook[nearest(values, codebook)] if len(values) else values
    if k >= len(set(listed)):
        assert np.array_equal(found, values)
        assert clustered(torch.from_numpy(values), k, 5).tensor().equal(torch.from_numpy(values))
    for value, chosen in zip(values, found, strict=True):
        assert abs(float(value) - float(chosen)) <= np.abs(codebook.astype(float) - float(value)).min() * (1 + 1e-9)


def test_clusters_are_those_of_scikit_learn_from_the_same_start() -> None:
    from sklearn.cluster import KMeans

    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    start = np.linspace(values.min(), values.max(), 8)[:, None]
    theirs = KMeans(8, init=start, n_init=1, tol=0, max_iter=1000).fit(values[:, None].astype(float))
    np.testing.assert_allclose(centroids(values, 8), np.sort(theirs.cluster_centers_.ravel()), rtol=1e-5)


@pytest.mark.parametrize("which", [eight_bit, shared], ids=["8 bits", "shared values"])
def test_what_is_stored_is_the_network_that_was_measured_bit_for_bit(
    which: type[Quantised], masked: Network, tmp_path: Path
) -> None:
    dataset = trained()[1]
    for model in (trained()[0], masked, trained("lenet300")[0]):
        before = deepcopy(model.state_dict())
        found = which(model)  # type: ignore[call-arg, arg-type]
        forms.save(found.forms, tmp_path / "weights.frq")
        assert found.n_bytes == (tmp_path / "weights.frq").stat().st_size
        again = build(model.architecture).eval()
        again.load_state_dict(forms.load(tmp_path / "weights.frq"))
        assert all(tensor.equal(found.model.state_dict()[name]) for name, tensor in again.state_dict().items())
        assert accuracy(again, dataset) == accuracy(found.model, dataset)
        for name, tensor in model.state_dict().items():
            moved = found.model.state_dict()[name]
            assert tensor.equal(before[name])
            assert tensor.equal(moved) or name in connections(model)
            assert (moved[tensor == 0] == 0).all()
        assert abs(accuracy(found.model, dataset) - accuracy(model, dataset)) < 0.05
        assert not found.model.training


def test_shared_values_are_no_more_than_the_bits_allow_and_no_tensor_becomes_larger(masked: Network) -> None:
    for bits in (0, 1, 3):
        found = shared(masked, convolution_bits=bits, dense_bits=bits)
        for name, weight in connections(found.model).items():
            kept = weight[weight != 0]
            assert len(kept.unique()) <= 2**bits or weight.equal(masked.get_parameter(name))
        assert set(found.bits()) == set(connections(masked))
        assert all(taken <= 32 for taken in found.bits().values())
    with pytest.raises(ValueError, match="0 \\(one value a tensor\\) is the least"):
        shared(masked, convolution_bits=-1)


def test_fewer_bits_take_less_room(masked: Network) -> None:
    whole, few = sizes(trained()[0]), sizes(masked)
    assert whole.float32 == few.float32 > 3 * whole.eight_bit
    assert whole.shared > 2 * few.shared
    assert few.shared == shared(masked).n_bytes
    coarse = [shared(trained()[0], bits, bits).n_bytes for bits in (5, 3, 1)]
    assert whole.eight_bit > coarse[0] > coarse[1] > coarse[2]


def test_ranges_hold_what_layers_read_and_8_bits_of_it_hardly_change_the_logits() -> None:
    model, dataset = trained()
    x, _ = examples(dataset, 200, seed=0)
    known = ranges(model, x)
    assert {f"{name}.weight" for name in known} == set(connections(model))
    assert known["stem.0"] == pytest.approx((float(x.min()), float(x.max())))
    assert known["head"][0] == 0.0  # behind a rectifier
    with torch.no_grad():
        exact = model(x)
        with eight_bit_inputs(model, known):
            coarse = model(x)
        assert model(x).equal(exact)
    error = float((coarse - exact).square().mean() / exact.square().mean())
    assert 0 < error < 0.01
