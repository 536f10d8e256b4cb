"""`ParetoSampler` keeps Optuna's own laws of samplers, and its own: it covers, it learns, it is reproducible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

from search.proposals.pareto_sampler import ParetoSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


class TestOptunasLaws(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ParetoSampler(seed=0)


def choose(trial: Any) -> tuple[float, float, float]:
    """A conditional space: what a kind has, the other does not."""
    kind = trial.suggest_categorical("kind", ("linear", "deep", "none"))
    effort = trial.suggest_float("effort", 0.1, 10.0, log=True)
    depth = trial.suggest_int("depth", 1, 8) if kind == "deep" else 4
    return {"linear": 0.3, "deep": 0.05, "none": 0.6}[kind], effort, depth


def outcome(trial: Any) -> tuple[float, float]:
    """(cost, share that is right): both rise with effort."""
    least_error, effort, depth = choose(trial)
    return effort * depth, 1 - min(1.0, least_error + 0.1 / effort + 0.02 * (depth - 3) ** 2)


def study_of(sampler: BaseSampler, n_trials: int) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    study.optimize(outcome, n_trials=n_trials)
    return study


def area(study: optuna.Study) -> float:
    """Of (log10 cost, share), down from a cost of 80."""
    total, below = 0.0, 0.0
    for cost, share in sorted(t.values for t in study.best_trials):
        total += max(0.0, np.log10(80 / cost)) * max(0.0, share - below)
        below = max(below, share)
    return total


def ours(seed: int, **options: Any) -> ParetoSampler:
    return ParetoSampler(choose, logarithmic=(True, False), first_is_cost=True, seed=seed, **options)


def test_start_up_tries_every_choice_twice() -> None:
    for seed in range(3):
        kinds = Counter(trial.params["kind"] for trial in study_of(ours(seed), 8).trials)
        assert set(kinds) == {"linear", "deep", "none"}
        assert min(kinds.values()) >= 2


def test_it_finds_more_of_the_front_than_draws_at_random() -> None:
    found, drawn = (
        [area(study_of(make(seed), 24)) for seed in range(4)] for make in (ours, lambda seed: RandomSampler(seed=seed))
    )
    assert fmean(found) > fmean(drawn) + 0.02


def test_the_same_seed_proposes_the_same() -> None:
    one, two = (study_of(ours(7), 14) for _ in range(2))
    assert [t.params for t in one.trials] == [t.params for t in two.trials]
    assert [t.params for t in one.trials] != [t.params for t in study_of(ours(8), 14).trials]


def test_without_a_space_it_learns_from_what_was_asked() -> None:
    study = study_of(ParetoSampler(logarithmic=(True, False), seed=0), 25)
    assert {frozenset(t.params) for t in study.trials[10:]} <= {frozenset(t.params) for t in study.trials}
    assert area(study) > 0


def test_parallel_trials_are_not_proposed_twice() -> None:
    study = study_of(ours(0), 15)
    running = [study.ask() for _ in range(5)]
    for trial in running:
        choose(trial)
    assert len({tuple(sorted(t.params.items())) for t in running}) == 5
    assert all(study.trials[t.number].state == TrialState.RUNNING for t in running)


def test_nothing_is_proposed_twice_while_there_is_anything_else() -> None:
    def coarse(trial: Any) -> tuple[float, float]:
        kind, depth = trial.suggest_categorical("kind", "abc"), trial.suggest_int("depth", 1, 10)
        return depth * (1.0 + 0.1 * (kind == "b")), depth / (10.0 + (kind == "c"))

    study = optuna.create_study(directions=["minimize", "maximize"], sampler=ParetoSampler(coarse, seed=0))
    study.optimize(coarse, n_trials=29)
    assert len({str(t.params) for t in study.trials}) == 29
    study.optimize(coarse, n_trials=6)  # there are 30


@pytest.mark.parametrize("way", ["pruned", "failed", "infinite"])
def test_what_breaks_is_not_proposed_over_and_over(way: str) -> None:
    """One kind does, and would be the best."""

    def breaking(trial: Any) -> tuple[float, float]:
        kind, effort = trial.suggest_categorical("kind", "abc"), trial.suggest_float("effort", 0.1, 1.0)
        if kind == "c" and way == "pruned":
            raise optuna.TrialPruned
        if kind == "c" and way == "failed":
            raise RuntimeError("out of memory")
        return float("inf") if kind == "c" else effort, 1 - 0.1 / effort + 0.5 * (kind == "c")

    study = optuna.create_study(directions=["minimize", "maximize"], sampler=ParetoSampler(seed=0))
    study.optimize(breaking, n_trials=30, catch=RuntimeError)
    assert sum(trial.params["kind"] == "c" for trial in study.trials[10:]) < 4


def test_a_trial_that_was_pruned_on_its_way_does_not_say_what_is_asked() -> None:
    def hasty(trial: Any) -> tuple[float, float]:
        if trial.suggest_float("x", 0.0, 1.0) > 0.3:
            raise optuna.TrialPruned
        return trial.suggest_float("y", 0.0, 1.0), trial.params["x"]

    study = optuna.create_study(directions=["minimize", "maximize"], sampler=ParetoSampler(seed=0))
    study.enqueue_trial({"x": 0.1, "y": 0.5})
    study.optimize(hasty, n_trials=20)
    proposed = sum("y" in study.ask().relative_params for _ in range(5))
    assert proposed == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_startup_trials": 0}, "n_startup_trials is 0"),
        ({"first_is_cost": True}, "improvement per cost needs it to be True"),
        ({"box": ((1, 1), (1, 0))}, "box is from 1 to 1 in objective 0"),
        ({"box": ((1, float("nan")), (2, 0))}, "box is from nan to 0 in objective 1"),
        ({"box": ((0, 1), (1, 0)), "logarithmic": (True, False)}, "box reaches 0 in objective 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParetoSampler(**options)


def test_mistakes_are_told() -> None:
    maximised = optuna.create_study(directions=["maximize", "maximize"], sampler=ours(0))
    with pytest.raises(ValueError, match="the study maximises objective 0: a cost is minimised"):
        maximised.ask().suggest_float("effort", 0.1, 10.0, log=True)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=ours(0))
    study.optimize(lambda t: (-1.0, t.suggest_float("x", 0, 1)), n_trials=1)
    with pytest.raises(ValueError, match="objective 0 is -1"):
        study.ask().suggest_float("effort", 0.1, 10.0, log=True)
