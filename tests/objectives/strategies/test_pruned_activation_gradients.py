"""The laws of PrunedActivationGradients."""

from __future__ import annotations

from math import exp, pi, sqrt
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from objectives.networks.resnet import Convolution
from objectives.networks.sequential import Dense
from objectives.strategies.methods.gradient_pruning import multiple, pruned
from objectives.strategies.pruned_activation_gradients import PrunedActivationGradients

SHARES = (0.5, 0.7, 0.9, 0.99)


def drawn(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("share", SHARES)
def test_of_normal_gradients_the_share_lies_below_the_threshold_and_what_the_formula_says_is_0(share: float) -> None:
    """The threshold t has P(|g| < t) = p, and of those a part of |g| / t stays: zero are p - E[|g|; |g| < t] / t."""
    gradient = 0.003 * drawn(200_000)
    threshold = multiple(share) * float(gradient.abs().mean())
    assert float((gradient.abs() < threshold).float().mean()) == pytest.approx(share, abs=0.005)
    torch.manual_seed(0)
    found = pruned(gradient, multiple(share))
    t = NormalDist().inv_cdf((1 + share) / 2)
    zero = share - sqrt(2 / pi) * (1 - exp(-t * t / 2)) / t
    assert float((found == 0).float().mean()) == pytest.approx(zero, abs=0.005)
    assert {0.7: 0.38, 0.9: 0.54, 0.99: 0.69}.get(share, zero) == pytest.approx(zero, abs=0.005)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_expectation_of_every_entry_is_the_entry(share: float, dtype: torch.dtype) -> None:
    """By a z-test of each, with its standard deviation by the formula, a draw in a thousand and rounding to spare."""
    gradient = drawn(200, dtype)
    torch.manual_seed(0)
    draws = torch.stack([pruned(gradient, multiple(share)) for _ in range(1000)])
    assert draws.dtype == dtype
    exact, size = gradient.double(), gradient.double().abs()
    threshold = multiple(share) * size.mean()
    spread = (size * (threshold - size).clamp(min=0) / 1000).sqrt()
    off = (draws.double().mean(0) - exact).abs()
    assert (off <= 4.5 * spread + threshold / 1000 + 4 * torch.finfo(dtype).eps * size).all()
    is_drawn = size < threshold
    assert (off[is_drawn] / spread[is_drawn]).square().mean() < 1.4


def test_entries_from_the_threshold_on_stay_and_those_below_are_0_or_at_it() -> None:
    gradient = drawn(10_000, torch.float64)
    threshold = multiple(0.9) * gradient.abs().mean()
    found = pruned(gradient, multiple(0.9))
    is_large = gradient.abs() >= threshold
    assert torch.equal(found[is_large], gradient[is_large])
    small, before = found[~is_large], gradient[~is_large]
    assert ((small == 0) | (small == before.sign() * threshold)).all()
    assert 0 < int(small.count_nonzero()) < len(small)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_has_overflowed_stays_so_that_loss_scaling_sees_it(value: float) -> None:
    gradient = drawn(10, torch.float16)
    gradient[3] = value
    assert not pruned(gradient, multiple(0.9)).isfinite().all()
    assert torch.equal(pruned(torch.zeros(5), multiple(0.9)), torch.zeros(5))


@pytest.mark.parametrize(
    ("layer", "shape"), [(Convolution(4, 6, 3), (2, 4, 5, 5)), (Dense(4, 6), (8, 4))], ids=["convolution", "dense"]
)
def test_a_layer_puts_out_what_it_does_and_multiplies_with_the_pruned_gradient(
    layer: Convolution | Dense, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plain = layer.multiplied(x, layer.weight)
    back = drawn(plain.numel()).view(plain.shape)
    found = PrunedActivationGradients(0.9).product(layer, layer.multiplied)(x, layer.weight)
    assert torch.equal(found, plain)
    torch.manual_seed(0)
    fewer = pruned(back, multiple(0.9))
    torch.manual_seed(0)
    gradients = torch.autograd.grad(found, (x, layer.weight), back)
    for gradient, expected in zip(gradients, torch.autograd.grad(plain, (x, layer.weight), fewer), strict=True):
        assert torch.equal(gradient, expected)
        assert not torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused_with_the_range(share: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        PrunedActivationGradients(share)
