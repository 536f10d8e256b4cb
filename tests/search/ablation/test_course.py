"""An ablation trains by turns, in pairs of the same seeds; it changes nothing of the study and loses nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.prune_train import PruneTrain
from search import trial
from search.ablation import course as courses
from search.ablation.course import Course
from search.ablation.ingredients import WHOLE, Apart, Variant
from search.ablation.result import Ablation, ablation
from search.study import queue, records, recovery
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views import figures, summary
from search.views.ablation import words
from search.views.display import Display
from search.workers.seam import Objective, TrialFault
from spaces.base import BASELINE
from tests.search.conftest import Scripted

WHAT = Pipeline(batch_size=32, epochs=2, lr=0.2, crop=False, flip=False)
VARIANTS = (
    Variant(WHOLE, WHAT),
    Variant("batch", replace(WHAT, batch_size=64)),
    Variant("epochs", replace(WHAT, epochs=4)),
    Variant(BASELINE, replace(WHAT, batch_size=64, epochs=4)),
)
KEYS = [variant.key for variant in VARIANTS]
POINT = [[(1.0, 0.8)]]


def ablated(study: Study, objective: Objective, course: Course, most: int = 99) -> Snapshot:
    """The study after at most so many trainings of an ablation."""
    for _ in range(most):
        if course.are_over(study.snapshot()):
            break
        asked = course.claim(study)
        assert asked is not None
        trial.run(study, asked, objective, Display(), math.inf)
    return study.snapshot()


def begun(new_study: Callable[..., Study], objective: Objective, **search: object) -> Study:
    """A study with one point."""
    study = new_study(stopping="none", **search)
    trial.run(study, study.ask(), objective, Display(), math.inf)
    return study


def known(found: Ablation | None) -> Ablation:
    assert found is not None
    return found


def scripted(*pairs: tuple[float, float]) -> Scripted:
    return Scripted([*POINT, *([pair] for pair in pairs)])


TWO_ROUNDS = [(1.0, 0.8), (2.0, 0.82), (1.5, 0.8), (3.0, 0.9), (3.3, 0.92), (1.4, 0.82), (2.2, 0.82), (1.1, 0.82)]


def test_all_are_trained_once_a_round_in_alternating_order_with_the_seeds_of_the_round(
    new_study: Callable[..., Study],
) -> None:
    objective = scripted(*TWO_ROUNDS)
    study = begun(new_study, objective)
    now = ablated(study, objective, Course(0, VARIANTS, 2))
    told = [t.user_attrs[records.ABLATION] for t in now.trials[1:]]
    assert [each["without"] for each in told] == [*KEYS, *KEYS[::-1]]
    assert objective.trained[1:] == [*(v.pipeline for v in VARIANTS), *(v.pipeline for v in VARIANTS[::-1])]
    rounds = [set(objective.seeds[1:5]), set(objective.seeds[5:])]
    assert [len(each) for each in rounds] == [1, 1]
    assert len({*objective.seeds}) == 3, "fresh ones: the point was chosen for its luck"


def test_an_ablation_changes_nothing_of_what_the_search_found_and_says_what_it_is(
    new_study: Callable[..., Study],
) -> None:
    objective = scripted(*TWO_ROUNDS)
    study = begun(new_study, objective)
    before = study.snapshot()
    now = ablated(study, objective, Course(0, VARIANTS, 2))
    for look in ("front", "outcomes", "curves", "stopped", "n_counted", "kept", "plain", "growth"):
        assert getattr(now, look) == getattr(before, look), look
    assert (now.counts.complete, now.counts.pruned, now.counts.by_reason) == (1, 0, {"complete": 1})
    assert "1 complete, 0 stopped early, 0 failed, 8 to take points apart" in "\n".join(summary.lines(now))
    assert now.is_complete(1)
    assert queue.claim(study, 1) is None
    assert "* round 1: trial 0 with batch and rate switched off" in figures.note(now.trials[2]).replace("\\", "")
    assert study.ask().number == 9, "the search goes on"


def test_what_was_interrupted_comes_first_and_what_was_lost_comes_again(new_study: Callable[..., Study]) -> None:
    objective, course = scripted(*TWO_ROUNDS), Course(0, VARIANTS, 2)
    study = begun(new_study, objective)
    ablated(study, objective, course, 2)
    interrupted = course.claim(study)
    assert interrupted is not None
    study.requeue(interrupted)
    assert study.ask().user_attrs.get(records.ABLATION) is None, "a search leaves it where it is"
    again = course.claim(study)
    assert again is not None
    assert again.number == interrupted.number
    recovery.lose(study, again.number, "its process is gone")
    now = ablated(study, objective, course)
    told = [t.user_attrs[records.ABLATION] for t in now.trials if records.is_ended_ablation(t)]
    assert sorted((each["round"], each["without"]) for each in told) == sorted((n, k) for n in range(2) for k in KEYS)
    assert course.done(now) == (8, 8)
    assert course.seconds_left(now) == 0
    more = replace(course, n_seeds=3)
    assert (more.done(now), more.are_over(now)) == ((8, 12), False)


@pytest.mark.parametrize(("seconds", "n"), [(0.0, 0), (1.3, 1), (4.0, 3), (1e9, 4)])
def test_nothing_is_begun_that_is_not_forecast_to_end_in_time(
    seconds: float, n: int, new_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = scripted(*TWO_ROUNDS)
    study = begun(new_study, objective)
    monkeypatch.setattr(courses.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(Course, "pace", lambda self, now: 1.0)
    monkeypatch.setattr(Course, "forecast", lambda self, variant, now: [1.0, 2.0, 3.0, 9.0][KEYS.index(variant.key)])
    now = ablated(study, objective, Course(0, VARIANTS, 1, seconds))
    assert len(now.trials) == 1 + n
    assert not [t for t in now.trials if t.state == TrialState.WAITING]


def test_a_variant_that_breaks_says_why_and_is_not_tried_for_ever(new_study: Callable[..., Study]) -> None:
    scripts: Sequence[list[tuple[float, float]] | BaseException] = [
        *([(1.0, 0.8)], [(math.inf, 0.5)], TrialFault("out_of_memory", "full"), [(3.0, 0.9)]),
        *([(3.0, 0.9)], [(2.0, 0.8)], [(2.0, 0.8)], [(1.0, 0.8)]),
    ]
    objective = Scripted([*POINT, *scripts])
    study = begun(new_study, objective, sampler="nsga2")
    now = ablated(study, objective, Course(0, VARIANTS, 2))
    assert len(objective.trained) == 9
    assert {t.state for t in now.trials[1:]} == {TrialState.PRUNED, TrialState.FAIL}
    found = known(ablation(now, 0))
    told = {each.key: (each.n_pairs, each.failures) for each in found.effects}
    assert told == {"batch": (1, ("diverged",)), "epochs": (1, ("out of memory",))}


def test_what_an_ingredient_did_is_the_difference_of_pairs_with_an_interval(new_study: Callable[..., Study]) -> None:
    objective = scripted(*TWO_ROUNDS)
    now = ablated(begun(new_study, objective), objective, Course(0, VARIANTS, 2))
    found = known(ablation(now, 0))
    batch, epochs = found.effects
    assert (batch.key, epochs.key, batch.n_pairs) == ("batch", "epochs", 2)
    assert batch.factor[0] == pytest.approx(0.5)  # 1.0 of 2.0, 1.1 of 2.2
    assert batch.points[0] == pytest.approx(-1.0)
    assert found.interplay is not None
    decades = [math.log10((1.0 / 3.0) * (1.1 / 3.3)) / 2, epochs.decades.mean, batch.decades.mean]
    assert found.interplay[0] == pytest.approx(decades[0] - decades[1] - decades[2])
    for each in (batch, epochs, found.together):
        assert each is not None
        (middle, ends) = each.points
        assert ends is not None
        assert ends[0] < middle < ends[1]
    said = "\n".join(words.lines(found, now, 160))
    assert "trial 0, taken apart: 81.00% in 1.05 s (mean of 2 fresh seeds)" in said
    assert "batch 64, lr 0.2 instead of batch 32, lr 0.2" in said
    assert "x0.50" in said


def test_of_one_seed_there_is_no_interval(new_study: Callable[..., Study]) -> None:
    objective = scripted(*TWO_ROUNDS[:4])
    now = ablated(begun(new_study, objective), objective, Course(0, VARIANTS, 1))
    found = known(ablation(now, 0))
    assert [each.points[1] for each in found.effects] == [None, None]
    assert "Of a single seed nothing is known" in "\n".join(words.lines(found, now))


def test_disturbed_seconds_are_left_out_where_there_are_others_and_marked_where_there_are_none(
    new_study: Callable[..., Study],
) -> None:
    seconds = (1.0, 2.0, 2.0, 1.0, 1.0, 9.0)  # three rounds of two, every other one the other way round
    objective = Scripted([*POINT, *([(each, 0.8)] for each in seconds)], slow={6: 9.0})
    study = begun(new_study, objective, calibration={"step_seconds": 1e-3, "threshold": 0.1, "n_foreign": 0})
    now = ablated(study, objective, Course(0, VARIANTS[:2], 3))
    (batch,) = known(ablation(now, 0)).effects
    assert (batch.n_pairs, batch.is_disturbed) == (3, False)
    assert batch.factor[0] == pytest.approx(0.5)
    assert batch.seconds == 2.0, "and not of what was disturbed either"


@pytest.mark.parametrize(("n_rounds", "title"), [(3, "80.00% in 1 s "), (2, "80.00% in *5 s ")])
def test_the_whole_is_as_fast_as_undisturbed_where_there_is_enough_of_it(
    n_rounds: int, title: str, new_study: Callable[..., Study]
) -> None:
    seconds = [9.0, 1.0, 1.0][:n_rounds]
    objective = Scripted([*POINT, *([(each, 0.8)] for each in seconds)], slow={1: 9.0})
    study = begun(new_study, objective, calibration={"step_seconds": 1e-3, "threshold": 0.1, "n_foreign": 0})
    now = ablated(study, objective, Course(0, VARIANTS[:1], n_rounds))
    found = known(ablation(now, 0))
    assert title in words.title(found)
    assert ("* Other work" in "\n".join(words.notes(found))) == found.is_disturbed


def test_rounds_in_which_the_whole_pipeline_broke_are_told(new_study: Callable[..., Study]) -> None:
    scripts: Sequence[list[tuple[float, float]] | BaseException] = [
        *([(math.inf, 0.5)], [(2.0, 0.8)], [(2.0, 0.8)], TrialFault("out_of_memory", "full")),
        *([(1.0, 0.8)], [(2.0, 0.8)]),
    ]
    objective = Scripted([*POINT, *scripts])
    now = ablated(begun(new_study, objective, sampler="nsga2"), objective, Course(0, VARIANTS[:2], 3))
    found = known(ablation(now, 0))
    assert (found.n_rounds, found.failures) == (1, ("diverged", "out of memory"))
    said = "did not train to its end in 2 rounds, which count for nothing: diverged, out of memory."
    assert said in "\n".join(words.notes(found))
    assert words.as_json(found, Apart((), {}), now, 3)["failures"] == ["diverged", "out of memory"]


# --- real trainings ---------------------------------------------------------------------------------------------------

NEUTRAL = (PruneTrain(lpr=0.0), Freeze(start=1.0), Lookahead(pull=1.0), Ema(horizon=0.0))


def test_without_what_does_nothing_it_is_the_identical_run_and_the_interval_is_around_nothing(
    new_study: Callable[..., Study],
) -> None:
    study = new_study(stopping="none")
    objective = TrainingObjective(study.spec.task, "cpu")
    trial.run(study, study.ask(), objective, Display(), math.inf)
    whole = replace(WHAT, width=0.5, strategies=NEUTRAL)
    neutral = Variant("neutral", replace(whole, strategies=()))
    unlike = Variant("batch", replace(whole, batch_size=64))
    now = ablated(study, objective, Course(0, (Variant(WHOLE, whole), neutral, Variant("same", whole), unlike), 2))
    found = {each.key: each for each in known(ablation(now, 0)).effects}
    for key in ("neutral", "same"):
        gain, decades = found[key].gain, found[key].decades
        assert gain.mean == 0, key
        assert gain.interval is not None
        assert decades.interval is not None
        assert gain.interval[0] <= 0 <= gain.interval[1]
    curves = {
        key: {
            k[0]: [point[2:] for point in t.user_attrs[records.CURVE]] for k, t in courses.ended(now, 0) if k[1] == key
        }
        for key in ("neutral", "same", "batch", WHOLE)
    }
    assert curves["same"] == curves["neutral"] == curves[WHOLE], "every accuracy and loss of every epoch"
    assert curves["batch"] != curves[WHOLE]
