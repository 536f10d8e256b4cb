"""The laws of LinearProbe and of ridge regression in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.networks.surgery import factorise
from objectives.strategies.frozen_stages import FrozenStages
from objectives.strategies.linear_probe import LinearProbe
from objectives.strategies.methods import probing
from objectives.train import begun
from tests.objectives.strategies.cases import PLAIN_GROUNDS, RESIDUAL, contents, first_batch, stepped
from tests.objectives.strategies.starting import equal, put_out, started

GROUNDS = {"residual": RESIDUAL, **PLAIN_GROUNDS}


def drawn(n: int, n_features: int) -> tuple[Tensor, Tensor]:
    """Features of which some repeat others, far from the origin, and three targets."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, n_features, generator=generator, dtype=torch.float64) * 3 + 5
    x[:, -1] = x[:, 0]
    return x, torch.randn(n, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(60, 7), (12, 40)], ids=str)
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e4])
def test_the_closed_form_is_that_of_scikit_learn(shape: tuple[int, int], penalty: float) -> None:
    x, y = drawn(*shape)
    (found,) = probing.regressions(x, y, [penalty])
    expected = Ridge(alpha=penalty).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(found.weight, expected.coef_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.bias, expected.intercept_, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 5), (12, 40)], ids=str)
def test_what_is_told_of_an_image_that_is_left_out_is_what_a_regression_on_the_others_tells(
    shape: tuple[int, int],
) -> None:
    x, y = drawn(*shape)
    (found,) = probing.regressions(x, y, [2.0])
    for n in range(len(x)):
        others = torch.arange(len(x)) != n
        expected = Ridge(alpha=2.0).fit(x[others].numpy(), y[others].numpy()).predict(x[n : n + 1].numpy())
        np.testing.assert_allclose(found.left_out[n : n + 1], expected, rtol=1e-8, atol=1e-8)


def test_the_penalty_is_the_one_that_scikit_learn_would_choose(digits: Dataset) -> None:
    state = started(digits)
    x, labels = probing.features(state.trainee.model, state, 500)
    y = F.one_hot(labels, 10).double()
    unit = float(x.double().var(0, correction=0).mean()) * len(x)
    penalties = [unit * penalty for penalty in probing.PENALTIES]
    found = probing.regressions(x, y, penalties)
    best = min(found, key=lambda ridge: float((ridge.left_out - y).square().mean()))
    chosen = RidgeCV(alphas=penalties).fit(x.double().numpy(), y.numpy())
    assert best.penalty == pytest.approx(chosen.alpha_)
    probe = probing.fitted(x, labels, 10, 0.0)
    scale = float(probe.bias[0] / best.bias[0])
    assert scale in [pytest.approx(each) for each in probing.SCALES]
    torch.testing.assert_close(probe.weight, scale * best.weight)


@pytest.mark.parametrize("ground", GROUNDS)
def test_the_head_starts_as_the_probe_and_nothing_else_changes(ground: str, digits: Dataset) -> None:
    where = GROUNDS[ground]
    plain, probed = (
        started(digits, *strategies, ground=where, batch_size=500) for strategies in ((), (LinearProbe(),))
    )
    before, after = plain.trainee.model.state_dict(), probed.trainee.model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["head.weight", "head.bias"]
    x, labels = probing.features(plain.trainee.model, plain, 500)
    assert torch.equal(labels, digits.train.y)
    probe = probing.fitted(x, labels, 10, 0.0)
    logits = probed.trainee.model.train()(probed.normalise(digits.train.x)).detach()
    torch.testing.assert_close(logits.double(), x.double() @ probe.weight.T + probe.bias, rtol=1e-3, atol=1e-3)
    assert float((logits.argmax(1) == labels).double().mean()) >= probe.accuracy >= 0.3
    (event,) = probed.events
    told = f"{probe.accuracy:.0%} of 500 images are told rightly by one on all others"
    assert event == f"the head starts as a linear probe: {told}"


def test_a_probe_begins_at_a_lower_loss_than_a_head_that_was_trained_for_a_few_steps(digits: Dataset) -> None:
    losses = []
    for strategies in ((), (LinearProbe(),)):
        state = started(digits, *strategies)
        logits = state.trainee.model.train()(state.normalise(digits.val.x)).detach()
        losses.append(float(F.cross_entropy(logits, digits.val.y)))
    assert losses[1] < losses[0]


def test_a_share_looks_at_images_spread_evenly_over_all(digits: Dataset) -> None:
    state = started(digits)
    _, labels = probing.features(state.trainee.model, state, 100)
    assert torch.equal(labels, torch.cat([digits.train.y[::10], digits.train.y[5::10]]))  # in batches of 50
    (event,) = started(digits, LinearProbe(share=0.2)).events
    assert "of 100 images" in event


def test_the_last_layer_of_a_factorised_head_is_probed(digits: Dataset) -> None:
    state = started(digits)
    state = replace(state, trainee=factorise(state.trainee, {"head": (6,)}))
    probed = begun(
        replace(state, pipeline=replace(state.pipeline, strategies=(LinearProbe(),))), *first_batch(digits)
    ).trainee.model
    before, after = state.trainee.model.state_dict(), probed.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["head.expand.weight", "head.expand.bias"]


def test_features_that_are_not_finite_leave_the_head_alone(digits: Dataset) -> None:
    state = started(digits)
    state.trainee.model.get_parameter("stem.1.bias").detach().fill_(torch.nan)
    probed = begun(replace(state, pipeline=replace(state.pipeline, strategies=(LinearProbe(),))), *first_batch(digits))
    assert probed.events == ("the head starts as it is: features are not finite",)
    assert probed.trainee is state.trainee


def test_what_is_still_is_read_as_it_stays(digits: Dataset) -> None:
    """And batches do not tell the network anything."""
    state = started(digits, FrozenStages(parts=9))
    model, before = state.trainee.model, contents(state.trainee)
    x, labels = probing.features(model, state, 500)
    expected = put_out(model.eval(), 3, state.normalise(digits.train.x)).mean((2, 3))
    order = [int((x - one).abs().amax(1).argmin()) for one in expected]
    torch.testing.assert_close(x[order], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(labels[order], digits.train.y)
    assert equal(contents(state.trainee), before)


def test_features_that_do_not_vary_tell_how_frequent_classes_are() -> None:
    labels = torch.tensor([0, 1, 1, 2, 1, 0])
    probe = probing.fitted(torch.full((6, 4), 0.3), labels, 3, 0.0)
    assert float(probe.weight.abs().max()) < 1e-3
    assert probe.bias.argmax() == 1


def test_a_run_goes_on_from_the_probe(digits: Dataset) -> None:
    state = started(digits, LinearProbe(), lr=0.02)
    weight = state.trainee.model.get_parameter("head.weight")
    before = weight.detach().clone()
    stepped(state, digits, 2)
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused_with_the_range(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
        LinearProbe(share=share)
