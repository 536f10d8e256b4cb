"""Laws of factorised layers: exact at full rank, off by the tail of the spectrum below it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.networks.factors import like, of, product


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tail(matrix: Tensor, rank: int) -> float:
    """The energy that the best matrix of a rank leaves: the sum of the squares of all later singular values."""
    return float(torch.linalg.svdvals(matrix)[rank:].square().sum())


@pytest.mark.parametrize("shape", [(4, 9), (12, 5), (7, 3, 3, 3), (3, 8, 3, 3), (5, 5, 1, 1)])
def test_at_full_rank_the_product_is_the_weight(shape: tuple[int, ...]) -> None:
    whole = weight(*shape)
    parts = of(whole, (min(shape),) if len(shape) == 2 else (shape[1], shape[0]))
    torch.testing.assert_close(product(parts), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_matrix_loses_the_tail_of_its_spectrum(rank: int) -> None:
    whole = weight(6, 11)
    assert float((product(of(whole, (rank,))) - whole).square().sum()) == pytest.approx(tail(whole, rank))


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_convolution_cut_on_one_side_loses_the_tail_of_that_side(rank: int) -> None:
    whole = weight(6, 8, 3, 3)
    by_output = product(of(whole, (8, rank))) - whole
    by_input = product(of(whole, (rank, 6))) - whole
    assert float(by_output.square().sum()) == pytest.approx(tail(whole.flatten(1), rank))
    assert float(by_input.square().sum()) == pytest.approx(tail(whole.transpose(0, 1).flatten(1), rank))


def test_a_convolution_cut_on_both_sides_loses_no_more_than_both_tails_and_no_less_than_one() -> None:
    for seed in range(5):
        whole = weight(8, 8, 3, 3, seed=seed)
        lost = float((product(of(whole, (4, 3))) - whole).square().sum())
        tails = tail(whole.transpose(0, 1).flatten(1), 4), tail(whole.flatten(1), 3)
        assert max(tails) < lost < sum(tails)


def test_no_other_method_finds_factors_nearer_by_half_a_percent() -> None:
    """Tensorly's alternating least squares from the same start, run to convergence."""
    tucker = pytest.importorskip("tensorly.decomposition").partial_tucker
    whole = weight(8, 8, 3, 3)
    (core, factors), _ = tucker(whole.numpy(), rank=[3, 4], modes=[0, 1], n_iter_max=100, tol=1e-12)
    theirs = torch.einsum("srkl,os,ir->oikl", *map(torch.as_tensor, (core, *factors)))
    ours = product(of(whole, (4, 3)))
    assert float((ours - whole).norm()) <= 1.005 * float((theirs - whole).norm())


def test_factors_compute_what_their_product_does_padding_included() -> None:
    parts = of(weight(6, 5, 3, 3), (3, 4))
    x = weight(2, 5, 7, 7, seed=1)
    one_by_one = F.conv2d(F.conv2d(F.conv2d(x, parts["reduce"]), parts["core"], padding=1, stride=2), parts["expand"])
    torch.testing.assert_close(one_by_one, F.conv2d(x, product(parts), padding=1, stride=2))


@pytest.mark.parametrize("shape", [(4, 9), (7, 3, 3, 3)])
def test_factors_have_equal_norms_and_the_type_of_the_weight(shape: tuple[int, ...]) -> None:
    parts = of(weight(*shape).float(), (2,) if len(shape) == 2 else (2, 3))
    norms = [float(part.norm()) for part in parts.values()]
    assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-5)
    assert {part.dtype for part in parts.values()} == {torch.float32}


@pytest.mark.parametrize(("shape", "ranks"), [((4, 9), (4,)), ((7, 3, 3, 3), (3, 7))])
def test_another_weight_is_kept_whole_where_the_outer_factors_allow(
    shape: tuple[int, ...], ranks: tuple[int, ...]
) -> None:
    other = weight(*shape, seed=2)
    found = like(other, of(weight(*shape), ranks))
    torch.testing.assert_close(product(found), other)


def test_a_weight_of_zeros_has_factors_of_finite_numbers() -> None:
    parts = of(torch.zeros(4, 4, 3, 3), (2, 2))
    assert all(part.isfinite().all() for part in parts.values())
    assert not product(parts).any()


@pytest.mark.parametrize(
    ("shape", "ranks"), [((4, 9), (5,)), ((4, 9), (0,)), ((4, 9), (2, 2)), ((7, 3, 3, 3), (4, 7)), ((7, 3, 3, 3), (3,))]
)
def test_ranks_that_a_weight_does_not_have_are_refused(shape: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="has no ranks"):
        of(weight(*shape), ranks)
