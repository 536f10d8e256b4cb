"""What a space offers, how a study file restricts it, and what its fingerprint sees."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from objectives.pipeline import Pipeline
from objectives.reduction.settings import Reduction
from objectives.strategies import STRATEGIES
from spaces import SPACES, acceleration, everything, reduction, structure
from spaces.base import BASELINE, Given, Reducing, Space, Value, baseline
from spaces.fine_tuning import FINE_TUNING
from spaces.ladders import LADDERS
from spaces.restricted import Restrictions, _Explorer, anchor_pipelines, check, sample, usable_anchors, walk
from spaces.run import outlined

GIVEN = Given("thin", ("fp32", "bf16"), (2, 6), (32, 256), (1, 3), (0.5, 2.0), flip=True, unevenness=9.0)
FREE = Restrictions()


def random_pipelines(space: Space, given: Given, restrictions: Restrictions, n: int, seed: int = 0) -> list[Pipeline]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [sample(space, study.ask(), given, restrictions) for _ in range(n)]


@pytest.mark.parametrize("name", SPACES)
def test_every_sample_is_a_pipeline_that_survives_json(name: str) -> None:
    for pipeline in random_pipelines(SPACES[name], GIVEN, FREE, 100):
        assert Pipeline.from_json(pipeline.to_json()) == pipeline


@pytest.mark.parametrize("name", SPACES)
def test_the_first_anchor_is_the_baseline(name: str) -> None:
    anchors = usable_anchors(SPACES[name], GIVEN, FREE)
    assert anchors[0][0] == BASELINE
    study = optuna.create_study()
    study.enqueue_trial(anchors[0][1])
    ordinary = Pipeline(reduction=Reduction(iterations=20)) if name == "reduction" else baseline(GIVEN)
    assert sample(SPACES[name], study.ask(), GIVEN, FREE, BASELINE) == ordinary


@pytest.mark.parametrize("name", SPACES)
def test_every_anchor_lies_in_the_space(name: str) -> None:
    asked = walk(SPACES[name], GIVEN, FREE)
    for anchor, parameters in usable_anchors(SPACES[name], GIVEN, FREE):
        assert set(parameters) <= set(asked), anchor
        study = optuna.create_study()
        study.enqueue_trial(parameters)
        trial = study.ask()
        sample(SPACES[name], trial, GIVEN, FREE, anchor)
        assert trial.params.items() <= parameters.items()


def test_a_reduction_keeps_to_its_ranges_and_to_how_its_network_was_trained() -> None:
    base = Pipeline(batch_size=32, lr=0.3)
    given = replace(GIVEN, reducing=Reducing(base, epsilon=(0.02, 0.03), epochs=(2, 2), iterations=(3, 5)))
    anchors = usable_anchors(reduction, given, FREE)
    drawn = random_pipelines(reduction, given, FREE, 50)
    for pipeline in [*drawn, *anchor_pipelines(reduction, given, FREE).values()]:
        assert replace(pipeline, reduction=None) == base
        assert pipeline.reduction is not None
        assert 0.02 <= pipeline.reduction.epsilon <= 0.03
        assert (pipeline.reduction.epochs, pipeline.reduction.iterations in (3, 4, 5)) == (2, True)
    assert len(anchors) == len({str(parameters) for _, parameters in anchors})


def test_one_space_offers_every_strategy_and_the_default_one_some() -> None:
    def offered(space: Space, n: int = 200) -> set[str]:
        return {type(s).__name__ for p in random_pipelines(space, GIVEN, FREE, n) for s in p.strategies}

    measured = {name for name, kind in STRATEGIES.items() if not kind.emulated}
    tuning = {"Transfer", *(kind.__name__ for kind, _ in FINE_TUNING.values())}  # only where there is a start
    # the more strategies refuse each other, the rarer each of them
    assert offered(everything, 400) == measured - {"FixedArchitecture", *tuning}  # nobody draws what another run found
    assert offered(structure) == {kind.__name__ for kind, _ in structure.INGREDIENTS.values()}
    assert offered(acceleration) == {kind.__name__ for kind, _ in acceleration.INGREDIENTS.values()} - tuning


def test_the_structure_of_a_network_is_changed_by_one_method_at_a_time_or_by_none() -> None:
    found = [len(pipeline.strategies) for pipeline in random_pipelines(structure, GIVEN, FREE, 200)]
    assert set(found) == {0, 1}


@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_lies_in_the_space_of_its_data(name: str) -> None:
    given = replace(GIVEN, data=name, epochs=(1, 60), batch_size=(16, 1024), depth=(1, 3), flip=name != "digits")
    asked = walk(acceleration, given, FREE)
    for anchor, rung in LADDERS[name].items():
        parameters = acceleration.anchors(given)[anchor]
        pipeline = sample(acceleration, FixedTrial(parameters), given, FREE, anchor)
        assert pipeline != baseline(given)
        assert set(rung.parameters) <= set(asked), anchor
        assert 1 <= pipeline.epochs <= 60


def test_the_space_keeps_to_what_it_is_given() -> None:
    given = replace(GIVEN, flip=False, number_formats=("fp32",), depth=(2, 2))
    for pipeline in random_pipelines(acceleration, given, FREE, 100):
        assert not pipeline.flip
        assert pipeline.number_format == "fp32"
        assert pipeline.depth == 2
        assert 2 <= pipeline.epochs <= 6
        assert 32 <= pipeline.batch_size <= 256
        assert 0.5 <= pipeline.width <= 2


RESTRICTIONS: list[tuple[Space, dict[str, Value], dict[str, list[Value]]]] = [
    (acceleration, {"number_format": "bf16"}, {}),
    (acceleration, {"epochs": 3, "lr": 0.5, "batch.log2_size": 7}, {}),
    (acceleration, {}, {"whiten": [True]}),
    (everything, {"resolution": True}, {"schedule": ["step", "cosine"]}),
    (everything, {"batch.ghost": 32}, {"augment.cutout": [0.0]}),
]


@pytest.mark.parametrize(("space", "fix", "exclude"), RESTRICTIONS)
def test_restrictions_hold_in_every_sample_and_leave_the_rest_free(
    space: Space, fix: dict[str, Value], exclude: dict[str, list[Value]]
) -> None:
    restrictions = Restrictions(fix, exclude)
    check(space, GIVEN, restrictions)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: set[str] = set()
    for _ in range(60):
        trial = study.ask()
        pipeline = sample(space, trial, GIVEN, restrictions)
        assert not set(fix) & set(trial.params)
        for name, values in exclude.items():
            assert trial.params.get(name) not in values
        if "number_format" in fix:
            assert pipeline.number_format == "bf16"
        if "epochs" in fix:
            assert (pipeline.epochs, pipeline.lr) == (3, 0.25)  # 0.5 for 256 samples
        if "whiten" in exclude:
            assert "Whitening" not in {type(s).__name__ for s in pipeline.strategies}
        if "resolution" in fix:
            assert "ProgressiveResolution" in {type(s).__name__ for s in pipeline.strategies}
            assert pipeline.schedule == "one_cycle"
        seen.add(repr(pipeline))
    assert len(seen) >= 58  # of what is left few draws are equal


@pytest.mark.parametrize(("space", "fix", "exclude"), RESTRICTIONS)
def test_the_baseline_is_the_same_in_every_restricted_study(
    space: Space, fix: dict[str, Value], exclude: dict[str, list[Value]]
) -> None:
    restrictions = Restrictions(fix, exclude)
    study = optuna.create_study()
    for name, parameters in usable_anchors(space, GIVEN, restrictions):
        study.enqueue_trial(parameters, user_attrs={"anchor": name})
    trial = study.ask()
    assert sample(space, trial, GIVEN, restrictions, BASELINE) == baseline(GIVEN)


def test_other_anchors_obey_restrictions_and_no_two_are_equal() -> None:
    restrictions = Restrictions({"number_format": "bf16"}, {"resolution": [True]})
    anchors = dict(usable_anchors(acceleration, GIVEN, restrictions))
    assert "progressive resolution" not in anchors
    assert anchors["long one-cycle"]["number_format"] == "bf16"
    twins = usable_anchors(
        acceleration, replace(GIVEN, number_formats=("bf16",)), Restrictions({"number_format": "fp32"})
    )
    assert len({repr(parameters) for _, parameters in twins}) == len(twins)


def test_the_walk_sees_every_parameter_that_a_sample_can_have() -> None:
    asked = set(walk(acceleration, GIVEN, FREE))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    met: set[str] = set()
    for _ in range(300):
        trial = study.ask()
        acceleration.sample(trial, GIVEN)  # unrestricted: also what has one value only
        met |= set(trial.params)
    assert asked == met


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(6, 50))
def test_the_walk_tells_two_spaces_apart(low: int, high: int) -> None:
    same = walk(acceleration, GIVEN, FREE) == walk(acceleration, replace(GIVEN, epochs=(low, high)), FREE)
    assert same == ((low, high) == GIVEN.epochs)


def test_an_anchor_outside_the_ranges_of_a_study_is_used_without_misleading_the_sampler() -> None:
    given = replace(GIVEN, batch_size=(256, 512))
    study = optuna.create_study()
    study.enqueue_trial(dict(usable_anchors(acceleration, given, FREE))[BASELINE])
    trial = study.ask()
    assert sample(acceleration, trial, given, FREE, BASELINE).batch_size == 128
    assert "batch.log2_size" not in trial.params


# --- only what acts ---------------------------------------------------------------------------------------------------

SHORT_AND_SMALL = [
    replace(GIVEN, family=family, size=size, epochs=epochs, depth=(1, 2), width=(0.25, 2.0))
    for family in ("small", "thin", "fast", "imagenet18")
    for size in (4, 8, 28, 32, 96)
    for epochs in ((1, 1), (2, 3), (1, 40))
]


@pytest.mark.parametrize(
    "space",
    [pytest.param(acceleration, id="acceleration"), pytest.param(everything, id="everything", marks=pytest.mark.long)],
)
def test_whatever_is_sampled_has_an_effect(space: Space) -> None:
    """In the run at hand: its network, its images, its epochs."""
    n_strategies = 0
    for those in SHORT_AND_SMALL:
        for pipeline in random_pipelines(space, those, FREE, 25):
            outline = outlined(those, pipeline)
            for strategy in pipeline.strategies:
                assert strategy.idle(outline) is None, (strategy, outline)
                n_strategies += 1
            assert those.size >= 8 or not pipeline.crop
            assert pipeline.epochs > 1 or not pipeline.alternating_flip
    assert n_strategies > 1000


def test_every_parameter_of_a_strategy_that_is_asked_moves_the_strategy() -> None:
    """Both ends of its range give two pipelines, wherever it is asked."""
    for those in SHORT_AND_SMALL:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
        for _ in range(8):
            trial = study.ask()
            sample(acceleration, trial, those, FREE)
            for name, distribution in trial.distributions.items():
                if "." in name and isinstance(distribution, (FloatDistribution, IntDistribution)):
                    ends = [{**trial.params, name: end} for end in (distribution.low, distribution.high)]
                    found = [walked(those, parameters) for parameters in ends]
                    assert found[0] != found[1], (name, those)


def walked(given: Given, parameters: dict[str, Value]) -> Pipeline:
    """The pipeline of these parameters; what is asked beyond them is at its first value."""
    return sample(acceleration, _Explorer(parameters, highest=False), given, FREE)


@pytest.mark.parametrize("given", SHORT_AND_SMALL[::4], ids=lambda g: f"{g.family} {g.size} {g.epochs}")
def test_anchors_lie_in_short_and_small_studies_too_and_the_walk_sees_all_that_is_asked(given: Given) -> None:
    asked = set(walk(acceleration, given, FREE))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(150):
        trial = study.ask()
        acceleration.sample(trial, given)
        assert set(trial.params) <= asked
    for name, parameters in usable_anchors(acceleration, given, FREE):
        study.enqueue_trial(parameters)
        pipeline = sample(acceleration, study.ask(), given, FREE, name)
        outline = outlined(given, pipeline)
        assert all(strategy.idle(outline) is None for strategy in pipeline.strategies), name
        assert name != BASELINE or pipeline == baseline(given)
