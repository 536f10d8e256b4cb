"""What one more run is expected to reach: noise is told from a gain, and pipelines tell of their like."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.pareto.expectation import LEARNING, NOISE, OWN, Runs, expected


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
