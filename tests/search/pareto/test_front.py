"""Laws of dominance, the Pareto front and its hypervolume."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto.front import Outcome, Reference, best_within, dominates, front, hypervolume, normalised_hypervolume

REFERENCE = Reference(train_seconds=1000.0, accuracy=0.2)

# A coarse grid of values, so that ties, duplicates and points outside the reference box are common.
seconds = st.integers(0, 8).map(lambda k: 10.0 ** (k / 2))
accuracies = st.integers(0, 10).map(lambda k: k / 10)
points = st.lists(st.tuples(seconds, accuracies), max_size=12)


def outcomes_at(places: list[tuple[float, float]]) -> list[Outcome]:
    return [Outcome(trial, *place) for trial, place in enumerate(places)]


outcomes = points.map(outcomes_at)


@given(outcomes)
def test_dominance_is_a_strict_order(some: list[Outcome]) -> None:
    for a in some:
        assert not dominates(a, a)
        for b in some:
            assert not (dominates(a, b) and dominates(b, a))
            assert all(dominates(a, c) for c in some if dominates(a, b) and dominates(b, c))


@given(outcomes)
def test_no_member_of_the_front_dominates_another(some: list[Outcome]) -> None:
    members = front(some)
    assert not any(dominates(a, b) for a in members for b in members)
    assert all(a.train_seconds < b.train_seconds and a.accuracy < b.accuracy for a, b in pairwise(members))


@given(outcomes)
def test_what_is_not_on_the_front_is_dominated_or_a_later_twin(some: list[Outcome]) -> None:
    members = front(some)
    for left_out in set(some) - set(members):
        assert any(
            dominates(member, left_out)
            or (
                (member.train_seconds, member.accuracy) == (left_out.train_seconds, left_out.accuracy)
                and member.trial < left_out.trial
            )
            for member in members
        )


@given(outcomes, st.randoms(use_true_random=False))
def test_the_order_of_the_outcomes_does_not_matter(some: list[Outcome], random: Random) -> None:
    shuffled = random.sample(some, len(some))
    assert front(shuffled) == front(some)
    assert hypervolume(shuffled, REFERENCE) == hypervolume(some, REFERENCE)


@given(outcomes)
def test_the_front_of_the_front_is_the_front(some: list[Outcome]) -> None:
    assert front(front(some)) == front(some)


@given(outcomes, seconds)
def test_the_front_is_as_good_within_any_time_as_all_outcomes(some: list[Outcome], limit: float) -> None:
    assert best_within(front(some), limit) == best_within(some, limit)


@given(outcomes, seconds, seconds)
def test_more_time_never_has_a_worse_best(some: list[Outcome], a: float, b: float) -> None:
    less, more = (best_within(some, limit) for limit in sorted((a, b)))
    assert less is None or (more is not None and more >= less)


def test_nothing_is_best_before_the_fastest_outcome() -> None:
    assert best_within([Outcome(0, 5.0, 0.9)], 4.9) is None
    assert best_within([Outcome(0, 5.0, 0.9)], 5.0) == 0.9


@given(outcomes)
def test_hypervolume_counts_the_dominated_cells_of_the_grid(some: list[Outcome]) -> None:
    # `seconds` and `accuracies` lie on a grid of half decades and tenths, so counting its cells is exact.
    n_cells = sum(
        any(o.train_seconds <= 10 ** (i / 2) * 1.001 and o.accuracy >= (j + 1) / 10 - 1e-9 for o in some)
        for i in range(6)  # half decades from 1 s to the reference, 1000 s
        for j in range(2, 10)  # tenths from the reference, 0.2, to 1
    )
    assert hypervolume(some, REFERENCE) == pytest.approx(n_cells * 0.5 * 0.1, abs=1e-12)


@given(outcomes, seconds, accuracies)
def test_another_outcome_never_lowers_hypervolume(some: list[Outcome], time: float, accuracy: float) -> None:
    more = [*some, Outcome(len(some), time, accuracy)]
    assert hypervolume(more, REFERENCE) >= hypervolume(some, REFERENCE) - 1e-12


@given(outcomes)
def test_only_the_front_counts_in_hypervolume(some: list[Outcome]) -> None:
    assert hypervolume(front(some), REFERENCE) == hypervolume(some, REFERENCE)


@pytest.mark.parametrize(("time", "accuracy"), [(1000.0, 0.9), (5000.0, 1.0), (1.0, 0.2), (1.0, 0.0)])
def test_a_point_outside_the_reference_box_contributes_nothing(time: float, accuracy: float) -> None:
    inside = Outcome(0, 100.0, 0.7)
    assert hypervolume([Outcome(1, time, accuracy)], REFERENCE) == 0.0
    assert hypervolume([inside, Outcome(1, time, accuracy)], REFERENCE) == hypervolume([inside], REFERENCE)


def test_halving_the_time_is_worth_the_same_at_any_time() -> None:
    def gain(time: float) -> float:
        slow, fast = Outcome(0, time, 0.9), Outcome(1, time / 2, 0.9)
        return hypervolume([fast], REFERENCE) - hypervolume([slow], REFERENCE)

    assert gain(10.0) == pytest.approx(gain(500.0)) == pytest.approx(0.7 * math.log10(2))


def test_the_whole_box_counts_one_and_a_faster_point_no_more() -> None:
    assert normalised_hypervolume([Outcome(0, 10.0, 1.0)], REFERENCE, fastest_seconds=10.0) == pytest.approx(1.0)
    assert normalised_hypervolume([Outcome(0, 5.0, 1.0)], REFERENCE, fastest_seconds=10.0) == pytest.approx(1.0)
    assert normalised_hypervolume([], REFERENCE, fastest_seconds=10.0) == 0.0


@given(outcomes, st.sampled_from([1.0, 10.0, 999.0]))
def test_the_share_of_the_box_counts_what_lies_within_it(some: list[Outcome], fastest: float) -> None:
    share = normalised_hypervolume(some, REFERENCE, fastest)
    within = [replace(o, train_seconds=max(fastest, o.train_seconds)) for o in some]
    assert 0.0 <= share <= 1.0
    assert share == normalised_hypervolume(within, REFERENCE, fastest)
    if within == some:  # nothing is faster than the box
        box = math.log10(REFERENCE.train_seconds / fastest) * (1 - REFERENCE.accuracy)
        assert share == pytest.approx(hypervolume(some, REFERENCE) / box)


@pytest.mark.parametrize("fastest", [1000.0, 2000.0, 0.0, math.nan])
def test_an_empty_box_is_refused(fastest: float) -> None:
    with pytest.raises(ValueError, match="fastest anchor"):
        normalised_hypervolume([], REFERENCE, fastest_seconds=fastest)


@pytest.mark.parametrize(
    ("time", "accuracy"),
    [(math.inf, 0.5), (math.nan, 0.5), (0.0, 0.5), (-1.0, 0.5), (1.0, math.nan), (1.0, 1.01), (1.0, -0.1)],
)
def test_values_that_optuna_would_put_on_the_front_are_refused(time: float, accuracy: float) -> None:
    with pytest.raises(ValueError, match="trial 7"):
        Outcome(7, time, accuracy)
    with pytest.raises(ValueError, match="reference"):
        Reference(time, accuracy)
