"""What luck may have done to a hypervolume: laws of resampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto.front import Box, Outcome, hypervolume
from search.pareto.resampling import Run, Searched, area, interval, shared

BOX = Box(1.0, 100.0, 0.5, 400)
POINT = st.tuples(st.floats(0.1, 300.0), st.integers(0, 400).map(lambda n: n / 400))


def searched(seed: int, n: int = 32, factor: float = 1.0, n_seeds: int = 0) -> Searched:
    """Pipelines at random: the longer the better, measured by 400 images; the front with fresh seeds."""
    rng = np.random.default_rng(seed)
    costs = 10 ** rng.uniform(0, 2, n)
    rights = 1 - 10 ** (-0.4 - 0.25 * np.log10(costs) + 0.15 * np.abs(rng.standard_normal(n)))

    def measured(i: int) -> float:
        return float(rng.binomial(400, rights[i]) / 400)

    runs = [Run(i, factor * cost, measured(i)) for i, cost in enumerate(costs)]
    again = [tuple((run.cost, measured(run.trial)) for _ in range(n_seeds)) for run in runs]
    return Searched(tuple(replace(run, again=each) for run, each in zip(runs, again, strict=True)), n, 400)


@given(st.lists(POINT, max_size=12))
def test_the_area_is_the_hypervolume(points: list[tuple[float, float]]) -> None:
    outcomes = [Outcome(i, *point) for i, point in enumerate(points)]
    costs, accuracies = np.array(points).reshape(-1, 2).T
    assert area(costs, accuracies, BOX) == pytest.approx(hypervolume(outcomes, BOX), abs=1e-12)


def test_what_fresh_seeds_say_counts_and_not_what_a_run_was_chosen_for() -> None:
    lucky = Run(0, 2.0, 0.95)
    honest = replace(lucky, again=((2.0, 0.9), (4.0, 0.8)))
    assert (honest.mean.cost, honest.mean.accuracy) == pytest.approx((3.0, 0.85))
    assert Searched((honest,), 1, 400).volume(BOX) < Searched((lucky,), 1, 400).volume(BOX)
    drawn = Searched((honest,), 1, 400).resampled(BOX, 0, 200)
    assert {round(each, 9) for each in drawn} == {
        round(hypervolume([Outcome(0, *mean)], BOX), 9) for mean in ((2.0, 0.9), (3.0, 0.85), (4.0, 0.8))
    }


def test_draws_follow_from_their_seed_and_trials_that_came_to_nothing_are_drawn_too() -> None:
    found = searched(0)
    assert (found.resampled(BOX, 3, 50) == found.resampled(BOX, 3, 50)).all()
    assert (found.resampled(BOX, 3, 50) != found.resampled(BOX, 4, 50)).any()
    one = Searched(found.runs[:1], 4, 400)  # of four trials the other three failed
    missed = (one.resampled(BOX, 0, 1000) == 0).mean()
    assert missed == pytest.approx((1 - 1 / 4) ** 4, abs=0.05)
    assert (Searched((), 4, 400).resampled(BOX, 0, 5) == 0).all()


@pytest.mark.parametrize("n_seeds", [0, pytest.param(2, marks=pytest.mark.long)])
def test_equal_searches_are_seldom_told_apart_and_a_better_one_always(n_seeds: int) -> None:
    def is_told(one: Searched, other: Searched, seed: int) -> bool:
        low, high = interval(one.resampled(BOX, seed, 160) - other.resampled(BOX, seed + 1, 160))
        return not low <= 0 <= high

    pairs = [(searched(2 * i, n_seeds=n_seeds), searched(2 * i + 1, n_seeds=n_seeds)) for i in range(14)]
    assert sum(is_told(*pair, seed) for seed, pair in enumerate(pairs)) <= 2
    faster = [searched(2 * i + 1, factor=0.4, n_seeds=n_seeds) for i in range(3)]
    assert all(is_told(one, fast, seed) for seed, ((one, _), fast) in enumerate(zip(pairs, faster, strict=False)))


def test_a_shared_box_holds_each_and_is_as_coarse_as_the_coarsest() -> None:
    other = Box(0.5, 50.0, 0.6, 100)
    assert shared([BOX, other]) == shared([other, BOX]) == Box(0.5, 100.0, 0.5, 100)
    assert shared([BOX, BOX]) == BOX
