"""Laws of dominance, the Pareto front and its hypervolume."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto.front import Box, Outcome, best_within, dominates, error_rate, front, hypervolume

BOX = Box(fastest=10.0, slowest=1000.0, useful=0.2, n_images=100)

# A coarse grid of values, so that ties, duplicates and points outside the box are common.
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
    assert all(a.cost < b.cost and a.accuracy < b.accuracy for a, b in pairwise(members))


@given(outcomes)
def test_what_is_not_on_the_front_is_dominated_or_a_later_twin(some: list[Outcome]) -> None:
    members = front(some)
    for left_out in set(some) - set(members):
        assert any(
            dominates(member, left_out)
            or ((member.cost, member.accuracy) == (left_out.cost, left_out.accuracy) and member.trial < left_out.trial)
            for member in members
        )


@given(outcomes, st.randoms(use_true_random=False))
def test_the_order_of_the_outcomes_does_not_matter(some: list[Outcome], random: Random) -> None:
    shuffled = random.sample(some, len(some))
    assert front(shuffled) == front(some)
    assert hypervolume(shuffled, BOX) == hypervolume(some, BOX)


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
def test_hypervolume_is_the_share_of_the_box_that_is_dominated(some: list[Outcome]) -> None:
    # `seconds` lie on a grid of half decades, so that a column of it is dominated up to one accuracy.
    total = 0.0
    for column in range(4):  # half decades from 10 s to 1000 s
        ends = 10 ** (1 + column / 2)  # the fast end: what is dominated there needs no longer
        best = max((o.accuracy for o in some if o.cost <= ends * 1.001), default=0.0)
        total += max(0.0, BOX.quality(best)) / 4
    assert hypervolume(some, BOX) == pytest.approx(total, abs=1e-12)


@given(outcomes, seconds, accuracies)
def test_another_outcome_never_lowers_hypervolume(some: list[Outcome], time: float, accuracy: float) -> None:
    more = [*some, Outcome(len(some), time, accuracy)]
    assert hypervolume(more, BOX) >= hypervolume(some, BOX) - 1e-12


@given(outcomes)
def test_only_the_front_counts_in_hypervolume(some: list[Outcome]) -> None:
    assert hypervolume(front(some), BOX) == hypervolume(some, BOX)


@pytest.mark.parametrize(("time", "accuracy"), [(1000.0, 0.9), (5000.0, 1.0), (1.0, 0.2), (1.0, 0.0)])
def test_a_point_outside_the_reference_box_contributes_nothing(time: float, accuracy: float) -> None:
    inside = Outcome(0, 100.0, 0.7)
    assert hypervolume([Outcome(1, time, accuracy)], BOX) == 0.0
    assert hypervolume([inside, Outcome(1, time, accuracy)], BOX) == hypervolume([inside], BOX)


def test_halving_the_time_is_worth_the_same_at_any_time() -> None:
    def gain(time: float) -> float:
        slow, fast = Outcome(0, time, 0.9), Outcome(1, time / 2, 0.9)
        return hypervolume([fast], BOX) - hypervolume([slow], BOX)

    assert gain(40.0) == pytest.approx(gain(500.0)) == pytest.approx(BOX.quality(0.9) * math.log10(2) / 2)


@given(st.integers(0, 50), st.integers(1, 4))
def test_dividing_the_errors_is_worth_the_same_at_any_accuracy(wrong: int, times: int) -> None:
    n = 10**6  # images: so many that half an image more is none

    def quality(share_wrong: float) -> float:
        return replace(BOX, n_images=n).quality(1 - share_wrong)

    few = (wrong + 1) / 100
    gain = quality(few / 2 / 2**times) - quality(few / 2)
    assert gain == pytest.approx(quality(0.5 / 2**times) - quality(0.5), rel=1e-2)


def test_the_whole_box_counts_one_and_a_faster_point_no_more() -> None:
    assert hypervolume([Outcome(0, 10.0, 1.0)], BOX) == pytest.approx(1.0)
    assert hypervolume([Outcome(0, 5.0, 1.0)], BOX) == pytest.approx(1.0)
    assert hypervolume([], BOX) == 0.0
    assert BOX.speed(100.0) == pytest.approx(0.5)


@given(outcomes)
def test_what_is_faster_than_the_box_counts_as_its_fast_end(some: list[Outcome]) -> None:
    within = [replace(o, cost=max(BOX.fastest, o.cost)) for o in some]
    assert 0.0 <= hypervolume(some, BOX) <= 1.0
    assert hypervolume(some, BOX) == pytest.approx(hypervolume(within, BOX))


@pytest.mark.parametrize("n_images", [1, 7, 300, 5000])
def test_an_error_rate_is_never_none_and_falls_with_every_image(n_images: int) -> None:
    rates = [error_rate(right / n_images, n_images) for right in range(n_images + 1)]
    assert all(a > b for a, b in pairwise(rates))
    assert 0 < rates[-1] <= 0.5 / n_images
    assert rates[0] < 1


@pytest.mark.parametrize(
    "changes",
    [
        {"fastest": 1000.0},
        {"fastest": 0.0},
        {"slowest": math.inf},
        {"fastest": math.nan},
        {"useful": 1.0},
        {"n_images": 0},
    ],
)
def test_an_empty_box_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="it must have an extent"):
        replace(BOX, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("time", "accuracy"),
    [(math.inf, 0.5), (math.nan, 0.5), (0.0, 0.5), (-1.0, 0.5), (1.0, math.nan), (1.0, 1.01), (1.0, -0.1)],
)
def test_values_that_optuna_would_put_on_the_front_are_refused(time: float, accuracy: float) -> None:
    with pytest.raises(ValueError, match="trial 7"):
        Outcome(7, time, accuracy)
