"""Laws of the parts that proposals are made of: draws, encoding, Gaussian process, expected improvement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.pareto.improvement import expected_improvement
from search.proposals.draws import Draw, at, drawn, position
from search.proposals.encoding import Encoding
from search.proposals.gaussian_process import Hyperparameters, _loss, fitted

RNG = np.random.default_rng
DISTRIBUTIONS: list[BaseDistribution] = [
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(1e-7, 1.0, log=True),
    FloatDistribution(-10, 10, step=0.5),
    FloatDistribution(2.0, 2.0),
    IntDistribution(-3, 10),
    IntDistribution(1, 100, log=True),
    IntDistribution(3, 9, step=2),
    IntDistribution(4, 4),
    CategoricalDistribution(("a", "b", "c")),
    CategoricalDistribution((False, True)),
    CategoricalDistribution((1, 1.5, None)),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_every_value_is_drawn_and_lies_in_its_distribution(distribution: BaseDistribution) -> None:
    rng = RNG(0)
    values = [drawn(distribution, rng) for _ in range(300)]
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)
    if isinstance(distribution, CategoricalDistribution):
        assert set(map(str, values)) == set(map(str, distribution.choices))
    if isinstance(distribution, IntDistribution) and not distribution.log:
        assert set(values) == set(range(distribution.low, distribution.high + 1, distribution.step))
    assert not any(isinstance(value, np.generic) for value in values)


@pytest.mark.parametrize(
    "distribution", [d for d in DISTRIBUTIONS if not isinstance(d, CategoricalDistribution)], ids=str
)
def test_a_number_is_found_again_at_its_position(distribution: BaseDistribution) -> None:
    rng = RNG(1)
    for _ in range(50):
        value = drawn(distribution, rng)
        assert 0 <= position(distribution, value) <= 1
        assert at(distribution, position(distribution, value)) == pytest.approx(value)


def test_a_draw_near_a_parent_resembles_it_more_than_one_at_random() -> None:
    def space(trial: Draw) -> None:
        if trial.suggest_categorical("switch", (False, True)):
            trial.suggest_float("rate", 0.01, 1.0, log=True)
        trial.suggest_int("n", 1, 50)

    rng = RNG(2)
    parent = {"switch": True, "rate": 0.1, "n": 25}

    def likeness(draw: Draw) -> bool:
        space(draw)
        return draw.params["switch"] is True and abs(draw.params["n"] - 25) < 10

    near = sum(likeness(Draw(rng, parent)) for _ in range(400))
    assert near > 1.5 * sum(likeness(Draw(rng)) for _ in range(400)) > 0


def test_a_parents_value_that_the_space_no_longer_has_is_drawn_anew() -> None:
    for _ in range(20):
        draw = Draw(RNG(3), {"n": 99, "kind": "gone", "flag": 1})
        assert 1 <= draw.suggest_int("n", 1, 5) <= 5
        assert draw.suggest_categorical("kind", ("a", "b")) in ("a", "b")
        assert draw.suggest_categorical("flag", (False, True)) in (False, True)


def test_an_encoding_tells_apart_what_differs_and_says_nothing_twice() -> None:
    offered: dict[str, BaseDistribution] = {
        "prune": CategoricalDistribution((False, True)),
        "kappa": FloatDistribution(1.0, 10.0, log=True),
        "schedule": CategoricalDistribution(("step", "cosine", "one_cycle")),
        "same": IntDistribution(0, 5),
    }
    params = [
        {"prune": False, "schedule": "step", "same": 3},
        {"prune": True, "kappa": 2.0, "schedule": "cosine", "same": 3},
        {"prune": True, "kappa": 9.0, "schedule": "one_cycle", "same": 3},
    ]
    encoding = Encoding.of([offered] * 3, params)
    rows = encoding.rows(params)
    assert len({tuple(row) for row in rows}) == 3
    assert len({tuple(column) for column in rows.T}) == rows.shape[1]
    assert "same" not in encoding.names
    assert "kappa?" not in encoding.names  # `prune` says it
    assert rows.min() >= 0
    assert rows.max() <= 1
    changed = encoding.rows([params[2] | {"kappa": 3.0}])
    assert not np.array_equal(changed[0], rows[2])


def test_the_gradient_of_the_fit_is_that_of_its_loss() -> None:
    rng = RNG(4)
    x, y, known = rng.random((40, 5)), rng.standard_normal(40), 0.1 * rng.random(40)
    vector = np.concatenate([rng.normal(0, 0.5, 5), [0.2, -1.5]])
    _, gradient = _loss(vector, x, y, known)
    for i in range(len(vector)):
        step = np.zeros_like(vector)
        step[i] = 1e-5
        numeric = (_loss(vector + step, x, y, known)[0] - _loss(vector - step, x, y, known)[0]) / 2e-5
        assert gradient[i] == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_a_process_learns_which_columns_matter_how_noisy_it_is_and_how_sure() -> None:
    rng = RNG(5)

    def function(x: np.ndarray) -> np.ndarray:
        return np.asarray(5.0 + np.sin(5 * x[:, 0]) + x[:, 1])

    x = rng.random((120, 6))
    process = fitted(x, function(x) + 0.2 * rng.standard_normal(120), np.zeros(120), Hyperparameters.prior(6))
    assert process.learnt.scales[:2].max() < process.learnt.scales[2:].min()
    assert process.noise == pytest.approx(0.2, rel=0.35)
    fresh = rng.random((300, 6))
    mean, variance = process.predict(fresh)
    assert 1 - np.square(mean - function(fresh)).mean() / function(fresh).var() > 0.95
    assert 0.2 < np.square((mean - function(fresh)) / np.sqrt(variance)).mean() < 3


def test_what_is_less_certain_counts_for_less() -> None:
    x = np.array([[0.5], [0.5], [0.1], [0.9]])
    y, sure = np.array([0.0, 1.0, 0.0, 1.0]), np.zeros(4)
    unsure = np.array([0.0, 100.0, 0.0, 0.0])
    prior = Hyperparameters.prior(1)
    assert fitted(x, y, unsure, prior).predict(x[:1])[0] < fitted(x, y, sure, prior).predict(x[:1])[0]


def test_believed_rows_leave_the_mean_and_take_the_doubt() -> None:
    rng = RNG(6)
    x = rng.random((30, 2))
    process = fitted(x, x[:, 0], np.zeros(30), Hyperparameters.prior(2))
    point = np.array([[1.5, 1.5]])
    (mean, variance), (after, left) = process.predict(point), process.believing(point).predict(point)
    assert after == pytest.approx(mean, abs=1e-3)
    assert left < variance


def dominated_area(front: np.ndarray) -> float:
    """The area of the unit square that points dominate, strip by strip."""
    inside = np.minimum(front[(front > 0).all(1)], 1.0) if len(front) else front
    total, height = 0.0, 0.0
    for right, top in sorted(inside.tolist(), reverse=True):
        total += right * max(0.0, top - height)
        height = max(height, top)
    return total


POINTS = some.lists(some.tuples(some.floats(-0.3, 1.3), some.floats(-0.3, 1.3)), max_size=7)


@given(front=POINTS, mean=some.tuples(some.floats(-0.2, 1.2), some.floats(-0.2, 1.2)), seed=some.integers(0, 100))
def test_expected_improvement_is_the_mean_of_improvements(
    front: list[tuple[float, float]], mean: tuple[float, float], seed: int
) -> None:
    known = np.array(front, dtype=float).reshape(-1, 2)
    rng, spread = RNG(seed), np.array([[0.15, 0.3]])
    expected = expected_improvement(np.array([mean]), spread, known)[0]
    before = dominated_area(known)
    draws = np.array(mean) + spread * rng.standard_normal((400, 2))
    gains = [dominated_area(np.vstack([known, draw])) - before for draw in draws]
    assert expected == pytest.approx(np.mean(gains), abs=5 * np.std(gains) / math.sqrt(len(gains)) + 2e-3)


def test_a_certain_point_improves_by_its_rectangle_and_a_dominated_one_by_nothing() -> None:
    front = np.array([[0.5, 0.5]])
    gains = expected_improvement(
        np.array([[0.8, 0.2], [0.4, 0.4], [0.6, 0.6], [5.0, 0.2]]), np.full((4, 2), 1e-9), front
    )
    assert gains == pytest.approx([0.3 * 0.2, 0.0, 0.6 * 0.6 - 0.25, 0.5 * 0.2], abs=1e-6)
