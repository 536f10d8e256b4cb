"""What is begun ends in time: first what is known, then the search, one long run, fresh seeds, all images."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from search import trial
from search.database import storage
from search.planning import budget, costs, plan
from search.planning.budget import Budget, Confirm, Fill, Queued, Search, Step
from search.study import opening, queue, records, recovery, spec
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views.display import Display
from search.workers.seam import TrialFault
from spaces import SPACES
from spaces.base import BASELINE
from spaces.restricted import anchor_pipelines
from tests.search.conftest import FACTS, FORMATS, Scripted, report
from tests.search.planning.conftest import IMAGES, Run, after, nominal

TOTAL = 300.0
AT_LEISURE = 30_000.0  # beside which nothing counts that this machine takes
SEARCHED = TOTAL * (1 - budget.SEARCH_SHARE) - 1  # what is left once the search has had its share
RUNS = [Run(2.0, 0.7), Run(4.0, 0.9), Run(8.0, 0.8), Run(1.0, 0.6)]
EVERYTHING = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


def seconds_of(step: Step, now: Snapshot) -> float:
    """Device seconds that what is begun is forecast to take."""
    match step:
        case Search(most) | Fill(most):
            return most
        case Confirm(point):
            return float(point.values[0])
        case Queued(waiting):
            if records.is_confirmation(waiting):
                return float(now.trials[waiting.user_attrs[records.CONFIRM_OF]].values[0])
            return budget.rate(now) * nominal(now, budget._pipeline(now, waiting))


def is_fresh_seed(step: Step) -> bool:
    return isinstance(step, Confirm) or (isinstance(step, Queued) and records.is_confirmation(step.trial))


@EVERYTHING
@given(
    runs=st.lists(
        st.builds(Run, st.floats(0.1, 60), st.floats(0, 1), wall=st.floats(0.5, 4), fill=st.booleans()),
        min_size=1,
        max_size=6,
    ),
    left=st.floats(0, TOTAL),
    waiting=st.booleans(),
    fresh=st.booleans(),
)
def test_nothing_is_begun_that_is_not_forecast_to_end(
    runs: list[Run], left: float, waiting: bool, fresh: bool, study: Study
) -> None:
    again = [Run(run.seconds, run.accuracy, confirm_of=n, wall=run.wall) for n, run in enumerate(runs) if fresh]
    now = after(study.snapshot(), [*runs, *again], waiting=waiting)
    step = budget.next_step(now, left, TOTAL)
    pace, best = budget.wall_per_second(now), now.choice
    if step is None:
        return
    assert pace * seconds_of(step, now) <= left
    assert left > 0
    if best is not None:  # of before: it is still trained on all images, in as many steps as it had
        assert pace * (seconds_of(step, now) + best.values[0] / now.n_splits) <= left
    if best is not None and not is_fresh_seed(step):  # ... once it had a fresh seed
        assert pace * seconds_of(step, now) + budget.finale(now, best, pace) <= left * (1 + 1e-9)
    if isinstance(step, (Search, Fill)):  # ... and what may become the best: once more, and on a quarter more images
        assert pace * seconds_of(step, now) * (1 + 1 + 5 / 4) <= left


def test_nothing_is_begun_once_nothing_is_left(study: Study) -> None:
    now = study.snapshot()
    for found in (now, after(now, RUNS), after(now, RUNS, waiting=True), after(now, []), after(now, [Run(1.0, 0.0)])):
        for left in (0.0, -1e-9, -100.0):
            assert budget.next_step(found, left, TOTAL) is None


def test_the_first_step_is_the_cheapest_known_pipeline(study: Study) -> None:
    now = study.snapshot()
    step = budget.next_step(now, TOTAL, TOTAL)
    assert isinstance(step, Queued)
    forecasts = [nominal(now, budget._pipeline(now, each)) for each in now.trials]
    assert nominal(now, budget._pipeline(now, step.trial)) == min(forecasts)
    assert forecasts == sorted(forecasts)


@pytest.mark.parametrize("times", [0.01, 0.9, 1.1, 100.0])
def test_the_baseline_is_trained_only_where_it_takes_a_twentieth(times: float, study: Study) -> None:
    now = study.snapshot()
    base = next(each for each in now.trials if each.user_attrs[records.ANCHOR] == BASELINE)
    alone = replace(now, trials=(base,))
    before = after(alone, [Run(1.0, 0.9)], waiting=True)
    seconds = budget.rate(before) * nominal(now, budget._pipeline(now, base))
    total = seconds / (times * budget.BASELINE_SHARE)
    step = budget.next_step(before, total, total)
    assert (isinstance(step, Queued) and step.trial.user_attrs[records.ANCHOR] == BASELINE) == (times < 1)


def test_the_queue_comes_before_the_search_and_that_until_it_had_its_share(study: Study) -> None:
    queued, searched = (after(study.snapshot(), [Run(0.01, 0.9)] * 3, waiting=waiting) for waiting in (True, False))
    assert isinstance(budget.next_step(queued, TOTAL, TOTAL), Queued)
    assert isinstance(budget.next_step(searched, TOTAL, TOTAL), Search)
    assert isinstance(budget.next_step(searched, SEARCHED + 2, TOTAL), Search)
    assert isinstance(budget.next_step(searched, SEARCHED, TOTAL), Fill)


def test_no_known_pipeline_is_begun_once_a_longest_run_was(study: Study) -> None:
    """It told more of the same; what was interrupted is gone on with, and later minutes begin with what waits."""
    before, now = (
        after(study.snapshot(), [Run(0.01, 0.9), Run(0.02, 0.95, fill=filled)], waiting=True)
        for filled in (False, True)
    )
    assert isinstance(budget.next_step(before, SEARCHED, TOTAL), Queued)
    step = budget.next_step(now, SEARCHED, TOTAL)
    assert step is not None
    assert not isinstance(step, Queued)
    assert isinstance(budget.next_step(now, TOTAL, TOTAL, n_before=len(now.trials)), Queued)


def test_what_waits_and_does_not_fit_is_passed_over(study: Study) -> None:
    now = after(study.snapshot(), [Run(TOTAL / 6, 0.9)], waiting=True)
    forecasts = [budget.rate(now) * nominal(now, budget._pipeline(now, each)) for each in now.trials[1:]]
    assert min(forecasts) > budget.ANCHOR_SHARE * TOTAL
    assert isinstance(budget.next_step(now, 0.8 * TOTAL, TOTAL), Search)


@pytest.mark.parametrize("n", range(5, 11))
def test_nothing_is_proposed_where_so_few_proposals_would_teach_nothing(n: int, study: Study) -> None:
    """`n` of the cheapest kind fit in what is left of the search's share. Once it has begun it has all of that."""
    known = [Run(1.0, 0.9, anchor="known")] * 3
    now = after(study.snapshot(), known)
    left_to_it = (n + 0.5) * budget.wall_per_second(now)
    left = TOTAL * (1 - budget.SEARCH_SHARE) + left_to_it
    assert isinstance(budget.next_step(now, left, TOTAL), Search if n >= budget.LEAST_PROPOSED else Fill)
    begun, filled = (after(study.snapshot(), [*known, Run(1.0, 0.5, fill=fill)]) for fill in (False, True))
    assert isinstance(budget.next_step(begun, left, TOTAL), Search)
    assert type(budget.next_step(filled, left, TOTAL)) is type(budget.next_step(now, left, TOTAL))


def test_the_longest_run_leaves_room_for_a_fresh_seed_and_for_all_images(study: Study) -> None:
    for left in (SEARCHED, SEARCHED / 2, SEARCHED / 3):
        now = after(study.snapshot(), RUNS)
        step = budget.next_step(now, left, TOTAL)
        assert isinstance(step, Fill)
        filled = after(study.snapshot(), [*RUNS, Run(step.seconds, 0.95, fill=True)])
        best, pace = filled.choice, budget.wall_per_second(filled)
        assert best is not None
        assert best.number == len(RUNS)
        assert pace * step.seconds + budget.finale(filled, best, pace) <= left * (1 + 1e-9)


@pytest.mark.parametrize(
    ("accuracy", "left", "begins"),
    [
        pytest.param(0.85, 60.0, True, id="it came out behind, and another one need be no longer"),
        pytest.param(0.95, 60.0, False, id="it is the best, and another one would be no longer"),
        pytest.param(0.95, 100.0, True, id="it is the best, and there is room for a longer one"),
        pytest.param(0.85, 12.0, False, id="it came out behind, and there is room for less than the best takes"),
    ],
)
def test_another_longest_run_begins_where_it_may_tell_something_new(
    accuracy: float, left: float, begins: bool, study: Study
) -> None:
    now = after(study.snapshot(), [*RUNS, Run(20.0, accuracy, fill=True)])
    step = budget.next_step(now, left, TOTAL)
    assert isinstance(step, Fill) == begins
    most = after(study.snapshot(), [*RUNS, *[Run(20.0, 0.85, fill=True)] * budget.MOST_FILLS])
    assert not isinstance(budget.next_step(most, 100.0, TOTAL), Fill)


def test_another_longest_run_begins_where_a_fresh_seed_of_the_first_came_out_behind(study: Study) -> None:
    """Until the best has a fresh seed itself: then all images are next."""
    filled = [*RUNS, Run(20.0, 0.95, fill=True)]
    behind = [*filled, *[Run(20.0, 0.3, confirm_of=len(RUNS))] * 2]
    now = after(study.snapshot(), behind)
    assert now.choice is not None
    assert now.choice.number < len(RUNS)
    assert isinstance(budget.next_step(now, 60.0, TOTAL), Fill)
    seen = [*behind, Run(now.choice.values[0], now.choice.values[1], confirm_of=now.choice.number)]
    assert not isinstance(budget.next_step(after(study.snapshot(), seen), 60.0, TOTAL), Fill)


def test_after_the_longest_runs_the_best_is_confirmed_and_then_the_end_or_others(study: Study) -> None:
    fills = [Run(9.0, 0.95, fill=True)] + [Run(9.0, 0.8, fill=True)] * (budget.MOST_FILLS - 1)
    runs = [*RUNS, *fills]
    step = budget.next_step(after(study.snapshot(), runs), 100.0, TOTAL)
    assert isinstance(step, Confirm)
    assert step.point.number == len(RUNS)
    fresh = [*runs, Run(9.0, 0.94, confirm_of=len(RUNS))]
    assert budget.next_step(after(study.snapshot(), fresh), 100.0, TOTAL) is None  # all images are next
    others = budget.next_step(after(study.snapshot(), fresh), 100.0, TOTAL, is_refitted=True)
    assert isinstance(others, Confirm)
    assert others.point.number == 3  # the cheapest of the front
    assert budget.next_step(after(study.snapshot(), fresh), 0.1, TOTAL, is_refitted=True) is None


def test_what_was_trained_on_all_images_without_a_fresh_seed_gets_one_before_the_rest_of_the_front(
    study: Study,
) -> None:
    def then(runs: list[Run], left: float) -> int | None:
        now = after(study.snapshot(), runs)
        told = replace(now, attributes={**now.attributes, records.REFIT: {"trial": 1}})
        step = budget.next_step(told, left, TOTAL, is_refitted=True)
        assert step is None or isinstance(step, Confirm)
        return None if step is None else step.point.number

    assert then(RUNS, 100.0) == 1
    assert then([*RUNS, Run(4.0, 0.9, confirm_of=1)], 100.0) == 3  # the cheapest of the front
    assert then(RUNS, 3.0) == 3  # it does not fit
    assert then(RUNS, 0.1) is None


CLOSE = [Run(2.0, 0.7), Run(9.0, 0.81), Run(4.0, 0.80, fill=True), Run(9.0, 0.3, fill=True)]
SEEN = Run(9.0, 0.80, confirm_of=1)


def test_a_rival_that_may_be_as_good_has_a_fresh_seed_before_the_choice(study: Study) -> None:
    now = after(study.snapshot(), [*CLOSE, SEEN])
    assert now.choice is now.trials[1]
    step = budget.next_step(now, 100.0, TOTAL)
    assert isinstance(step, Confirm)
    assert step.point.number == 2
    waiting = replace(Run(4.0, 0.0, confirm_of=2), state=TrialState.WAITING)
    step = budget.next_step(after(study.snapshot(), [*CLOSE, SEEN, waiting]), 100.0, TOTAL)
    assert isinstance(step, Queued)  # one that was interrupted is gone on with
    won = [*CLOSE, SEEN, *[Run(4.0, 0.83, confirm_of=2)] * 2]
    assert after(study.snapshot(), won).choice == after(study.snapshot(), won).trials[2]


@pytest.mark.parametrize("left", [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0])
def test_after_a_rivals_fresh_seed_either_can_be_trained_on_all_images(left: float, study: Study) -> None:
    now = after(study.snapshot(), [*CLOSE, SEEN])
    step = budget.next_step(now, left, TOTAL)
    needed = 4.0 + 9.0 / (1 - budget.validating(now))
    assert isinstance(step, Confirm) == (budget.MARGIN * budget.wall_per_second(now) * needed <= left)


def test_rivals_get_no_more_fresh_seeds_than_points_of_the_front(study: Study) -> None:
    n = study.spec.search.confirm
    again = [replace(run, confirm_of=of) for of, run in enumerate(CLOSE[:3]) for _ in range(n)]
    assert budget.next_step(after(study.snapshot(), [*CLOSE, *again]), 100.0, TOTAL) is None


@pytest.mark.parametrize("left", [100.0, 30.0])
def test_a_fresh_seed_that_was_interrupted_is_gone_on_with(left: float, study: Study) -> None:
    fills = [Run(9.0, 0.8, fill=True)] * budget.MOST_FILLS
    waiting = Run(4.0, 0.0, confirm_of=1, state=TrialState.WAITING)
    now = after(study.snapshot(), [*RUNS, *fills, waiting])
    step = budget.next_step(now, left, TOTAL)
    assert isinstance(step, Queued)
    assert step.trial.number == len(now.trials) - 1


def test_with_nothing_on_the_front_it_searches_or_ends(study: Study) -> None:
    now = after(study.snapshot(), [Run(2.0, 0.0), Run(4.0, 0.1)])
    assert now.choice is None
    steps = [budget.next_step(now, left, TOTAL) for left in (TOTAL, SEARCHED, 30.0, 9.0, 1.0)]
    assert [type(step) for step in steps] == [Search, Search, Search, Search, type(None)]
    assert budget.next_step(after(study.snapshot(), []), TOTAL, TOTAL) is None


@pytest.mark.parametrize(
    ("fresh", "chosen"),
    [
        pytest.param([], 1, id="the most accurate"),
        pytest.param([(1, 0.5)], 2, id="its fresh seed was far worse"),
        pytest.param([(1, 0.75)], 1, id="so that with its first run it is still the best"),
        pytest.param([(1, 0.5), (1, 0.89)], 1, id="the mean of its runs was not"),
        pytest.param([(0, 0.99)], 0, id="another one's was better"),
        pytest.param([(1, 0.5), (2, 0.5)], 1, id="and so was that of the next, which is not on the front"),
    ],
)
def test_the_choice_goes_by_all_runs_of_a_pipeline(fresh: list[tuple[int, float]], chosen: int, study: Study) -> None:
    again = [Run(RUNS[of].seconds, accuracy, confirm_of=of) for of, accuracy in fresh]
    best = after(study.snapshot(), [*RUNS, *again]).choice
    assert best is not None
    assert best.number == chosen


def test_a_lucky_run_without_an_error_does_not_outweigh_the_others(study: Study) -> None:
    """Of 50 images that validate."""
    runs = [Run(2.0, 0.98), Run(2.0, 1.0), Run(2.0, 0.98, confirm_of=0), Run(2.0, 0.94, confirm_of=1)]
    best = after(study.snapshot(), runs).choice
    assert best is not None
    assert best.number == 0


def test_a_network_of_the_choice_is_kept_wherever_it_stands(study: Study) -> None:
    fresh = [Run(4.0, 0.3, confirm_of=1), Run(8.0, 0.77, confirm_of=2), Run(8.0, 0.79, confirm_of=2)]
    now = after(study.snapshot(), [*RUNS, *fresh])
    assert now.choice is now.trials[2]
    assert 2 not in now.kept
    assert len(now.trials) - 1 in now.kept


def test_a_network_of_the_choice_is_kept_that_has_no_fresh_seed(study: Study) -> None:
    """What was better and cheaper than it came out behind."""
    now = after(study.snapshot(), [Run(4.0, 0.8), Run(2.0, 0.81), Run(2.0, 0.7, confirm_of=1)])
    assert now.choice is now.trials[0]
    assert [point.trial for point in now.front] == [1]
    assert 0 in now.kept


def test_a_network_of_what_may_be_the_choice_again_is_kept_while_another_one_is(study: Study) -> None:
    """Or what is trained on all images then has no twin that says how sure it may be."""
    fresh = [Run(4.0, 0.3, confirm_of=1), Run(8.0, 0.77, confirm_of=2), Run(8.0, 0.79, confirm_of=2)]
    overtaken = after(study.snapshot(), [*RUNS, *fresh, *[Run(2.0, 0.93, confirm_of=3)] * 2])
    assert overtaken.choice is overtaken.trials[3]
    assert len(RUNS) + 2 in overtaken.kept


def test_few_networks_are_kept_however_many_runs_there_are(study: Study) -> None:
    now = after(study.snapshot(), [Run(1.0 + number, 0.9 - 0.001 * number) for number in range(100)])
    assert now.kept == {0, 1, 2, 3}


def test_of_equally_accurate_ones_the_cheapest_is_chosen(study: Study) -> None:
    best = after(study.snapshot(), [Run(4.0, 0.9), Run(2.0, 0.9), Run(3.0, 0.9)]).choice
    assert best is not None
    assert best.number == 1


def test_all_images_are_trained_on_only_where_there_is_time(study: Study) -> None:
    now = after(study.snapshot(), RUNS)  # the best takes 4 s, on all images 5

    found = budget.to_refit(now, TOTAL / 2)
    assert found is not None
    assert found.number == 1
    assert budget.in_time(now, found, TOTAL / 2) == records.pipeline(found)
    assert budget.to_refit(now, -1.0) is None
    assert budget.to_refit(after(study.snapshot(), [Run(1.0, 0.0)]), TOTAL / 2) is None


def test_where_time_is_short_all_images_are_seen_less_often_but_in_as_many_steps(study: Study) -> None:
    now = after(study.snapshot(), RUNS)
    found = budget.to_refit(now, 4.1)
    assert found is not None
    epochs = records.pipeline(found).epochs
    assert budget.in_time(now, found, 4.1).epochs == max(1, epochs * 4 // 5)
    nearly = budget.to_refit(now, 3.9)  # a cheaper one takes its place, if all images make it better than the best is
    assert nearly is None or nearly.number != 1


@EVERYTHING
@given(left=st.floats(0.0, TOTAL), seconds=st.floats(0.1, 60), wall=st.floats(0.5, 4))
def test_what_is_done_in_spare_seconds_leaves_room_for_as_many_steps_as_the_point_had(
    left: float, seconds: float, wall: float, study: Study
) -> None:
    now = after(study.snapshot(), [Run(seconds, 0.9, wall=wall)])
    found = budget.to_refit(now, left)
    if found is not None and (spare := budget.spare(now, found, left)) > 0:
        assert budget.to_refit(now, left - spare) == found
        longer = budget.in_time(now, found, left).epochs / budget.in_time(now, found, left - spare).epochs
        assert longer >= 1


@given(took=st.floats(0.0, 1e4), tried=st.floats(0.01, 100.0))
@EVERYTHING
def test_minutes_that_would_do_are_more_than_were_too_few_and_than_what_passed(
    took: float, tried: float, study: Study
) -> None:
    least = budget.least_minutes(study.snapshot(), took, tried)
    assert least > tried
    assert 60 * least > took
    assert float(f"{least:g}") == pytest.approx(least, abs=1e-3 * least)


def test_a_network_that_tells_both_sides_is_not_the_last_one_where_that_is_no_longer_wanted(study: Study) -> None:
    now = after(study.snapshot(), RUNS)
    for gain in (0.0, 0.01):
        told = replace(now, attributes={**now.attributes, records.REFIT: {"trial": 1, "flip_gain": gain}})
        assert budget.refitted(told) == 1
        search = now.spec.search.model_copy(update={"refit_test_time_flip": False})
        changed = replace(told, spec=now.spec.model_copy(update={"search": search}))
        assert budget.refitted(changed) == (1 if gain == 0 else None)
        assert (budget.finale(changed, now.trials[1], 1.0) > 0) == (gain > 0)
    earlier = replace(now, attributes={**now.attributes, records.REFIT: {"trial": 1}})
    assert budget.refitted(earlier) == 1


@pytest.mark.parametrize("seconds", [0.01, 1.0, 12.0, 600.0, 1e7])
def test_a_budget_ends_before_its_minutes_are_over(seconds: float) -> None:
    found = Budget(100.0, seconds)
    assert 100 + 0.7 * seconds <= found.deadline < 100 + seconds


def test_seconds_on_the_wall_are_at_least_those_of_the_device(study: Study) -> None:
    for wall, told in ((0.5, 1.0), (1.0, 1.0), (3.0, 3.0)):
        now = after(study.snapshot(), [replace(run, wall=wall) for run in RUNS])
        assert budget.wall_per_second(now) == pytest.approx(told)
    assert budget.wall_per_second(after(study.snapshot(), [])) == budget.OVERHEAD


# --- a study from its first to its last trial -------------------------------------------------------------------------


@dataclass
class Virtual(Scripted):
    """Trainings that take what is forecast, times a number, by a clock that nobody waits for."""

    now: Snapshot | None = None
    times: float = 1.0
    spent: list[float] = field(default_factory=list)

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        assert self.now is not None
        seconds = self.times * nominal(self.now, pipeline)
        accuracy = min(0.99, 0.9 + 0.03 * math.log10(seconds / self.times) - 0.01 * len(pipeline.strategies))
        self.trained.append(pipeline)
        self.spent.append(seconds)
        yield report(pipeline.epochs, pipeline.epochs, seconds, accuracy)


def kind(attributes: Mapping[str, object]) -> str:
    """What a trial is, of the parts of a run."""
    known = {records.CONFIRM_OF: "confirm", records.FILL: "fill", records.ANCHOR: "known"}
    return next((word for key, word in known.items() if key in attributes), "search")


@pytest.mark.parametrize("cheapest", [1 / 20, 1 / 60, pytest.param(1 / 200, marks=pytest.mark.long)])
def test_a_study_in_minutes_comes_to_its_end_in_time_with_all_its_parts(cheapest: float, study: Study) -> None:
    """`cheapest`: what the cheapest known pipeline takes of the time."""
    now = study.snapshot()
    times = cheapest * AT_LEISURE / min(nominal(now, budget._pipeline(now, each)) for each in now.trials)
    objective = Virtual([], now=now, times=times)
    room = Budget(0.0, AT_LEISURE).deadline

    def remaining() -> Budget:
        return Budget(time.monotonic() - sum(objective.spent), AT_LEISURE)

    while (asked := queue.claim_within(study, remaining())) is not None:
        trial.run(study, asked, objective, Display(), math.inf)
        assert sum(objective.spent) <= room
    found = study.snapshot()
    assert not [t for t in found.trials if t.state == TrialState.RUNNING]
    best = found.choice
    assert best is not None
    left = room - sum(objective.spent)
    assert best.values[0] * 5 / 4 <= left
    assert budget.to_refit(found, left) is not None
    begun = [t for t in found.trials if t.state.is_finished()]
    order = [word for word, _ in groupby(kind(t.user_attrs) for t in sorted(begun, key=lambda t: t.datetime_complete))]
    assert order[0] == "known"
    assert order[-1] in ("confirm", "fill")
    ranks = [["known", "search", "fill", "confirm"].index(word) for word in order]
    assert all(less <= more or less == 3 for less, more in pairwise(ranks))


@pytest.mark.parametrize("is_fill", [False, True])
def test_a_proposal_that_was_lost_or_crashed_is_begun_again_for_what_it_was(is_fill: bool, study: Study) -> None:
    for waiting in study.trials():  # the queue is empty: what is begun is proposed
        study.storage.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
    told = {records.FILL: True} if is_fill else {}
    lost = study.propose(None, study.experience.next, told)
    recovery.lose(study, lost.number, "its process is gone")
    again = queue.claim_within(study, Budget(time.monotonic(), TOTAL))
    assert again is not None
    assert again.user_attrs[records.RETRY_OF] == lost.number
    assert (records.FILL in again.user_attrs) == is_fill
    assert (study.pipeline(again), study.seeds(again)) == (study.pipeline(lost), study.seeds(lost))
    crashing = Scripted([TrialFault("crash", "signal 11"), [(1.0, 0.9)]])
    trial.run(study, again, crashing, Display(), math.inf)  # nobody's fault was the loss: it is tried once more
    third = queue.claim_within(study, Budget(time.monotonic(), TOTAL))
    assert third is not None
    assert third.user_attrs[records.RETRY_OF] == again.number
    crashing = Scripted([TrialFault("crash", "signal 11")])
    trial.run(study, third, crashing, Display(), math.inf)
    assert not [t for t in study.trials() if t.user_attrs.get(records.RETRY_OF) == third.number]


def test_anchors_that_refuted_flips_make_equal_are_still_the_ones_that_wait(tmp_path: Path) -> None:
    made = plan.chosen("mine", 5.0, replace(IMAGES, flips=None), costs.nominal(plan.to_probe(8)[0], 1e10), "cpu")
    words = re.sub(r"^epochs = .*$", "epochs = [5, 5]", made.study_file(), flags=re.MULTILINE)
    words = words.replace('"digits"', '"folder:/images"')  # their ladder is the generic one
    (tmp_path / "mine.toml").write_text(words)
    database = storage.open_storage(f"sqlite:///{tmp_path}/equal.db")
    facts = {**FACTS, "data": {**FACTS["data"], "flip": True}}
    found = opening.created("mine", spec.read(str(tmp_path / "mine.toml"))[1], database, facts, FORMATS)
    queue.enqueue_anchors(found, in_minutes=True)
    names = {t.user_attrs[records.ANCHOR] for t in found.trials()}
    found.optuna.set_user_attr(records.FLIPS, {"refuted": True, "words": "flips do not fit"})
    now = found.snapshot()
    assert set(anchor_pipelines(SPACES[now.spec.space.name], now.given, now.restrictions)) < names
    for waiting in now.trials:
        assert budget._pipeline(now, waiting) == found.pipeline(found.ask(waiting))
