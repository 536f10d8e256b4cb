"""Grids of number formats: what stands on them, what rounding to them expects, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, nan, sqrt

import pytest
import torch
from torch import Tensor

from objectives.strategies.methods.quantising import block, exponents, fixed, float8, passed, powers_of_two, rounded

FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "dfp16": partial(block, bits=16, rounding="nearest", by_slice=False),
    "dfp2": partial(block, bits=2, rounding="nearest", by_slice=False),
    "bfp8 at random": partial(block, bits=8, rounding="stochastic", by_slice=True),
    "bfp8 of tensors at random": partial(block, bits=8, rounding="stochastic", by_slice=False),
    "fixed <4, 12>": partial(fixed, integer_bits=4, fraction_bits=12, rounding="nearest"),
    "fixed <4, 8> at random": partial(fixed, integer_bits=4, fraction_bits=8, rounding="stochastic"),
    "e4m3": partial(float8, name="e4m3"),
    "e5m2": partial(float8, name="e5m2"),
}
each_format = pytest.mark.parametrize("quantise", FORMATS.values(), ids=FORMATS.keys())
SHAPES = ((3, 5, 2, 2), (7, 4), (9,), ())


def several(n_seeds: int = 20) -> list[Tensor]:
    """Tensors of every shape, of sizes from tiny to huge, some of their numbers 0 or powers of two."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for seed in range(n_seeds):
        for shape in SHAPES:
            x = torch.randn(shape, generator=generator) * 10.0 ** (seed - n_seeds // 2)
            found += [x, x.round(), torch.zeros(shape), torch.full(shape, -(2.0 ** (seed - 10)))]
    return found


@each_format
def test_what_stands_on_the_grid_stays_there(quantise: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(1)
    for x in several():
        once = quantise(x)
        assert torch.equal(quantise(once), once)


@each_format
def test_nothing_becomes_a_number_that_is_not_finite_and_nothing_hides_one(
    quantise: Callable[[Tensor], Tensor],
) -> None:
    for x in several():
        assert quantise(x).isfinite().all()
    assert quantise(torch.tensor([1.0, nan])).isnan().any()
    infinite = quantise(torch.tensor([1.0, inf]))
    saturates = "fixed" in str(quantise)  # its hardware has a largest number
    assert infinite.isfinite().all() if saturates else infinite.isnan().any()


@each_format
def test_zeros_stay_zeros_and_signs_stay_signs(quantise: Callable[[Tensor], Tensor]) -> None:
    assert torch.equal(quantise(torch.zeros(3, 4)), torch.zeros(3, 4))
    x = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    assert (quantise(x) * x >= -1e-9 * x.abs()).all()


@each_format
def test_layout_and_precision_stay_as_they_are(quantise: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert quantise(x).is_contiguous(memory_format=torch.channels_last)
    assert quantise(x.double()).dtype == torch.float64


def test_powers_of_two_and_their_exponents_are_exact() -> None:
    k = torch.arange(-126, 128, dtype=torch.int32)
    powers = torch.tensor([2.0 ** int(each) for each in k])
    assert torch.equal(powers_of_two(k), powers)
    assert torch.equal(exponents(powers), k)
    below = torch.nextafter(powers, torch.zeros(()))
    assert torch.equal(exponents(below[1:]), k[1:] - 1)
    assert torch.equal(exponents(torch.tensor([2.0**-149, 2.0**-130])), torch.tensor([-149, -130], dtype=torch.int32))


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_power_of_two_has_its_own_exponent_and_survives(bits: int) -> None:
    """floor(log2) in floating point may lose one, and with it half of the grid."""
    for k in range(-30, 31):
        x = torch.tensor([2.0**k, -(2.0**k), 2.0 ** (k - bits + 2)])
        assert torch.equal(block(x, bits, "nearest", by_slice=False), x)
        just_below = torch.nextafter(x[0], torch.zeros(()))
        step = 2.0 ** (k - 1 - (bits - 2))
        assert block(just_below[None], bits, "nearest", by_slice=False).item() == 2.0**k - step


def test_every_slice_has_a_grid_of_its_own_and_a_vector_one() -> None:
    x = torch.tensor([[100.0, 0.3, 0.004], [1.0, 0.3, 0.004]])
    steps = torch.tensor([[1.0], [2.0**-6]])
    expected = (x / steps).round() * steps
    assert torch.equal(block(x, 8, "nearest", by_slice=True), expected)
    assert torch.equal(block(x, 8, "nearest", by_slice=False), x.round())
    assert torch.equal(block(x[0], 8, "nearest", by_slice=True), x[0].round())


def test_whole_numbers_of_a_block_stay_within_their_bits() -> None:
    torch.manual_seed(3)
    for bits in (2, 4, 8):
        x = torch.randn(64, 500)
        found = block(x, bits, "stochastic", by_slice=True)
        step = powers_of_two(exponents(x.abs().amax(1, keepdim=True)) - (bits - 2))
        whole = found / step
        assert torch.equal(whole, whole.round())
        assert whole.abs().max() == 2 ** (bits - 1) - 1


@pytest.mark.parametrize(("integer_bits", "fraction_bits"), [(4, 12), (2, 14), (8, 0), (1, 7)])
def test_fixed_point_saturates_where_its_bits_end(integer_bits: int, fraction_bits: int) -> None:
    most, step = 2.0 ** (integer_bits - 1), 2.0**-fraction_bits
    for rounding in ("nearest", "stochastic"):
        x = torch.tensor([1e6, -1e6, most, -most, most - step])
        found = fixed(x, integer_bits, fraction_bits, rounding)  # type: ignore[arg-type]
        assert found.tolist() == [most - step, -most, most - step, -most, most - step]


@pytest.mark.parametrize(("name", "dtype"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_8_bit_floats_have_the_numbers_of_the_type_of_torch(name: str, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    assert (limits.max, limits.smallest_normal) == {"e4m3": (448, 2.0**-6), "e5m2": (57344, 2.0**-14)}[name]
    every = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    finite = every[every.isfinite()]
    assert finite.abs().max() == limits.max
    assert torch.equal(float8(finite, name), finite)  # type: ignore[arg-type]
    for k in (-40, -3, 0, 7, 40):  # wherever the numbers lie the scale finds them
        assert torch.equal(float8(finite * 2.0**k, name), finite * 2.0**k)  # type: ignore[arg-type]
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(4)) * 30
    x[0] = limits.max  # so that the scale is 1
    assert torch.equal(float8(x, name), x.to(dtype).float())  # type: ignore[arg-type]


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.9])
def test_stochastic_rounding_has_the_expectation_of_what_it_rounds(fraction: float) -> None:
    n = 200_000
    for sign, whole in ((1, 0), (1, 77), (-1, 30_000)):
        x = torch.full((n,), float(sign * (whole + fraction)))
        torch.manual_seed(5)
        up = rounded(x, "stochastic") - x.floor()
        assert set(up.unique().tolist()) <= {0.0, 1.0}
        p = (x - x.floor())[0].item()
        z = (up.mean().item() - p) / sqrt(p * (1 - p) / n)
        assert abs(z) < 4
        nearest = rounded(x, "nearest")
        assert torch.equal(nearest, x.round())


def test_an_update_that_the_nearest_loses_arrives_at_random() -> None:
    torch.manual_seed(6)
    weight, update = torch.zeros(100_000), 1e-4  # of a step of 2^-8 = 0.0039
    for rounding, expected in (("nearest", 0.0), ("stochastic", update)):
        moved = fixed(weight + update, 4, 8, rounding)  # type: ignore[arg-type]
        assert moved.mean().item() == pytest.approx(expected, rel=0.1)


def test_enough_bits_are_the_number_itself() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(7))
    assert torch.equal(block(x[:, None], 25, "stochastic", by_slice=True)[:, 0], x)
    assert torch.equal(fixed(x.double(), 8, 40, "stochastic"), x.double())


def test_gradients_pass_straight_through_in_a_format_of_their_own() -> None:
    x = torch.randn(50, requires_grad=True)
    weights = torch.randn(50)
    forward, backward = FORMATS["bfp8 of tensors at random"], FORMATS["e5m2"]
    out = passed(x, forward, backward)
    assert torch.equal(out, forward(out))
    (out * weights).sum().backward()
    assert torch.equal(x.grad, backward(weights))  # type: ignore[arg-type]
    x.grad = None
    (passed(x, forward, None) * weights).sum().backward()
    assert torch.equal(x.grad, weights)  # type: ignore[arg-type]
    plain = passed(x, None, None)
    assert torch.equal(plain, x)
