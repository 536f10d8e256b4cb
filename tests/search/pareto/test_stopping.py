"""Laws of early stopping: what it must never stop, and what it must."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search import run
from search.pareto.bound import FrontStopping
from search.pareto.curves import Curve, Point, gain_ratio, standing
from search.pareto.front import Box, Outcome, dominates, front
from search.pareto.halving import HalvingStopping, order
from search.pareto.rules import STOPPING
from search.pareto.stopping import Stopping, StopReason
from search.pareto.value import ValueStopping, worth_of_going_on
from search.study.spec import SearchSection

RULE = FrontStopping()
FLOOR = 0.2


def curve_of(*accuracies: float, seconds_per_epoch: float = 1.0) -> Curve:
    n = len(accuracies)
    return tuple(Point(k, n, k * seconds_per_epoch, a) for k, a in enumerate(accuracies, start=1))


def closing(final_error: float, epochs: int, seconds_per_epoch: float = 1.0, left: float = 0.5) -> Curve:
    """A curve whose error falls by one law for all: of what it is at fraction f, left ** (1 - f) remains at the end."""
    errors = (final_error / left ** (1 - k / epochs) for k in range(1, epochs + 1))
    return curve_of(*(1 - error for error in errors), seconds_per_epoch=seconds_per_epoch)


def outcomes_of(curves: list[Curve]) -> list[Outcome]:
    return [Outcome(trial, c[-1].train_seconds, c[-1].accuracy) for trial, c in enumerate(curves)]


@dataclass(frozen=True)
class Known:
    """What was known when a trial began."""

    curves: Sequence[Curve]
    floor: float = FLOOR
    stopped: Sequence[Curve] = ()
    growth: float = 0.0
    box: Box | None = Box(1.0, 100.0, FLOOR, 1000)

    @property
    def front(self) -> Sequence[Outcome]:
        return front(outcomes_of(list(self.curves)))


def decisions(rule: Stopping, curve: Curve, finished: list[Curve], floor: float = FLOOR) -> list[StopReason | None]:
    """What the rule says after every report of the curve."""
    return said(rule, curve, Known(finished, floor))


def said(rule: Stopping, curve: Curve, past: Known) -> list[StopReason | None]:
    """The same of any past."""
    return [rule.decide(curve[:k], past) for k in range(1, len(curve) + 1)]


# Ten finished trials of 6 s that reach 0.98 to 0.89, and one that takes 12 s to reach 0.55.
GOOD = [closing(0.02 + 0.01 * k, epochs=12, seconds_per_epoch=0.5) for k in range(10)]
HOPELESS = closing(0.45, epochs=12)

fractions = st.floats(0.0, 1.0)
lengths = st.integers(1, 24)
rates = st.floats(0.01, 10.0)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    n = draw(lengths)
    times = draw(st.lists(rates, min_size=n, max_size=n))
    accuracies = draw(st.lists(st.integers(0, 100).map(lambda k: k / 100), min_size=n, max_size=n))
    settled = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return tuple(
        Point(k + 1, n, sum(times[: k + 1]), a, s) for k, (a, s) in enumerate(zip(accuracies, settled, strict=True))
    )


archives = st.lists(curves(), min_size=0, max_size=16)
closing_curves = st.builds(closing, st.floats(0.01, 0.5), lengths, rates)


def test_a_hopeless_trial_is_stopped_at_the_first_rung() -> None:
    said = decisions(RULE, HOPELESS, GOOD)
    assert said.index("dominated") + 1 == math.ceil(RULE.rungs[0] * 12)


def test_a_trial_that_cannot_reach_the_floor_is_stopped_for_that() -> None:
    slow = closing(0.2, epochs=24)
    collapsed = curve_of(
        *[0.1] * 12, seconds_per_epoch=0.01
    )  # faster than all others: only the floor speaks against it
    assert "below_floor" in decisions(RULE, collapsed, [slow] * 8, floor=0.5)
    assert set(decisions(RULE, collapsed, [slow] * 8, floor=0.2)) == {None}


@given(st.lists(closing_curves, min_size=9, max_size=12), st.sampled_from([1e-9, 0.1]))
def test_where_all_gain_alike_no_trial_that_would_join_the_front_is_stopped(
    some: list[Curve], seconds_margin: float
) -> None:
    # U then is the true result or, where finished curves are interpolated, above it; the margins are for rounding.
    rule = replace(RULE, accuracy_margin=1e-9, seconds_margin=seconds_margin)
    for member in front(outcomes_of(some)):
        others = some[: member.trial] + some[member.trial + 1 :]
        assert set(decisions(rule, some[member.trial], others)) == {None}


@given(curves(), archives, fractions)
@example(curve_of(0.5, seconds_per_epoch=9.0), [curve_of(1.0)] * 8, FLOOR)  # the one report of a dominated trial
def test_the_last_epoch_is_never_stopped(curve: Curve, finished: list[Curve], floor: float) -> None:
    assert decisions(replace(RULE, n_startup=0, min_curves=1), curve, finished, floor)[-1] is None


@given(curves(), archives)
def test_nothing_is_stopped_during_start_up(curve: Curve, finished: list[Curve]) -> None:
    rule = replace(RULE, n_startup=len(finished) + 1)
    assert set(decisions(rule, curve, finished)) == {None}


@given(curves(), st.lists(curves(), min_size=8, max_size=16))
def test_a_trial_faster_than_the_whole_front_is_never_dominated(curve: Curve, finished: list[Curve]) -> None:
    fastest = min(c[-1].train_seconds for c in finished)
    scale = 0.5 * fastest / (curve[-1].train_seconds * len(curve))  # no forecast exceeds epochs times the time so far
    quick = tuple(replace(p, train_seconds=p.train_seconds * scale) for p in curve)
    assert "dominated" not in decisions(RULE, quick, finished)


@given(
    curves(),
    st.lists(curves(), min_size=8, max_size=16),
    st.tuples(fractions, fractions),
    st.tuples(fractions, fractions),
    st.tuples(fractions, fractions),
)
def test_more_optimism_never_stops_more(
    curve: Curve,
    finished: list[Curve],
    quantiles: tuple[float, float],
    accuracy_margins: tuple[float, float],
    seconds_margins: tuple[float, float],
) -> None:
    bold = FrontStopping(
        quantile=max(quantiles), accuracy_margin=min(accuracy_margins), seconds_margin=min(seconds_margins)
    )
    mild = FrontStopping(
        quantile=min(quantiles), accuracy_margin=max(accuracy_margins), seconds_margin=max(seconds_margins)
    )
    for by_bold, by_mild in zip(decisions(bold, curve, finished), decisions(mild, curve, finished), strict=True):
        assert by_mild is None or by_bold is not None


@given(curves(), archives, st.randoms(use_true_random=False))
def test_the_order_of_the_finished_trials_does_not_matter(curve: Curve, finished: list[Curve], random: Random) -> None:
    shuffled = random.sample(finished, len(finished))
    assert decisions(RULE, curve, shuffled) == decisions(RULE, curve, finished)


@given(curves(), archives, fractions)
def test_optimism_stays_between_the_best_so_far_and_one(curve: Curve, finished: list[Curve], quantile: float) -> None:
    u = replace(RULE, quantile=quantile, min_curves=1).optimistic_accuracy(curve, finished)
    best = max(p.accuracy for p in curve)
    assert best <= u <= 1.0
    assert 1 - u <= (1 - best) * (1 - RULE.accuracy_margin) + 1e-12  # that others lost accuracy lowers no hope


@given(curves())
def test_the_forecast_is_never_below_the_time_already_spent(curve: Curve) -> None:
    assert RULE.optimistic_seconds(curve) >= curve[-1].train_seconds


def test_the_forecast_follows_the_lower_rate() -> None:
    rule = replace(RULE, seconds_margin=0.0)
    growing = (Point(1, 4, 1.0, 0.5), Point(2, 4, 4.0, 0.5))  # 1 s, then 3 s: the mean, 2 s, is the lower rate
    shrinking = (Point(1, 4, 3.0, 0.5), Point(2, 4, 4.0, 0.5))  # 3 s, then 1 s after surgery
    assert rule.optimistic_seconds(growing) == 8.0
    assert rule.optimistic_seconds(shrinking) == 6.0
    assert rule.optimistic_seconds(growing[:1]) == 4.0


def test_a_rung_is_decided_once() -> None:
    assert [k for k, said in enumerate(decisions(RULE, HOPELESS, GOOD), start=1) if said] == [4, 6, 9]


def test_one_report_that_passes_two_rungs_is_decided_once() -> None:
    rule = replace(RULE, rungs=(0.25, 0.5))
    assert decisions(rule, closing(0.45, epochs=2, seconds_per_epoch=6.0), GOOD) == ["dominated", None]


def test_nothing_is_decided_until_accuracy_has_settled_after_surgery() -> None:
    dipped = tuple(replace(p, settled=p.epoch != 4) for p in HOPELESS)
    assert [k for k, said in enumerate(decisions(RULE, dipped, GOOD), start=1) if said] == [5, 6, 9]
    through_the_end = tuple(replace(p, settled=p.epoch < 4) for p in HOPELESS)
    assert set(decisions(RULE, through_the_end, GOOD)) == {None}


def test_too_few_curves_that_cover_the_fraction_stop_nothing() -> None:
    late = [closing(0.02, epochs=2, seconds_per_epoch=0.1)] * 20  # first report at one half
    said = decisions(RULE, HOPELESS, late)
    assert said[3] is None
    assert said[5] == "dominated"


def test_a_perfect_rival_needs_no_estimate() -> None:
    perfect = [curve_of(1.0, seconds_per_epoch=0.1)] * 8  # covers nothing before its end: U is 1
    assert "dominated" in decisions(RULE, HOPELESS, perfect)


def test_collapsed_networks_say_nothing_about_what_can_be_gained() -> None:
    collapsed = [curve_of(*[0.1] * 12)] * 200
    rising = curve_of(*[0.3] * 6, *[0.95] * 6)
    lucky = [curve_of(*[0.3] * 6, *[0.96] * 6, seconds_per_epoch=0.5)] * 8
    assert set(decisions(RULE, rising, lucky + collapsed)) == {None}
    assert "dominated" in decisions(RULE, rising, lucky + collapsed, floor=0.0)


@pytest.mark.parametrize("accuracies", [(1.0, 0.9), (1.0, 1.0)])
def test_a_curve_without_error_left_has_no_gain_ratio(accuracies: tuple[float, ...]) -> None:
    assert gain_ratio(curve_of(*accuracies), 0.5) is None


def test_gain_ratios_are_read_along_the_best_accuracy_so_far() -> None:
    curve = curve_of(0.5, 0.2, 0.7, 0.9)
    assert gain_ratio(curve, 0.5) == pytest.approx(0.1 / 0.5)  # the dip to 0.2 is no gain to come
    assert gain_ratio(curve, 0.625) == pytest.approx(0.1 / 0.4)  # halfway from 0.5 to 0.7
    assert gain_ratio(curve, 1.0) == pytest.approx(1.0)
    assert gain_ratio(curve, 0.24) is None
    assert gain_ratio(curve_of(0.8, 0.6), 0.5) == pytest.approx(2.0)  # accuracy may fall


@given(curves())
def test_the_gain_ratio_of_a_rising_curve_is_a_share(curve: Curve) -> None:
    rising = tuple(replace(p, accuracy=a) for p, a in zip(curve, sorted(p.accuracy for p in curve), strict=True))
    for point in rising:
        ratio = gain_ratio(rising, point.fraction)
        assert ratio is None or 0.0 <= ratio <= 1.0 + 1e-9


@given(curves(), archives)
def test_without_stopping_every_trial_goes_on(curve: Curve, finished: list[Curve]) -> None:
    assert set(decisions(STOPPING["none"], curve, finished)) == {None}


def test_every_rule_can_be_chosen_on_the_command_line() -> None:
    assert set(run.STOPPING) == set(STOPPING)
    assert set(run.SAMPLERS) == set(get_args(SearchSection.model_fields["sampler"].annotation))


@pytest.mark.parametrize("rule", STOPPING.values(), ids=STOPPING)
@settings(max_examples=40)
@given(curves(), archives, archives, st.floats(0.0, 10.0))
def test_no_rule_stops_a_last_epoch_or_one_that_has_not_settled(
    rule: Stopping, curve: Curve, finished: list[Curve], stopped: list[Curve], growth: float
) -> None:
    for point, verdict in zip(curve, said(rule, curve, Known(finished, FLOOR, stopped, growth)), strict=True):
        assert verdict is None or (point.settled and point.epoch < point.epochs)


@pytest.mark.parametrize("rule", STOPPING.values(), ids=STOPPING)
@settings(max_examples=40)
@given(curves(), st.lists(curves(), max_size=7), archives, st.floats(0.0, 10.0))
def test_no_rule_stops_during_start_up(
    rule: Stopping, curve: Curve, finished: list[Curve], stopped: list[Curve], growth: float
) -> None:
    assert set(said(rule, curve, Known(finished, FLOOR, stopped, growth))) == {None}


VALUE = ValueStopping()
MANY = [*GOOD, *(closing(0.3, epochs=12, seconds_per_epoch=0.5) for _ in range(4))]
HARDLY = closing(0.019, epochs=12, seconds_per_epoch=2.0)  # a hair better than the best, in four times its seconds


def test_what_is_worth_less_than_a_new_trial_is_stopped() -> None:
    worth = worth_of_going_on(HARDLY[:4], Known(MANY), Box(1.0, 100.0, FLOOR, 1000))
    assert worth > 0
    assert said(VALUE, HARDLY[:4], Known(MANY, growth=0.9 * worth))[3] is None
    assert said(VALUE, HARDLY[:4], Known(MANY, growth=1.1 * worth))[3] == "unpromising"
    assert set(said(VALUE, HARDLY, Known(MANY, growth=0.0))) == {None}  # where new trials bring nothing either


@given(closing_curves, st.lists(closing_curves, min_size=12, max_size=16), st.floats(0, 1), st.floats(0, 1))
def test_the_more_new_trials_bring_the_more_is_stopped(
    curve: Curve, finished: list[Curve], one: float, other: float
) -> None:
    little, much = (said(VALUE, curve, Known(finished, growth=each)) for each in sorted((one, other)))
    for by_little, by_much in zip(little, much, strict=True):
        assert by_little is None or by_much is not None


@given(st.lists(closing_curves, min_size=12, max_size=16), st.floats(0.0, 0.02))
def test_going_on_is_worth_more_the_better_the_end_is(finished: list[Curve], better: float) -> None:
    box = Box(1.0, 100.0, FLOOR, 1000)
    worse, good = (closing(error, epochs=12)[:6] for error in (0.05, 0.05 - better))
    assert worth_of_going_on(good, Known(finished), box) >= worth_of_going_on(worse, Known(finished), box) - 1e-12


def test_going_on_is_worth_more_the_less_is_left_to_pay() -> None:
    worths = [worth_of_going_on(HARDLY[:k], Known(MANY), Box(1.0, 100.0, FLOOR, 1000)) for k in (6, 9, 11)]
    assert worths == sorted(worths)


def test_of_the_trials_at_a_rung_half_go_on() -> None:
    rule, random = HalvingStopping(rungs=(0.5,)), Random(0)
    finished = [closing(random.uniform(0.02, 0.5), 4, random.uniform(0.1, 10.0)) for _ in range(8)]
    ended: tuple[list[Curve], list[Curve]] = (finished, [])
    for _ in range(200):
        curve = closing(random.uniform(0.02, 0.5), 4, random.uniform(0.1, 10.0))
        stops = rule.decide(curve[:2], Known(ended[0], stopped=ended[1])) is not None
        ended[stops].append(curve[:2] if stops else curve)
    assert 80 <= len(ended[1]) <= 120
    assert all(point.trial < len(ended[0]) for point in front(outcomes_of(ended[0])))


@given(curves(), st.lists(curves(), min_size=8, max_size=12))
def test_halving_stops_nothing_that_no_other_dominates_at_the_rung_and_is_the_fastest(
    curve: Curve, finished: list[Curve]
) -> None:
    fastest = min(c[0].train_seconds for c in finished)
    scale = 1e-3 * fastest / (curve[-1].train_seconds * len(curve))
    quick = tuple(replace(p, train_seconds=p.train_seconds * scale) for p in curve)
    assert set(decisions(HalvingStopping(), quick, finished)) == {None}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_the_order_of_halving_goes_front_by_front(some: list[tuple[int, int]]) -> None:
    ordered = order([(float(a), float(b)) for a, b in some])
    assert sorted(ordered) == list(range(len(some)))
    points = [Outcome(i, 1.0 + some[i][0], 1 - some[i][1] / 10) for i in ordered]
    for place, point in enumerate(points):
        assert not any(dominates(later, point) for later in points[place + 1 :])


def test_within_a_front_the_farthest_come_first() -> None:
    assert order([(0.0, 1.0), (0.1, 0.9), (0.5, 0.5), (1.0, 0.0)]) == [0, 3, 2, 1]


def test_a_run_stands_nowhere_before_its_first_report_and_after_its_last() -> None:
    stopped = curve_of(0.5, 0.7, 0.6, 0.9)[:3]
    assert standing(stopped, 0.2) is None
    assert standing(stopped, 0.8) is None
    half = standing(stopped, 0.625)
    assert half is not None
    assert (half.seconds, half.accuracy) == (2.5, pytest.approx(0.7))


@pytest.mark.parametrize(
    "parameters",
    [
        {"rungs": (0.0,)},
        {"rungs": (0.5, 1.0)},
        {"n_startup": -1},
        {"min_curves": 0},
        {"quantile": 1.1},
        {"quantile": math.nan},
        {"seconds_margin": -0.1},
        {"accuracy_margin": 2.0},
    ],
)
def test_a_parameter_outside_its_range_is_refused_by_name(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        FrontStopping(**parameters)


@pytest.mark.parametrize(
    "values", [(0, 4, 1.0, 0.5), (5, 4, 1.0, 0.5), (1, 4, math.nan, 0.5), (1, 4, -1.0, 0.5), (1, 4, 1.0, math.nan)]
)
def test_a_report_that_cannot_be_is_refused(values: tuple[int, int, float, float]) -> None:
    with pytest.raises(ValueError, match="epoch"):
        Point(*values)
