"""What one more run is expected to reach: noise is told from a gain, and pipelines tell of their like."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto.expectation import LEARNING, NOISE, OWN, Runs, expected, noise_of, worth_another


def runs(like: str, epochs: int, *accuracies: float) -> Runs:
    return Runs(like, math.log10(epochs), accuracies)


def test_nothing_is_expected_of_nothing() -> None:
    assert expected([]) == []


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.9, 1.0])
def test_one_pipeline_is_expected_to_do_as_it_did(accuracy: float) -> None:
    (found,) = expected([runs("a", 4, accuracy)])
    assert found == pytest.approx(min(accuracy, 0.999))


def test_a_longer_run_that_is_behind_by_noise_alone_is_expected_to_be_ahead() -> None:
    """As it was on Fashion-MNIST: the shorter one was chosen by a fresh seed that was 0.17 points better."""
    two, three, eight = expected([runs("a", 2, 0.8692), runs("a", 3, 0.8808, 0.875), runs("a", 8, 0.8867, 0.8733)])
    assert two < three < eight


def test_what_many_seeds_say_outweighs_what_is_believed() -> None:
    short, long = expected([runs("a", 3, *[0.90] * 20), runs("a", 12, *[0.86] * 20)])
    assert short > long
    assert short == pytest.approx(0.90, abs=0.005)
    assert long == pytest.approx(0.86, abs=0.005)


def test_of_pipelines_that_are_not_alike_each_is_taken_for_what_it_did() -> None:
    found = expected([runs("a", 4, 0.9), runs("b", 4, 0.8), runs("c", 4, 0.7)])
    assert found == pytest.approx([0.9, 0.8, 0.7], abs=0.01)


def test_the_choice_by_it_is_better_than_that_by_the_last_fresh_seed() -> None:
    """Over many made-up studies of the world that it believes in: what the chosen pipeline is really worth."""
    random = np.random.default_rng(0)
    by_seed, by_it = [], []
    for _ in range(2000):
        epochs = np.array([2, 3, 5, 8, 12])
        slope = random.normal(*LEARNING)
        truth = -1 - slope * np.log10(epochs) + random.normal(0, OWN, len(epochs))
        first = truth + random.normal(0, NOISE / math.sqrt(2), len(epochs))
        best = np.argsort(first)[:3]
        fresh = {i: truth[i] + random.normal(0, NOISE / math.sqrt(2)) for i in best}
        told = [
            runs("a", n, *(1 - 10 ** np.array([first[i], *([fresh[i]] if i in fresh else [])])))
            for i, n in enumerate(epochs)
        ]
        by_it.append(truth[int(np.argmax(expected(told)))])
        by_seed.append(truth[min(fresh, key=lambda i: fresh[i])])
    gains = np.array(by_seed) - np.array(by_it)  # decades of error
    assert gains.mean() > 3 * gains.std() / math.sqrt(len(gains))


def test_the_fewer_images_validate_the_less_a_run_that_is_ahead_says() -> None:
    assert noise_of(1000) == NOISE
    assert noise_of(370) == pytest.approx(0.04, abs=0.002)
    told = [runs("a", 3, 0.88), runs("a", 8, 0.87)]
    ahead = [short - long for short, long in (expected(told, noise_of(n)) for n in (10**6, 1000, 100, 10))]
    assert ahead == sorted(ahead, reverse=True)
    assert ahead[0] > 0 > ahead[-1]


def test_another_run_of_nothing_or_of_the_only_pipeline_changes_no_choice() -> None:
    assert worth_another([]) == []
    assert worth_another([runs("a", 4, 0.9)]) == pytest.approx([0.0], abs=1e-12)


def test_another_run_is_worth_most_where_the_choice_is_open_and_nothing_where_it_is_made() -> None:
    near, far = ("a", 8, 0.90, 0.90), ("b", 8, 0.50)
    open_, _, other = worth_another([runs(*near), runs(*far), runs("c", 8, 0.898)])
    assert other > open_ > 0  # of the two that are near each other that which has run once tells more
    assert other > 0.001
    made, hopeless, known = worth_another([runs(*near), runs(*far), runs("c", 8, *[0.80] * 20)])
    assert made == pytest.approx(0.0, abs=1e-4)
    assert hopeless == pytest.approx(0.0, abs=1e-4)
    assert known == pytest.approx(0.0, abs=1e-4)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 30), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=3)),
        min_size=1,
        max_size=6,
    )
)
def test_what_another_run_tells_is_expected_to_do_no_harm(told: list[tuple[str, int, list[float]]]) -> None:
    assert min(worth_another([runs(like, epochs, *accuracies) for like, epochs, accuracies in told])) >= -1e-9


def test_further_runs_where_they_are_worth_most_make_the_choice_better() -> None:
    """Over many made-up studies of the world that it believes in: what the chosen pipeline is really worth."""
    random = np.random.default_rng(0)
    gains = []
    for _ in range(600):
        epochs, like = np.array([4, 8, 8, 6, 8, 3]), "aabbcd"
        bases = {each: random.normal(-0.6, 0.03) for each in "abcd"}
        own = [bases[each] + random.normal(0, OWN) for each in like]
        truth = np.array(own) - random.normal(*LEARNING) * np.log10(epochs)
        errors = [[each + random.normal(0, NOISE / math.sqrt(2))] for each in truth]
        chosen = []
        for _ in range(4):
            told = [runs(k, n, *(1 - 10 ** np.array(ran))) for k, n, ran in zip(like, epochs, errors, strict=True)]
            chosen.append(truth[int(np.argmax(expected(told)))])
            most = int(np.argmax(worth_another(told)))
            errors[most].append(truth[most] + random.normal(0, NOISE / math.sqrt(2)))
        gains.append(chosen[0] - chosen[-1])
    assert np.mean(gains) > 3 * np.std(gains) / math.sqrt(len(gains))
