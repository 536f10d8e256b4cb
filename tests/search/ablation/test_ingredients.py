"""What a pipeline is made of: each ingredient is switched off by itself, and all of them at once are BASELINE."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from objectives.pipeline import Pipeline
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.prune_train import PruneTrain
from search.ablation.ingredients import SETTINGS, WHOLE, said, switch, taken_apart
from search.proposals.draws import Draw
from spaces import everything
from spaces.base import BASELINE, Given, baseline, obstacle
from tests.objectives.strategies.cases import CASES

GIVEN = Given("small", ("fp32", "bf16"), (2, 20), (16, 256), (1, 3), (0.5, 2.0), flip=True, size=16)
REFERENCE = baseline(GIVEN)
FAST = replace(REFERENCE, epochs=4, lr=0.5, schedule="one_cycle", strategies=(HaarStem(), Freeze()))
SMALL = replace(GIVEN, size=4, family="thin")  # a single value per channel in the last stage
FREE = {"executor", "reduction", "strategies"}  # settings that are no group of their own


def changed(one: Pipeline, other: Pipeline) -> set[str]:
    return {field.name for field in fields(Pipeline) if getattr(one, field.name) != getattr(other, field.name)}


def test_every_setting_is_in_one_group() -> None:
    named = [name for names in SETTINGS.values() for name in names]
    assert sorted(named) == sorted({field.name for field in fields(Pipeline)} - FREE | {"executor"})


def test_each_variant_of_any_pipeline_lacks_one_ingredient_and_all_of_them_together_are_baseline() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        whole = everything.sample(Draw(rng), GIVEN)
        found = taken_apart(whole, REFERENCE, GIVEN, "compile set up in 20 s")
        first, *others = found.variants
        assert (first.key, first.pipeline, others[-1].key, others[-1].pipeline) == (WHOLE, whole, BASELINE, REFERENCE)
        off, strategies = whole, set(whole.strategies)
        for each in others[:-1]:
            assert obstacle(each.pipeline, GIVEN) is None
            assert said(each.key, each.pipeline) != said(each.key, whole)
            if each.key in SETTINGS:
                assert set() < changed(whole, each.pipeline) <= set(SETTINGS[each.key])
                off = replace(off, **{name: getattr(each.pipeline, name) for name in SETTINGS[each.key]})
            else:
                (gone,) = strategies - set(each.pipeline.strategies)
                assert (changed(whole, each.pipeline), switch(gone)) == ({"strategies"}, each.key)
                off = replace(off, strategies=tuple(each for each in off.strategies if each != gone))
        left = {switch(each) for each in off.strategies}
        assert left <= set(found.left_out), "what is not switched off is said"
        if not set(found.left_out) & set(SETTINGS):
            assert replace(off, strategies=(), lr=off.peak_lr, lr_rule="none") == REFERENCE


@pytest.mark.parametrize("name", CASES)
def test_a_strategy_that_cannot_act_is_left_out_by_name_and_one_that_can_is_not(name: str) -> None:
    case = CASES[name]
    whole = replace(REFERENCE, strategies=(case.neutral,), lr=0.2)
    found = taken_apart(whole, REFERENCE, GIVEN)
    key, keys = switch(case.neutral), [variant.key for variant in found.variants]
    assert (key in found.left_out) != (key in keys)
    if case.neutral.idle.__qualname__ != "Strategy.idle":
        assert found.left_out.get(key, "it does nothing in this run: ").startswith("it does nothing in this run: ")


@pytest.mark.parametrize(
    ("whole", "reference", "given", "left_out"),
    [
        pytest.param(REFERENCE, REFERENCE, GIVEN, set(), id="BASELINE has none"),
        pytest.param(replace(REFERENCE, executor="auto"), REFERENCE, GIVEN, {"executor"}, id="auto ran eager steps"),
        pytest.param(
            replace(REFERENCE, strategies=(Ema(horizon=0.0),)), REFERENCE, GIVEN, {"ema"}, id="what has no effect"
        ),
        pytest.param(
            replace(REFERENCE, batch_size=2), replace(REFERENCE, batch_size=1), SMALL, {"batch"},
            id="what the images do not allow",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_switched_off_is_named_with_the_reason(
    whole: Pipeline, reference: Pipeline, given: Given, left_out: set[str]
) -> None:
    found = taken_apart(whole, reference, given)
    assert (found.n_ingredients, set(found.left_out)) == (0, left_out)
    assert all(found.left_out.values())


def test_a_batch_goes_with_its_rate_whatever_rule_led_to_it() -> None:
    same = replace(REFERENCE, lr=0.2, lr_rule="linear", strategies=(PruneTrain(), HaarStem()))
    assert [each.key for each in taken_apart(same, REFERENCE, GIVEN).variants] == [WHOLE, "prune", "haar", BASELINE]
    other = taken_apart(replace(REFERENCE, batch_size=32, lr=0.4), REFERENCE, GIVEN)
    assert [each.pipeline for each in other.variants][1:] == [REFERENCE]  # once, not as all of them again
    assert said("batch", FAST) == "batch 128, lr 0.5"
