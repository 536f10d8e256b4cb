"""The laws of GradientClipping."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.device.formats import LossScaler
from objectives.strategies.gradient_clipping import GradientClipping
from tests.objectives.strategies.cases import begin, executor, finish, first_batch, same_weights, using
from tests.objectives.strategies.watching import gradients_of


def norm(gradients: dict[str, Tensor]) -> float:
    return float(torch.cat([gradient.flatten() for gradient in gradients.values()]).norm())


def test_a_gradient_that_is_too_long_keeps_its_direction_and_one_that_is_not_is_left_alone(digits: Dataset) -> None:
    plain = gradients_of(using(), digits)
    length = norm(plain)
    for limit in (0.01 * length, 0.5 * length, 0.999 * length, 1.001 * length, 100 * length):
        found, factor = gradients_of(using(GradientClipping(limit)), digits), min(1.0, limit / length)
        assert norm(found) == pytest.approx(factor * length, rel=1e-5)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, factor * plain[name], rtol=1e-5, atol=1e-12)
            assert factor < 1 or torch.equal(gradient, plain[name])


def test_clipping_again_changes_nothing(digits: Dataset) -> None:
    once, again = (gradients_of(using(GradientClipping(0.3)), digits, twice=twice) for twice in (False, True))
    assert norm(once) == pytest.approx(0.3, rel=1e-5)
    torch.testing.assert_close(again, once, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(("limit", "share"), [(1e-3, "100.0%"), (1e6, "0.0%")])
def test_a_run_says_how_many_steps_it_clipped_and_is_the_plain_one_where_that_is_none(
    limit: float, share: str, digits: Dataset
) -> None:
    reports, trained = finish(using(GradientClipping(limit), epochs=2), digits)
    (event,) = reports[0].events
    assert event.startswith(f"gradients of {share} of the steps were longer than")
    assert same_weights(trained.model, finish(using(epochs=2), digits)[1].model) == (share == "0.0%")


def test_a_step_that_loss_scaling_skips_is_not_counted(digits: Dataset) -> None:
    state = begin(using(GradientClipping(0.3), number_format="fp16"), digits)
    (clipping,) = state.pipeline.strategies
    running, (x, y) = executor(state, LossScaler("cpu", 2.0**12)), first_batch(digits)
    assert [float(running.step(each, y).taken) for each in (x, x * 1e6, x)] == [1, 0, 1]
    assert isinstance(clipping, GradientClipping)
    assert clipping.counts is not None
    assert clipping.counts.tolist() == [2, 2]


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
def test_a_norm_out_of_range_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="norm must lie in"):
        GradientClipping(limit)
