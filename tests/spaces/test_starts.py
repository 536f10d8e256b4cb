"""What spaces offer where a trained network may be started from, and that they are what they were where none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from objectives.pipeline import Pipeline
from objectives.starts.naming import origin
from objectives.strategies.transfer import Transfer
from spaces import SPACES, acceleration, everything
from spaces.base import BASELINE, Given, Space, baseline
from spaces.fine_tuning import FINE_TUNING
from spaces.restricted import Restrictions, anchor_pipelines, check, sample, usable_anchors, walk
from tests.objectives.starts.made import standing

NONE = Given("small", ("fp32", "bf16"), (2, 9), (16, 64), (1, 2), (0.5, 2.0), flip=False, size=8, unevenness=9.0)
SOURCE = standing("small", 0.75)
STARTED = replace(NONE, start=origin(SOURCE))
FREE = Restrictions()
OF_STARTS = {"start", *FINE_TUNING}
TUNING = {kind for kind, _ in FINE_TUNING.values()}
offering = pytest.mark.parametrize("space", [acceleration, everything], ids=["acceleration", "everything"])


def drawn(space: Space, given: Given, n: int = 200) -> list[Pipeline]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [sample(space, study.ask(), given, FREE) for _ in range(n)]


def begun(pipeline: Pipeline) -> list[Transfer]:
    return [strategy for strategy in pipeline.strategies if isinstance(strategy, Transfer)]


@pytest.mark.parametrize("name", SPACES)
def test_where_no_start_is_named_nothing_of_one_is_asked(name: str) -> None:
    asked = walk(SPACES[name], NONE, FREE)
    assert not [parameter for parameter in asked if parameter.partition(".")[0] in OF_STARTS]
    for parameters in SPACES[name].anchors(NONE).values():
        assert not [parameter for parameter in parameters if parameter.partition(".")[0] in OF_STARTS]


@offering
def test_a_start_is_a_choice_beside_scratch_and_comes_first(space: Space) -> None:
    pipelines = drawn(space, STARTED)
    assert 60 < sum(bool(begun(pipeline)) for pipeline in pipelines) < 140
    for pipeline in filter(begun, pipelines):
        assert pipeline.strategies[0] == Transfer(SOURCE, origin(SOURCE).digest)


@offering
def test_what_tunes_a_start_is_asked_of_pipelines_that_begin_from_it_and_of_no_other(space: Space) -> None:
    met: set[type] = set()
    for pipeline in drawn(space, STARTED, 300):
        kinds = {type(strategy) for strategy in pipeline.strategies}
        assert begun(pipeline) or not kinds & TUNING
        met |= kinds
    assert met >= {Transfer, *TUNING}


def test_rates_reach_lower_where_a_start_may_be_tuned() -> None:
    least = [min(p.peak_lr / p.batch_size for p in drawn(acceleration, given)) for given in (NONE, STARTED)]
    assert least[1] < 0.5 * least[0]


@offering
def test_known_ways_to_begin_from_a_start_have_its_very_network_and_baseline_has_none(space: Space) -> None:
    pipelines = anchor_pipelines(space, STARTED, FREE)
    assert pipelines[BASELINE] == baseline(STARTED)
    found = {name: pipeline for name, pipeline in pipelines.items() if begun(pipeline)}
    assert list(found) == ["start, a probe of it", "start, all of it", "start, a probe, then all of it"]
    assert {(pipeline.depth, pipeline.width) for pipeline in found.values()} == {(1, 0.75)}
    assert {type(s).__name__ for s in found["start, a probe of it"].strategies} == {
        "Transfer",
        "FrozenStages",
        "LinearProbe",
    }
    assert found["start, a probe of it"].epochs == STARTED.epochs[0]
    asked = walk(space, STARTED, FREE)
    for name, parameters in usable_anchors(space, STARTED, FREE):
        of_starts = {parameter for parameter in parameters if parameter.partition(".")[0] in OF_STARTS}
        assert of_starts <= set(asked), name


def test_what_begins_from_a_start_may_be_fixed_and_is_refused_without_one() -> None:
    check(acceleration, STARTED, Restrictions({"start": True, "probe": True}))
    for name in ("start", "frozen.parts", "rates.body"):
        with pytest.raises(ValueError, match="name one as start under"):
            check(acceleration, NONE, Restrictions({name: True}))


def test_a_start_that_is_gone_leaves_the_space_as_it_was(tmp_path: Path) -> None:
    """Its study can still be read."""
    gone = replace(STARTED, start=replace(origin(SOURCE), source=str(tmp_path / "gone")))
    assert walk(acceleration, gone, FREE) == walk(acceleration, STARTED, FREE)
