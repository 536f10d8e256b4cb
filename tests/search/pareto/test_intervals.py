"""Intervals hold what they promise, also where one pipeline is restless among steady ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto.intervals import as_many, of_accuracies, of_costs, of_differences, student, wilson


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423)])
def test_students_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student(degrees) == pytest.approx(quantile, abs=1e-4)


def test_wilsons_interval_is_that_of_the_formula() -> None:
    assert wilson(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)
    assert wilson(0.0, 10)[0] == pytest.approx(0.0)


@pytest.mark.parametrize("by_class", [(50, 50), (130, 4), (67, 67, 1), (20, 0, 5), (400,)])
@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95])
def test_wilsons_interval_holds_a_balanced_accuracy_too(by_class: tuple[int, ...], recall: float) -> None:
    """Of as many images as it is known by; a class of a single one is all or nothing."""
    rng, present = np.random.default_rng(0), [each for each in by_class if each]
    n = as_many("balanced", by_class, sum(by_class))
    told = np.mean([rng.binomial(each, recall, 4000) / each for each in present], axis=0)
    held = [low <= recall <= high for low, high in (wilson(float(each), n) for each in told)]
    assert np.mean(held) > (0.85 if 1 in by_class else 0.9)


@given(st.lists(st.integers(0, 1000), max_size=12).filter(sum))
def test_a_balanced_accuracy_is_known_by_no_more_images_than_there_are_and_by_all_of_even_classes(
    by_class: list[int],
) -> None:
    n, present = sum(by_class), [each for each in by_class if each]
    assert as_many("plain", by_class, n) == n
    assert 1 <= as_many("balanced", by_class, n) <= n
    assert as_many("balanced", by_class, n) <= len(present) ** 2 * min(present)
    assert as_many("balanced", [present[0]] * 3, 3 * present[0]) == 3 * present[0]
    assert as_many("balanced", [], n) == n  # of an earlier version, or of many classes: not told


def test_an_interval_of_equal_spreads_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng, n_held, n_all = np.random.default_rng(0), 0, 0
    for _ in range(400):
        truth = rng.uniform(1.0, 10.0, 8)
        groups = [[float(t * math.exp(0.05 * rng.standard_normal())) for _ in range(2)] for t in truth]
        for estimate, t in zip(of_costs(groups), truth, strict=True):
            assert estimate.interval is not None
            n_held += estimate.interval[0] <= t <= estimate.interval[1]
            n_all += 1
    assert 0.93 < n_held / n_all < 0.995


@pytest.mark.parametrize("n_pairs", [2, 4])
def test_of_seven_ingredients_that_do_nothing_hardly_any_looks_sure(n_pairs: int) -> None:
    rng, n_held, n_sure, n = np.random.default_rng(0), 0, 0, 400
    for _ in range(n):
        whole, others = rng.standard_normal(n_pairs), rng.standard_normal((7, n_pairs))
        found = of_differences((whole - others).tolist())
        n_held += sum(e.interval is not None and e.interval[0] <= 0 <= e.interval[1] for e in found)
        n_sure += any(each.is_sure for each in found)
    assert n_held / (7 * n) > 0.92, "each interval by itself"
    assert n_sure / n < 0.12, "all of them taken together: by their intervals alone 0.22"
    assert all(each.is_sure for each in of_differences((whole - others + 20).tolist()))


def test_a_restless_pipeline_widens_its_own_interval_only() -> None:
    steady = [[0.980, 0.984], [0.985, 0.981], [0.97, 0.974], [0.96, 0.963], [0.99, 0.988]]
    alone, beside = of_accuracies(steady), of_accuracies([*steady, [0.3, 0.7]])
    assert beside[-1].half > 10 * beside[0].half  # type: ignore[operator]
    for one, other in zip(alone, beside, strict=False):
        assert other.half < 1.2 * one.half  # type: ignore[operator]


def test_too_few_values_have_no_interval() -> None:
    assert [each.interval for each in of_accuracies([[0.9, 0.91], [0.8]])] == [None, None]
