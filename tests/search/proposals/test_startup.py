"""Start-up tries every strategy of every space that a study may have, cheaply, and stops when it has."""

from __future__ import annotations

from collections import Counter
from math import log10
from typing import Any

import numpy as np
import pytest

from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Task
from search.proposals import interest
from search.proposals.draws import Draw, candidate
from search.proposals.experience import PLAIN_EVERY
from search.proposals.proposal import Goal, Memory, Settings, Tried, propose
from search.proposals.startup import CHEAP_SHARE, covering
from spaces import SPACES
from spaces.base import Given
from spaces.ingredients import EVERYTHING
from spaces.restricted import RestrictedTrial, Restrictions, sample, usable_anchors

GOAL = Goal((-1.0, -2.5), (2.0, 0.0))
GIVENS = {
    "digits": Given(
        "small", ("fp32", "bf16"), (3, 30), (16, 128), (1, 2), (0.5, 2.0), False, "digits", size=8, n_train=1200
    ),
    "two classes": Given(
        "thin", ("fp32",), (2, 10), (16, 64), (1, 1), (0.5, 1.0), True, "folder:x", size=32, n_train=160
    ),
    "CIFAR-10": Given("wide", ("fp32", "bf16", "fp16"), (4, 24), (64, 1024), (1, 3), (0.5, 4.0), True, "cifar10"),
}


def proposals(name: str, space: str, n: int, seed: int) -> list[tuple[dict[str, Any], Pipeline]]:
    """What is proposed to a study in which every trial ends alike: nothing is learned."""
    given, task = GIVENS[name], Task(DataSpec("digits"), GIVENS[name].family)
    tried: list[Tried] = []
    found = []

    def choose(trial: Any) -> Pipeline:
        return sample(SPACES[space], trial, given, Restrictions())

    for number in range(n):
        best = propose(
            choose,
            tried,
            GOAL,
            np.random.default_rng((seed, number)),
            lambda pipeline: (log10(interest.forecast(pipeline, task, given, None)), 0.0),
            Settings(n_random=120),
            Memory(),
        )
        tried.append(Tried(best.params, best.distributions, (0.0, -1.0)))
        found.append((dict(best.params), best.chosen))
    return found


def studied(name: str, space: str, n: int, seed: int) -> list[dict[str, Any]]:
    """The parameters of the first trials of a study: its anchors, then proposals, one in eight plain, as they come."""
    given, task, settings = GIVENS[name], Task(DataSpec("digits"), GIVENS[name].family), Settings(n_random=120)
    tried = []
    for _, parameters in usable_anchors(SPACES[space], given, Restrictions()):
        draw = Draw(np.random.default_rng(0), None, parameters)
        SPACES[space].sample(RestrictedTrial(draw, Restrictions(), parameters), given)  # type: ignore[arg-type]
        tried.append(Tried(draw.params, draw.distributions, (0.0, -1.0), is_given=True))

    def choose(trial: Any) -> Pipeline:
        return sample(SPACES[space], trial, given, Restrictions())

    def expect(pipeline: Pipeline) -> tuple[float, float]:
        return log10(interest.forecast(pipeline, task, given, None)), 0.0

    for number in range(n - len(tried)):
        rng, is_plain = np.random.default_rng((seed, number)), number % PLAIN_EVERY == PLAIN_EVERY - 1
        settled = dict.fromkeys(EVERYTHING, False) if is_plain else {}
        best = propose(choose, tried, GOAL, rng, expect, settings, Memory(), settled)
        tried.append(Tried(best.params, best.distributions, (0.0, -1.0)))
    return [dict(each.params) for each in tried]


@pytest.mark.parametrize(
    "space",
    [
        "acceleration",
        pytest.param("structure", marks=pytest.mark.long),
        pytest.param("everything", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("name", sorted(GIVENS))
def test_in_a_study_of_thirty_trials_every_strategy_is_tried_twice(name: str, space: str) -> None:
    tries = Counter(s for params in studied(name, space, 30, seed=0) for s in EVERYTHING if params.get(s))
    possible = {s for params, _ in _drawn(name, space) for s in EVERYTHING if params.get(s)}
    assert {switch: tries[switch] for switch in possible if tries[switch] < 2} == {}


@pytest.mark.parametrize(
    "space", [pytest.param(n, marks=[pytest.mark.long] * (n in ("everything", "structure"))) for n in sorted(SPACES)]
)
@pytest.mark.parametrize("name", sorted(GIVENS))
def test_every_strategy_is_tried_before_a_model_leads(name: str, space: str) -> None:
    # twice; of the space of all once: of its forty many refuse each other, and each needs trials of its own
    n, least = {"acceleration": (10, 2), "everything": (25, 1)}.get(space, (20, 2))
    tries = Counter(s for params, _ in proposals(name, space, n, seed=0) for s in EVERYTHING if params.get(s))
    possible = {s for params, _ in _drawn(name, space) for s in EVERYTHING if params.get(s)}
    assert {switch for switch in possible if tries[switch] < least} == set()


@pytest.mark.parametrize("name", sorted(GIVENS))
def test_start_up_trials_are_cheap(name: str) -> None:
    given, task = GIVENS[name], Task(DataSpec("digits"), GIVENS[name].family)
    costs = [interest.forecast(p, task, given, None) for _, p in proposals(name, "acceleration", 6, seed=1)]
    usual = [interest.forecast(p, task, given, None) for _, p in _drawn(name, "acceleration")]
    assert np.median(costs) < np.median(usual)


def test_whether_is_tried_before_how() -> None:
    def space(trial: Any) -> None:
        if trial.suggest_categorical("prune", (False, True)):
            trial.suggest_categorical("prune.interval", (1, 2))
            trial.suggest_categorical("prune.round_to", (1, 8))
        else:
            trial.suggest_categorical("grow", (True,))

    draws = [candidate(space, Draw(np.random.default_rng(0), None, {"prune": prune})) for prune in (True, False)]
    tried: Counter[Any] = Counter({("prune", bool, prune): 2 for prune in (True, False)})
    assert covering(draws, [0.0, 1.0], tried) is draws[1]
    assert covering(draws, [0.0, 1.0], tried + Counter({("grow", bool, True): 2})) is draws[0]


def test_what_only_dear_draws_try_is_tried_all_the_same() -> None:
    def space(trial: Any) -> float:
        epochs = trial.suggest_int("epochs", 1, 100)
        return float(epochs + 1000 * (epochs > 70 and trial.suggest_categorical("prune", (True,))))

    rng = np.random.default_rng(0)
    draws = [candidate(space, Draw(rng)) for _ in range(60)]
    chosen = covering(draws, [each.chosen for each in draws], Counter())
    assert "prune" in chosen.params
    after = covering(draws, [each.chosen for each in draws], Counter({("prune", bool, True): 2}))
    assert sorted(each.chosen for each in draws).index(after.chosen) < CHEAP_SHARE * len(draws)


def _drawn(name: str, space: str) -> list[tuple[dict[str, Any], Pipeline]]:
    rng = np.random.default_rng(9)
    found = []
    for _ in range(300):
        draw = Draw(rng)
        chosen = sample(SPACES[space], draw, GIVENS[name], Restrictions())  # type: ignore[arg-type]
        found.append((draw.params, chosen))
    return found
