"""What is asked of a run that starts from a trained network."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest

from objectives.networks.plain import sections
from objectives.pipeline import Pipeline
from objectives.strategies.base import Strategy
from objectives.strategies.frozen_stages import FrozenStages
from spaces.base import Given
from spaces.fine_tuning import FINE_TUNING, can_act
from spaces.run import outlined

GIVEN = Given("thin", ("fp32",), (1, 6), (32, 256), (1, 3), (0.5, 2.0), flip=True)
FAMILIES = ("thin", "fast", "vgg", "lenet300")


def drawn(switch: str, given: Given, epochs: int, n: int = 40) -> list[Strategy]:
    """Strategies that an ingredient chooses at random in runs of so many epochs."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    run = outlined(given, Pipeline(epochs=epochs))
    assert can_act(switch, run)
    return [FINE_TUNING[switch][1](study.ask(), given, run) for _ in range(n)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("switch", FINE_TUNING)
@pytest.mark.parametrize("epochs", [1, 2, 6])
def test_what_is_chosen_has_an_effect_and_survives_json(switch: str, family: str, epochs: int) -> None:
    given = replace(GIVEN, family=family)
    run = outlined(given, Pipeline(epochs=epochs))
    for strategy in drawn(switch, given, epochs):
        assert type(strategy) is FINE_TUNING[switch][0]
        assert strategy.idle(run) is None
        pipeline = Pipeline(epochs=epochs, strategies=(strategy,))
        assert Pipeline.from_json(pipeline.to_json()) == pipeline


def test_frozen_parts_are_asked_for_as_far_as_there_are_and_thaw_within_the_run() -> None:
    run = outlined(GIVEN, Pipeline(epochs=3))
    found = [strategy for strategy in drawn("frozen", GIVEN, 3, 200) if isinstance(strategy, FrozenStages)]
    assert {strategy.parts for strategy in found} == set(range(1, len(sections(run.full)) + 1))
    assert {strategy.statistics for strategy in found} == {"kept", "adapted"}
    assert all(strategy.until == 1 or strategy.until <= 2 / 3 for strategy in found)
    assert any(strategy.until < 1 for strategy in found)
    once = [strategy for strategy in drawn("frozen", GIVEN, 1) if isinstance(strategy, FrozenStages)]
    assert {strategy.until for strategy in once} == {1.0}


def test_statistics_are_not_asked_for_where_there_are_none() -> None:
    found = drawn("frozen", replace(GIVEN, family="lenet300"), 3)
    assert {getattr(strategy, "statistics", None) for strategy in found} == {"kept"}


def test_all_ingredients_of_fine_tuning_run_together() -> None:
    run = outlined(GIVEN, Pipeline(epochs=4))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    strategies = tuple(chosen(study.ask(), GIVEN, run) for _, chosen in FINE_TUNING.values())
    assert Pipeline(strategies=strategies).strategies == strategies
