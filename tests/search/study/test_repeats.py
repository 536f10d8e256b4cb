"""Disturbed trainings are found and, where they decide, timed again; of a trial and its repeats one is a point."""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Callable, Generator
from dataclasses import replace

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from objectives.pipeline import Pipeline, Reading, Report
from objectives.task import Seeds
from search import trial
from search.study import opening, queue, records, recovery, repeats
from search.study.disturbance import Calibration, calibrated, judged
from search.study.study import Study
from search.views import figures, summary
from search.views.display import Display
from spaces.base import BASELINE
from tests.search.conftest import FACTS, TOML, Scripted, report
from tests.search.place import Place, check_whole

STUDY = ("--study", "tiny")


class Heard(Display):
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.finished: list[str] = []

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        self.finished.append(message)

    def say(self, line: str) -> None:
        self.lines.append(line)


def quiet(new_study: Callable[..., Study], **search: object) -> Study:
    """A study on a device that was quiet when it was created."""
    return new_study(calibration={"step_seconds": 1e-3}, **search)


def run(study: Study, objective: Scripted, n: int) -> list[str]:
    """What was said while so many trials ran."""
    heard = Heard()
    for _ in range(n):
        trial.run(study, study.ask(), objective, heard, math.inf)
    return heard.lines


def ended(number: int, seconds: float, noisy: bool, repeat_of: int | None = None) -> FrozenTrial:
    attributes: dict[str, object] = {records.NOISY: "other work"} if noisy else {}
    if repeat_of is not None:
        attributes[records.REPEAT_OF] = repeat_of
    made = optuna.trial.create_trial(state=TrialState.COMPLETE, values=[seconds, 0.9], user_attrs=attributes)
    made.number = number
    return made


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 10), st.booleans()), max_size=12))
def test_of_a_trial_and_its_repeats_the_first_quiet_one_or_the_fastest_is_the_point(
    runs: list[tuple[int, float, bool]],
) -> None:
    firsts: dict[int, int] = {}
    trials = []
    for number, (group, seconds, noisy) in enumerate(runs):
        trials.append(ended(number, seconds, noisy, firsts.get(group)))
        firsts.setdefault(group, number)
    chosen = {records.first(point): point for point in records.points(trials)}
    assert set(chosen) == set(firsts.values())
    assert len(chosen) == len(records.points(trials)) == records.n_counted(trials)
    for number, point in chosen.items():
        group = [t for t in trials if records.first(t) == number]
        quiet = [t for t in group if records.NOISY not in t.user_attrs]
        assert point is (quiet[0] if quiet else min(group, key=lambda t: t.values[0]))


@pytest.mark.parametrize(
    ("reading", "said", "undisturbed"),
    [
        (Reading(1.02), None, None),
        (Reading(0.7), None, None),
        (Reading(1.25), "the reference workload took 1.25x its time", 3.2),
        (Reading(1.0, n_foreign=1), None, None),  # it was there when the study was created
        (Reading(1.0, n_foreign=3), "2 other processes on the GPU", 4.0),
        (Reading(0.8, throttled=("heat", "power brake")), "the GPU was throttled by heat and power brake", 4.0),
        (
            Reading(1.6, n_foreign=2),
            "the reference workload took 1.60x its time; 1 other process on the GPU",
            2.5,
        ),
    ],
)
def test_a_disturbance_is_told_in_words_with_what_the_training_would_have_taken(
    reading: Reading, said: str | None, undisturbed: float | None
) -> None:
    told = judged(report(3, 3, 4.0, 0.9), reading, Calibration(1.0, 0.03, n_foreign=1))
    assert (told.get(records.NOISY), told.get(records.UNDISTURBED)) == (said, undisturbed)
    assert told[records.REFERENCE_RATIO] == reading.step_seconds


def test_what_neighbours_have_of_the_core_disturbs_nothing_but_is_said(new_study: Callable[..., Study]) -> None:
    """The seconds are CPU time; by the clock on the wall it takes longer."""

    class Shared(Scripted):
        def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
            for each in super().reports(pipeline, seeds):
                yield replace(each, wall_seconds=1.5 * each.train_seconds)

    study = quiet(new_study, repeats=2)
    heard = Heard()
    trial.run(study, study.ask(), Shared([[(4.0, 0.9)]]), heard, math.inf)
    (told,) = study.trials()
    assert records.NOISY not in told.user_attrs
    assert heard.finished == ["90.00% after 4.00 s (6.00 s on the wall)"]
    assert "* epoch 1 of" in figures.note(told)
    assert "after 4.00 s (6.00 s on the wall)" in figures.note(told)
    assert any("1.5x as long (trial 0: 6.00 s)" in line for line in summary.lines(study.snapshot()))


@pytest.mark.parametrize(("wall", "shown"), [(4.39, False), (4.41, True), (3.59, True), (3.61, False), (None, False)])
def test_wall_seconds_are_shown_where_they_differ_by_more_than_a_tenth(wall: float | None, shown: bool) -> None:
    assert ("on the wall" in records.in_seconds(4.0, wall)) == shown


def test_the_threshold_follows_the_unrest_of_the_device_but_is_never_below_three_per_cent() -> None:
    class Restless(Scripted):
        def reference(self, n_steps: int) -> Reading:
            self.n_steps.append(n_steps)
            return Reading(1.0 + 0.1 * (len(self.n_steps) % 3))

    assert calibrated([Scripted([]).reference]) == {"step_seconds": 1e-3, "threshold": 0.03, "n_foreign": 0}
    assert calibrated([Restless([]).reference])["threshold"] == pytest.approx(3 * 0.1 / 1.1)


@pytest.mark.parametrize(("seconds", "n_steps"), [(0.1, []), (0.2, []), (0.5, [15]), (100.0, [50])])
def test_the_reference_workload_takes_three_per_cent_of_a_training_at_most(
    seconds: float, n_steps: list[int], new_study: Callable[..., Study]
) -> None:
    study, objective = new_study(calibration={"step_seconds": 1e-3}), Scripted([[(seconds, 0.9)]])
    run(study, objective, 1)
    assert objective.n_steps == n_steps
    assert (records.REFERENCE_RATIO in study.trials()[0].user_attrs) == bool(n_steps)


def test_a_stopped_training_and_a_study_of_mixed_devices_ask_for_no_reference(new_study: Callable[..., Study]) -> None:
    study, diverged = new_study(calibration={"step_seconds": 1e-3}), Scripted([[(math.inf, 0.5)]])
    run(study, diverged, 1)
    assert diverged.n_steps == []
    identity = study.optuna.user_attrs[records.IDENTITY]
    study.optuna.set_user_attr(records.IDENTITY, opening.blurred(identity, mixed_devices=True))
    mixed = Scripted([[(9.0, 0.9)]], slow={0: 2.0})
    run(study, mixed, 1)
    assert mixed.n_steps == []
    assert records.NOISY not in study.trials()[1].user_attrs


# --- what is timed again, as a function of the trials -----------------------------------------------------------------

FLOOR = 0.2


def searched(number: int, seconds: float, accuracy: float, ratio: float = 1.0, **attributes: object) -> FrozenTrial:
    """A finished run, after which the reference workload took so many times its time."""
    if ratio > 1.03:
        attributes |= {records.NOISY: "other work", records.UNDISTURBED: seconds / ratio}
    made = optuna.trial.create_trial(
        state=TrialState.COMPLETE, values=[seconds, accuracy], user_attrs={"pipeline": {"epochs": 1}, **attributes}
    )
    made.number = number
    return made


def repeat(number: int, of: int, seconds: float, accuracy: float, ratio: float = 1.0) -> FrozenTrial:
    return searched(number, seconds, accuracy, ratio, **{records.REPEAT_OF: of})


LONG = [searched(0, 500.0, 0.3)]  # a search that leaves 50 s for repeats, and decides nothing


@pytest.mark.parametrize(
    ("more", "chosen"),
    [
        pytest.param([searched(1, 4.0, 0.9)], None, id="nothing is disturbed"),
        pytest.param([searched(1, 4.0, 0.9, 1.2)], None, id="alone on its front: it stays there at any seconds"),
        pytest.param([searched(1, 4.0, 0.9, 1.2), searched(2, 3.9, 0.95)], 1, id="it would be on the front"),
        pytest.param([searched(1, 4.0, 0.9, 1.2), searched(2, 3.0, 0.95)], None, id="dominated in any case"),
        pytest.param([searched(1, 4.0, 0.9, 1.2), searched(2, 3.9, 0.85)], 1, id="it would push another one out"),
        pytest.param([searched(1, 4.0, 0.9, 1.2), searched(2, 3.0, 0.85)], None, id="its place is its own"),
        pytest.param(
            [searched(1, 4.0, 0.9, 1.2), searched(2, 3.9, 0.85, 1.2)], 2, id="of two that decide the shortest first"
        ),
        pytest.param(
            [searched(1, 4.0, 0.5, 1.2, **{records.ANCHOR: BASELINE}), searched(2, 3.0, 0.9)], 1, id="BASELINE always"
        ),
        pytest.param(
            [
                searched(1, 9.0, 0.5, 1.2, **{records.ANCHOR: BASELINE}),
                searched(2, 4.0, 0.9, 1.2),
                searched(3, 3.9, 0.95),
            ],
            1,
            id="BASELINE first",
        ),
        pytest.param([searched(1, 4.0, 0.5, **{records.ANCHOR: BASELINE})], None, id="BASELINE only if disturbed"),
        pytest.param(
            [searched(1, 70.0, 0.9, 1.2), searched(2, 69.0, 0.95)], None, id="longer than a tenth of the study"
        ),
        pytest.param(
            [
                searched(1, 70.0, 0.5, 1.2, **{records.ANCHOR: BASELINE}),
                searched(2, 4.0, 0.9, 1.2),
                searched(3, 3.9, 0.95),
            ],
            2,
            id="there is time for the shorter one",
        ),
        pytest.param(
            [
                searched(1, 30.0, 0.9, 1.2),
                searched(2, 29.0, 0.95),
                searched(3, 30.0, 0.5, 1.2),
                repeat(4, 3, 30.0, 0.5),
            ],
            None,
            id="a tenth is spent",
        ),
        pytest.param(
            [searched(1, 4.0, 0.9, 1.2), searched(2, 3.9, 0.95), repeat(3, 1, 3.5, 0.9)], None, id="it was quiet then"
        ),
        pytest.param(
            [
                searched(1, 4.0, 0.9, 1.2),
                searched(2, 3.9, 0.95),
                searched(3, 2.0, 0.8, 1.2),
                searched(4, 1.9, 0.85),
                repeat(5, 3, 2.1, 0.8, 1.2),
            ],
            None,
            id="a repeat was disturbed, too",
        ),
        pytest.param(
            [
                searched(1, 4.0, 0.9, 1.2),
                searched(2, 3.9, 0.95),
                repeat(3, 1, 4.1, 0.9, 1.2),
                searched(4, 9.0, 0.3),
            ],
            1,
            id="the search has gone on since",
        ),
    ],
)
def test_only_a_disturbed_reading_that_decides_is_timed_again_while_there_is_time_and_quiet(
    more: list[FrozenTrial], chosen: int | None
) -> None:
    trials = [*LONG, *more]
    due = repeats.due(trials, FLOOR, limit=2)
    assert (due.number if due is not None else None) == chosen
    assert repeats.pending(trials, FLOOR, limit=2) == (chosen is not None)
    assert repeats.due(trials, FLOOR, limit=0) is None


@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.integers(2, 10), st.sampled_from([1.0, 1.1, 2.0])), max_size=12),
    st.lists(st.sampled_from([0.9, 1.0, 1.05]), min_size=24, max_size=24),
)
def test_whatever_a_search_found_repeats_end_within_a_tenth_of_its_seconds(
    runs: list[tuple[float, int, float]], paces: list[float]
) -> None:
    trials = [searched(n, seconds, tenths / 10, ratio) for n, (seconds, tenths, ratio) in enumerate(runs)]
    for pace in paces:
        due = repeats.due(trials, FLOOR, limit=2)
        if due is None:
            break
        ratio = 2.0 if pace > 1 else 1.0
        trials.append(repeat(len(trials), records.first(due), pace * due.values[0], due.values[1], ratio))
    assert not repeats.pending(trials, FLOOR, limit=2)
    whole, again = sum(t.values[0] for t in trials), sum(t.values[0] for t in trials if records.is_repeat(t))
    assert again <= 0.1 * whole
    assert sum(bool(t.user_attrs.get(records.NOISY)) for t in trials if records.is_repeat(t)) <= 1
    assert {point.trial for point in records.pareto_front(trials, FLOOR)} <= repeats.kept(trials, FLOOR, limit=2)


# --- a study that repeats ---------------------------------------------------------------------------------------------


def again(study: Study, objective: Scripted, n_trials: int) -> list[str]:
    """What is said while all is timed again that is to be, after a search of `n_trials`."""
    heard = Heard()
    while (asked := queue.claim(study, n_trials)) is not None:
        trial.run(study, asked, objective, heard, math.inf)
    assert study.snapshot().is_complete(n_trials)
    return heard.lines


def test_a_quiet_repeat_takes_the_place_of_a_disturbed_candidate(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=2)
    objective = Scripted(
        [[(1.0, 0.8)], [(4.0, 0.9)], [(3.9, 0.91)], [(60.0, 0.3)], [(2.1, 0.9)], [(9.0, 0.95)]], slow={1: 2.0}
    )
    assert run(study, objective, 4) == []
    assert [p.trial for p in study.snapshot().front] == [0, 2]
    assert not study.snapshot().is_complete(4)
    why = "the reference workload took 2.00x its time"
    assert again(study, objective, 4) == [
        f"trial 1 was disturbed ({why}): it is timed again as trial 4, not counted",
    ]
    assert [p.trial for p in study.snapshot().front] == [0, 4, 2]
    assert (objective.trained[1], objective.seeds[1]) == (objective.trained[4], objective.seeds[4])
    run(study, objective, 1)
    assert records.n_counted(study.trials()) == 5
    assert records.counts(study.trials()).repeats == 1
    assert {p.name for p in study.networks.folder.iterdir()} == {study.networks.of(n).name for n in (0, 2, 4, 5)}


def test_nothing_is_timed_again_before_the_search_is_over(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=2)
    run(study, Scripted([[(60.0, 0.3)], [(4.0, 0.9)], [(3.9, 0.95)]], slow={1: 2.0}), 3)
    more = queue.claim(study, 4)
    assert more is not None
    assert records.REPEAT_OF not in more.user_attrs
    assert queue.claim(study, 4) is None  # the last of them runs elsewhere
    trial.run(study, more, Scripted([[(9.0, 0.96)]]), Display(), math.inf)
    interrupted = queue.claim(study, 4)
    assert interrupted is not None
    assert interrupted.user_attrs[records.REPEAT_OF] == 1
    study.requeue(interrupted)
    further = queue.claim(study, 5)  # the search goes on: the repeat waits for its end
    assert further is not None
    assert records.REPEAT_OF not in further.user_attrs
    trial.run(study, further, Scripted([[(9.0, 0.97)]]), Display(), math.inf)
    resumed = queue.claim(study, 5)
    assert resumed is not None
    assert resumed.number == interrupted.number


def test_one_disturbed_repeat_ends_them_and_leaves_the_fastest_with_a_mark(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=2)
    queue.enqueue_anchors(study)
    objective = Scripted([[(4.0, 0.9)], *[[(60.0, 0.9)]] * 5, [(3.0, 0.9)]], slow={0: 2.0, 6: 1.6})
    assert run(study, objective, 6) == []
    said = again(study, objective, 6)
    assert said[0].startswith("trial 0 was disturbed")
    assert said[1:] == [
        "  it was disturbed again (the reference workload took 1.60x its time): "
        "there is no quiet to be had, nothing more is timed again"
    ]
    baseline = study.snapshot().baseline
    assert baseline is not None
    assert (baseline.number, baseline.user_attrs[records.ANCHOR]) == (6, BASELINE)
    noted = figures.note(baseline).splitlines()
    assert "* times trial 0 again" in noted
    assert "* disturbed: the reference workload took 1.60x its time; undisturbed about 1.88 s" in noted
    *_, row, _ = summary.table(study.snapshot(), 200)
    assert re.match(r" +6 +\*3\.00 +90\.00% +\+0\.00 ", row)  # no speed-up is claimed
    assert any(line.startswith("* Other work disturbed the device") for line in summary.lines(study.snapshot()))
    assert any("7 complete (1 of them timed again)" in line for line in summary.lines(study.snapshot()))
    result = summary.as_json(study.snapshot())
    assert result["baseline"]["noisy"] == "the reference workload took 1.60x its time"  # type: ignore[index]


def test_a_quiet_study_claims_its_speed_ups(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=2)
    queue.enqueue_anchors(study)
    run(study, Scripted([[(4.0, 0.8)], [(2.0, 0.9)]]), 2)
    *_, faster, baseline, _ = summary.table(study.snapshot(), 200)
    assert ("2.00x" in faster, "1.00x" in baseline) == (True, True)
    assert not any(line.startswith("*") for line in summary.lines(study.snapshot()))


def test_without_repeats_a_disturbed_trial_is_marked_and_that_is_all(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=0)
    run(study, Scripted([[(60.0, 0.3)], [(4.0, 0.9)], [(3.9, 0.95)]], slow={1: 2.0}), 3)
    assert study.snapshot().is_complete(3)
    assert study.trials()[1].user_attrs[records.NOISY]


def test_a_network_comes_back_with_its_point_when_a_repeat_is_slower(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=2)
    trainings = [[(60.0, 0.3)], [(2.0, 0.8)], [(1.9, 0.85)], [(1.8, 0.86)], [(2.1, 0.85)]]
    run(study, Scripted(trainings, slow={2: 1.1}), 3)
    assert [p.trial for p in study.snapshot().front] == [2]
    assert study.networks.of(1).exists()  # a repeat may yet bring it back
    study.collect()
    run(study, Scripted([[(1.8, 0.86)]]), 1)
    again(study, Scripted([[(2.1, 0.85)]]), 4)
    have = {int(path.name[-5:]) for path in study.networks.folder.iterdir()}
    assert {point.trial for point in study.snapshot().front} <= have


def test_a_repeat_is_never_stopped_early(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=1)
    steady = [(seconds, 1 - 0.1 ** (seconds / 4)) for seconds in (1.0, 2.0, 3.0, 4.0)]
    hopeless = [(100 * seconds, 0.4) for seconds in (1.0, 2.0, 3.0, 4.0)]
    objective = Scripted([*[steady] * 9, [(5.0, 0.95)], [(4.9, 0.96)], [(60.0, 0.3)], hopeless], slow={9: 2.0})
    run(study, objective, 12)
    again(study, objective, 12)
    assert study.trials()[12].values == [400.0, 0.4]
    assert records.WOULD_STOP not in study.trials()[12].user_attrs


def test_a_repeat_that_was_about_to_be_queued_is_queued_by_the_next_start(new_study: Callable[..., Study]) -> None:
    study = quiet(new_study, repeats=2)  # as if it had been killed after the last result was told
    run(study, Scripted([[(60.0, 0.3)], [(4.0, 0.9)], [(3.9, 0.95)]], slow={1: 2.0}), 3)
    found = opening.resumed("tiny", study.spec, study.optuna, study.database, FACTS)
    assert not found.snapshot().is_complete(3)
    recovery.recover(found)
    recovery.recover(found)
    asked = queue.claim(found, 3)
    assert asked is not None
    assert (asked.number, asked.user_attrs[records.REPEAT_OF]) == (3, 1)
    assert queue.claim(found, 3) is None


@pytest.fixture
def place(place: Place) -> Place:
    """The working directory with a study that repeats."""
    (place.folder / "studies" / "tiny.toml").write_text(TOML.replace("repeats = 0", "repeats = 2"))
    return place


SLOW = {"0": 1.5, "1": 100.0}  # BASELINE is disturbed; a tenth of what the next one takes is enough to repeat it


def test_totals_are_exact_and_baseline_is_timed_again_after_the_last_trial(place: Place) -> None:
    place.script(slow=SLOW)
    done = place.run(*STUDY, "--n-trials", "6", "--json")
    assert done.code == 0, done.err
    _, _, after = done.err.partition("6 of 6 trials")
    assert "trial 0 was disturbed (the reference workload took 1.50x its time): it is timed again as trial 6" in after
    check_whole(place.trials(), 6)
    assert [t.number for t in place.trials() if records.is_repeat(t)] == [6]
    result = json.loads(done.out)
    assert result["trials"]["repeats"] == 1
    assert (result["baseline"]["trial"], result["baseline"]["noisy"]) == (6, None)
    front = {f"trial-{point['trial']:05d}" for point in result["front"]}
    assert {path.name for path in (place.folder / "studies" / "artifacts" / "tiny").glob("trial-*")} >= front


@pytest.mark.long
def test_a_repeat_that_is_killed_is_run_by_the_same_command_also_of_a_complete_study(place: Place) -> None:
    words = (*STUDY, "--n-trials", "6")
    place.script({6: "kill_program"}, slow=SLOW)
    assert place.run(*words).code == -signal.SIGKILL
    assert place.reasons() == ["complete"] * 6 + ["running"]
    place.script({0: "SIGSEGV"})
    done = place.run(*words)
    assert done.code == 0, done.err
    check_whole(place.trials(), 6)
    assert place.reasons()[6:] == ["worker_lost", "crash", "complete"]
    assert "nothing to train" in place.run(*words).err
