"""What a training on all images promises comes from what was measured, and is as sure as that was."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.data.dataset import splits_of
from objectives.data.sources import Labelled
from objectives.task import DataSpec
from search.pareto.intervals import wilson
from search.planning.promise import SIDES, Promise, both_sides, n_whole, promised, spread

ACCURACIES = st.floats(0, 1)
COUNTS = st.integers(1, 100_000)
SEEDS = st.integers(0, 20)


def width(promise: Promise) -> float:
    low, high = promise.interval
    return high - low


@given(measured=ACCURACIES, n_seeds=SEEDS, n_val=COUNTS, n_train=COUNTS, more=st.integers(0, 100_000))
def test_the_promise_lies_in_its_interval_and_that_among_accuracies(
    measured: float, n_seeds: int, n_val: int, n_train: int, more: int
) -> None:
    promise = promised(measured, n_seeds, n_val, n_train, n_train + more)
    low, high = promise.interval
    assert 0 <= low <= promise.accuracy <= high <= 1
    assert low < high
    assert (promise.measured, promise.n_seeds) == (measured, n_seeds)


@given(measured=ACCURACIES, n_seeds=SEEDS, n_val=COUNTS, n_train=COUNTS, more=st.lists(COUNTS, min_size=2, max_size=5))
def test_more_images_never_promise_less(
    measured: float, n_seeds: int, n_val: int, n_train: int, more: list[int]
) -> None:
    promises = [promised(measured, n_seeds, n_val, n_train, n_train + each) for each in sorted(more)]
    for less, greater in pairwise(promise.accuracy for promise in promises):
        assert less <= greater
    assert promises[0].accuracy >= measured - 0.5 / n_val


@pytest.mark.parametrize("measured", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("n", [1_000, 1_250, 5_000])
def test_the_interval_narrows_with_the_images_that_validated_and_with_the_seeds(measured: float, n: int) -> None:
    by_images = [width(promised(measured, 1, n_val, 1_000, n)) for n_val in (50, 200, 1_000, 10_000, 100_000)]
    assert all(less < more for more, less in pairwise(by_images))
    by_seeds = [width(promised(measured, n_seeds, 1_000, 1_000, n)) for n_seeds in (1, 2, 4, 16)]
    assert all(less <= more for more, less in pairwise(by_seeds))
    assert width(promised(measured, 0, 1_000, 1_000, n)) == by_seeds[0]


@given(measured=ACCURACIES, n_seeds=SEEDS, n_val=COUNTS, n_train=COUNTS)
def test_nothing_more_to_train_on_promises_what_was_measured_and_is_no_surer(
    measured: float, n_seeds: int, n_val: int, n_train: int
) -> None:
    promise = promised(measured, n_seeds, n_val, n_train, n_train)
    assert promise.accuracy == pytest.approx(measured, abs=0.5 / n_val + 1e-12)
    low, high = wilson(measured, n_val)
    assert width(promise) >= min(promise.accuracy - low, high - promise.accuracy)


@pytest.mark.parametrize("measured", [0.2, 0.8, 0.95, 0.999])
def test_of_many_images_and_seeds_it_is_the_accuracy_that_was_measured(measured: float) -> None:
    promise = promised(measured, 10_000, 10**9, 10**6, 10**6)
    assert promise.accuracy == pytest.approx(measured)
    assert width(promise) <= 0.17 * (1 - measured)  # another seed still gives another network


@given(measured=ACCURACIES, n_seeds=SEEDS, n_val=COUNTS, n_train=COUNTS, more=st.integers(0, 100_000))
def test_no_promise_rules_out_what_was_measured_or_what_the_images_allow(
    measured: float, n_seeds: int, n_val: int, n_train: int, more: int
) -> None:
    promise = promised(measured, n_seeds, n_val, n_train, n_train + more)
    assert promise.interval[1] >= min(1.0, wilson(measured, n_val)[1]) - 1e-12


def test_seeds_that_differ_more_than_is_assumed_promise_less_surely() -> None:
    restless, steady = spread([0.7, 0.9, 0.79, 0.87], 120), spread([0.8, 0.8, 0.801], 120)
    assert restless > 0.1 > steady == spread([0.8], 120) == spread([], 120)
    one, other = (promised(0.8, 4, 10_000, 1_000, 1_250, each) for each in (restless, steady))
    assert width(one) > 3 * width(other)


@pytest.mark.parametrize("n_train", [None, 2, 50, 100, 170, 190, 200])
@pytest.mark.parametrize("n", [250, 251, 252, 299, 300, 400])
def test_all_images_are_those_of_the_first_split(n: int, n_train: int | None) -> None:
    found = Labelled(np.empty((n, 1, 1, 1), np.uint8), np.arange(n) % 2, ("a", "b"), flip=True)
    splits = splits_of(found, DataSpec("folder:x", n_train=n_train))
    n_val = len(set().union(*(validating.tolist() for _, validating in splits)))
    data = {"n_train": len(splits[0][0]), "n_val": n_val}
    assert n_whole(data, len(splits)) == sum(map(len, splits[0]))


@given(
    alone=st.lists(ACCURACIES, min_size=1, max_size=4),
    both=ACCURACIES,
    n=COUNTS,
    changed=st.floats(0, 1),
    which=st.sampled_from(["accuracy", "balanced_accuracy"]),
)
def test_of_both_sides_is_expected_what_lies_between_the_images_and_other_networks_the_nearer_the_more_images(
    alone: list[float], both: float, n: int, changed: float, which: str
) -> None:
    def seen(n: int) -> list[dict[str, object]]:
        return [{"alone": {which: each}, "both": {which: both}, "noise": {which: changed / n}} for each in alone]

    gain = both_sides(seen(n), which)
    assert gain.measured == pytest.approx(sum(both - each for each in alone) / len(alone))
    low, high = sorted((gain.measured, SIDES[0]))
    assert low - 1e-12 <= gain.expected <= high + 1e-12
    more = both_sides(seen(4 * n), which)
    assert abs(more.expected - gain.measured) <= abs(gain.expected - gain.measured) + 1e-12
    assert more.spread <= gain.spread + 1e-12
    assert gain.spread <= min(SIDES[1], math.sqrt(changed / n)) + 1e-12
    if changed / n < SIDES[1] ** 2:
        assert abs(gain.expected - gain.measured) <= abs(SIDES[0] - gain.measured) / 2 + 1e-12


@given(ACCURACIES, COUNTS, st.floats(0.0, 0.1), st.floats(0.0, 0.1))
def test_a_promise_is_no_narrower_where_something_of_it_was_seen_otherwise(
    measured: float, n_val: int, beside: float, more: float
) -> None:
    sure, one, other = (promised(measured, 1, n_val, 100, 125, beside=each) for each in (0.0, beside, beside + more))
    assert sure.accuracy == one.accuracy == other.accuracy
    assert sure.interval[0] >= one.interval[0] >= other.interval[0]
    assert sure.interval[1] <= one.interval[1] <= other.interval[1]
