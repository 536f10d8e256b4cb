"""How few parameters the default space asks, what they mean, and what the space `everything` keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, json_to_distribution

from objectives.data.dataset import Dataset
from objectives.networks.architecture import build
from objectives.pipeline import Pipeline
from objectives.starts.naming import origin
from objectives.starts.origin import Origin
from objectives.strategies.prune_train import LEAST_KAPPA, PruneTrain, dying_share, kappa_for
from spaces import acceleration, everything
from spaces.base import BASELINE, Given, Parameters, Space, Value
from spaces.ingredients import SHARES
from spaces.restricted import Restrictions, _Explorer, check, contains, sample, usable_anchors, walk
from spaces.run import outlined
from tests.objectives.starts.made import standing
from tests.objectives.strategies.cases import begin

MOST = 20
FREE = Restrictions()
DIGITS = Given("small", ("fp32", "bf16"), (3, 30), (16, 128), (1, 2), (0.5, 2.0), False, "digits", (), 1, 8, 1200)
FASHION = Given(
    "thin", ("fp32", "bf16"), (2, 14), (32, 256), (1, 1), (0.5, 2.0), True, "fashion_mnist", (), 2, 28, 4000
)
ALL = ("fp32", "tf32", "bf16", "fp16")
CIFAR = Given("wide", ALL, (4, 24), (64, 1024), (1, 3), (0.5, 4.0), True, "cifar10", (), 1, 32, 40_000)
UNEVEN = replace(FASHION, data="folder:birds", unevenness=9.0)
STARTED = replace(DIGITS, start=origin(standing("small", 0.75)))
ANY = Origin("", "", "a network", None, build("wide", depth=1, width=1.0, in_channels=3, n_classes=2), None)
GIVENS = {"digits": DIGITS, "fashion_mnist": FASHION, "cifar10": CIFAR, "uneven": UNEVEN, "started": STARTED}


def draws(
    space: Space, given: Given, n: int, fix: dict[str, Value] | None = None
) -> Iterator[tuple[Pipeline, Parameters]]:
    """Random pipelines, each with the parameters that were asked for it."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n):
        trial = study.ask()
        yield sample(space, trial, given, Restrictions(fix or {})), trial.params


@pytest.mark.parametrize("data", GIVENS)
def test_no_trial_of_the_default_space_has_more_than_twenty_parameters(data: str) -> None:
    counts = [len(asked) for _, asked in draws(acceleration, GIVENS[data], 300)]
    offered = set(acceleration.DEFAULT) & set(walk(acceleration, GIVENS[data], FREE))
    if "start" in offered:  # with which others cannot run that are as many
        offered -= {"haar", "stride", "identity", "whiten", "freeze"}
    everything_on: dict[str, Value] = dict.fromkeys(offered, True)
    counts += [len(asked) + len(everything_on) for _, asked in draws(acceleration, GIVENS[data], 50, everything_on)]
    assert max(counts) <= MOST + ("balance" in offered) + ("start" in offered)


@pytest.mark.parametrize("data", [pytest.param(n, marks=[pytest.mark.long] * (n != "digits")) for n in GIVENS])
def test_what_one_space_settles_the_other_one_asks_with_the_same_value_among_its_choices(data: str) -> None:
    few, all_of_them = (walk(space, GIVENS[data], FREE) for space in (acceleration, everything))
    assert set(few) <= set(all_of_them)
    for name, (value, *more) in acceleration.LEFT.items():
        offered = [json_to_distribution(plain) for plain in all_of_them.get(name, ())]
        assert not offered or any(contains(d, value) and not d.single() for d in offered), name
        settled = [json_to_distribution(plain) for plain in few.get(name, ())]
        assert more or all(d.single() for d in settled), name
    asked_somewhere = {name for given in GIVENS.values() for name in walk(everything, given, FREE)}
    assert set(acceleration.LEFT) <= asked_somewhere


def test_executors_are_asked_where_a_study_names_them_and_settled_by_the_default_space_where_not() -> None:
    named = replace(DIGITS, executors=("eager", "compile"))
    assert {p.executor for p, asked in draws(acceleration, DIGITS, 9)} == {"auto"}
    for space, given in ((acceleration, named), (everything, DIGITS), (everything, named)):
        assert all("executor" in asked for _, asked in draws(space, given, 9))


@pytest.mark.long  # walks all of both spaces
def test_balance_is_asked_only_where_a_class_has_five_times_the_images_of_another() -> None:
    for space in (acceleration, everything):
        asked = [{*walk(space, replace(CIFAR, unevenness=ratio), FREE)} for ratio in (1.0, 4.9, 5.0, 99.0)]
        assert ["balance" in each for each in asked] == [False, False, True, True]
        assert asked[0] == {name for name in asked[2] if not name.startswith("balance")}
    with pytest.raises(ValueError, match=r"no effect in runs as these \(classes of 1.0 : 1 images at most\)"):
        check(acceleration, CIFAR, Restrictions({"balance": True}))


def test_a_switch_of_every_strategy_is_a_choice_between_off_and_on() -> None:
    for space, switches in ((acceleration, acceleration.INGREDIENTS), (everything, everything.INGREDIENTS)):
        asked = walk(space, replace(CIFAR, unevenness=9.0, start=ANY), FREE)
        for switch in switches:
            assert [json_to_distribution(plain).choices for plain in asked[switch]] == [(False, True)]  # type: ignore[attr-defined]


# --- the rate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [acceleration, everything], ids=["acceleration", "everything"])
def test_a_pipeline_says_the_rate_that_it_trains_at_whatever_rule_led_to_it(space: Space) -> None:
    for log2_size, rule, peak in ((4, "linear", 0.05), (8, "linear", 0.8), (12, "linear", 12.8), (6, "sqrt", 0.4)):
        values: Parameters = {"batch.log2_size": log2_size, "lr": 0.8, "batch.lr_rule": rule}
        if space is everything or rule == "linear":
            pipeline = sample(space, _Explorer(values, highest=False), replace(CIFAR, batch_size=(16, 4096)), FREE)
            assert pipeline.lr == pytest.approx(peak)
            assert pipeline.peak_lr == pipeline.lr


def test_the_largest_batch_at_the_highest_rate_is_a_pipeline() -> None:
    huge = replace(CIFAR, batch_size=(65536, 65536))
    assert sample(acceleration, _Explorer({}, highest=True), huge, FREE).peak_lr == 100


# --- PruneTrain's share -----------------------------------------------------------------------------------------------


def test_a_share_is_a_kappa_and_a_larger_one_a_larger_kappa() -> None:
    shares = [n / 20 for n in range(20)]
    kappas = [kappa_for(share) for share in shares]
    assert [dying_share(kappa) for kappa in kappas] == pytest.approx(shares)
    assert kappas == sorted(set(kappas))
    assert kappa_for(SHARES[0]) > LEAST_KAPPA  # below it next to nothing dies


def test_a_share_is_offered_where_the_penalty_can_reach_it_and_only_there(digits: Dataset) -> None:
    """As PruneTrain itself forecasts it from the initial weights and the first batch, with a tenth to spare."""
    given = replace(DIGITS, n_train=len(digits.train.y), epochs=(4, 60))
    n_offered, n_refused = 0, 0
    for pipeline, asked in draws(acceleration, given, 40, {"haar": False, "grow": False, "whiten": False}):
        run = outlined(given, pipeline)
        n_refused += run.prunable < 0.1
        if run.prunable < 0.1:
            assert "prune" not in asked
            continue
        n_offered += 1
        strongest = Restrictions({"prune": True, "haar": False, "grow": False, "whiten": False})
        chosen = sample(
            acceleration, _Explorer({**asked, "prune.share": run.prunable}, highest=False), given, strongest
        )
        (asks,) = (s for s in chosen.strategies if isinstance(s, PruneTrain))
        limited, free = (begun_with(replace(asks, lpr=lpr), chosen, digits) for lpr in (asks.lpr, 0.999))
        assert limited > 0.9 * free, chosen
    assert n_offered >= 8
    assert n_refused >= 8


def begun_with(strategy: PruneTrain, pipeline: Pipeline, dataset: Dataset) -> float:
    """Lambda as it is before the first step."""
    state = begin(replace(pipeline, strategies=(strategy,)), dataset)
    assert not any("hardly" in event for event in state.events)
    (known,) = state.pipeline.strategies
    assert isinstance(known, PruneTrain)
    return known.strength


# --- anchors ----------------------------------------------------------------------------------------------------------


STUDIES = [
    *GIVENS.values(),
    replace(CIFAR, batch_size=(8, 32), width=(0.25, 0.5), data="cifar10"),
    replace(FASHION, batch_size=(512, 1024), width=(2.0, 4.0), epochs=(1, 2)),
    replace(DIGITS, number_formats=("fp32",), executors=("eager",), depth=(2, 2)),
    replace(CIFAR, data="folder:birds", flip=False, size=96, n_train=300, batch_size=(64, 256)),
]


class Strict(_Explorer):
    """A trial of fixed values that refuses those out of range."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        assert contains(CategoricalDistribution(choices), self.decisions[name]), (name, self.decisions[name])
        return super().suggest_categorical(name, choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        assert contains(IntDistribution(low, high, log, step), self.decisions[name]), (name, self.decisions[name])
        return super().suggest_int(name, low, high, step=step, log=log)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        assert contains(FloatDistribution(low, high, log, step), self.decisions[name]), (name, self.decisions[name])
        return super().suggest_float(name, low, high, step=step, log=log)


@pytest.mark.parametrize("space", [acceleration, everything], ids=["acceleration", "everything"])
@pytest.mark.parametrize("given", STUDIES, ids=lambda g: f"{g.data} {g.batch_size}")
def test_every_anchor_but_baseline_is_a_choice_of_its_space_in_any_study(space: Space, given: Given) -> None:
    """BASELINE and its twin in another number format are what they are everywhere.

    Flips are left out: the first network of a ladder has none, so that it can say whether they fit.
    """
    names = []
    for name, parameters in space.anchors(given).items():
        if not name.startswith(BASELINE):
            space.sample(Strict(parameters | {"augment.flip": given.flip}, highest=False), given)
            names.append(name)
    assert len(names) >= 2


@pytest.mark.parametrize("given", STUDIES, ids=lambda g: f"{g.data} {g.batch_size}")
def test_anchors_name_the_same_pipelines_in_both_spaces(given: Given) -> None:
    one, other = (
        {
            name: sample(space, _Explorer(parameters, highest=False), given, FREE, name)
            for name, parameters in usable_anchors(space, given, FREE)
        }
        for space in (acceleration, everything)
    )
    assert one == other
    shown = {"PruneTrain": "prune", "Net2Net": "grow", "progressive resolution": "resolution"}
    for name in shown.keys() & one.keys():
        assert len(one[name].strategies) == 1


def test_a_walk_sees_a_default_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a study that was begun with another one is refused."""
    before = walk(acceleration, CIFAR, FREE)
    monkeypatch.setitem(acceleration.LEFT, "weight_decay", (1e-3,))
    after = walk(acceleration, CIFAR, FREE)
    assert [name for name in before if before[name] != after[name]] == ["weight_decay"]


def test_a_value_that_a_space_has_settled_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match=r'^\[space.fix\] schedule = "step": it must be .*; the space "everything" may'
    ):
        check(acceleration, DIGITS, Restrictions({"schedule": "step"}))
    check(everything, DIGITS, Restrictions({"schedule": "step"}))
