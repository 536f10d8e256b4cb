"""Disturbed trainings are found, timed again, and of a trial and its repeats one is a point."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from objectives.pipeline import Reading
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
    """A display that remembers what it was told to say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


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
    ("share", "reading", "said", "undisturbed"),
    [
        (1.0, None, None, None),
        (1.4, None, None, None),  # several threads
        (0.98, None, None, None),
        (0.5, None, "the core was shared 50% of the time", 2.0),
        (1.0, Reading(1.02), None, None),
        (1.0, Reading(0.7), None, None),
        (1.0, Reading(1.25), "the reference workload took 1.25x its time", 3.2),
        (0.5, Reading(1.25), "the core was shared 50% of the time; the reference workload took 1.25x its time", 1.6),
        (1.0, Reading(1.0, n_foreign=1), None, None),  # it was there when the study was created
        (1.0, Reading(1.0, n_foreign=3), "2 other processes on the GPU", 4.0),
        (1.0, Reading(1.0, throttled=("heat", "power brake")), "the GPU was throttled by heat and power brake", 4.0),
    ],
)
def test_a_disturbance_is_told_in_words_with_what_the_training_would_have_taken(
    share: float, reading: Reading | None, said: str | None, undisturbed: float | None
) -> None:
    told = judged(report(3, 3, 4.0, 0.9), share, reading, Calibration(1.0, 0.03, n_foreign=1))
    assert (told.get(records.NOISY), told.get(records.UNDISTURBED)) == (said, undisturbed)
    assert (records.REFERENCE_RATIO in told) == (reading is not None)


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
    mixed = Scripted([[(9.0, 0.9)]], shares={0: 0.5})
    run(study, mixed, 1)
    assert mixed.n_steps == []
    assert records.NOISY not in study.trials()[1].user_attrs


def test_a_quiet_repeat_takes_the_place_of_a_disturbed_candidate(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=2)
    objective = Scripted([[(1.0, 0.8)], [(4.0, 0.9)], [(2.1, 0.9)], [(9.0, 0.95)]], shares={1: 0.5})
    said = run(study, objective, 2)
    assert said == ["  trial 1 was disturbed (the core was shared 50% of the time): it is timed again as trial 2"]
    assert [p.trial for p in study.snapshot().front] == [0, 1]
    assert not study.snapshot().is_complete(2)
    assert run(study, objective, 2) == []
    assert study.snapshot().is_complete(3)
    assert [p.trial for p in study.snapshot().front] == [0, 2, 3]
    assert (objective.trained[1], objective.seeds[1]) == (objective.trained[2], objective.seeds[2])
    assert records.n_counted(study.trials()) == 3
    assert records.counts(study.trials()).repeats == 1
    assert {p.name for p in study.networks.folder.iterdir()} == {study.networks.of(n).name for n in (0, 2, 3)}


def test_two_disturbed_repeats_leave_the_fastest_with_a_mark(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=2)
    queue.enqueue_anchors(study)
    objective = Scripted([*[[(4.0, 0.9)]] * 6, [(3.0, 0.9)], [(5.0, 0.9)]], shares={0: 0.5, 6: 0.6, 7: 0.4})
    run(study, objective, 8)
    assert study.snapshot().is_complete(6)
    baseline = study.snapshot().baseline
    assert baseline is not None
    assert (baseline.number, baseline.user_attrs[records.ANCHOR]) == (6, BASELINE)
    assert baseline.user_attrs[records.NOISY] == "the core was shared 40% of the time"
    noted = figures.note(baseline).splitlines()
    assert "* times trial 0 again" in noted
    assert "* disturbed: the core was shared 40% of the time; undisturbed about 1.80 s" in noted
    shown = summary.table(study.snapshot())
    columns = {str(column.header): list(column.cells) for column in shown.columns}
    assert (columns["seconds"][0], set(columns["speed-up"])) == ("*3.00", {""})
    assert any(line.startswith("* Other work disturbed the device") for line in summary.lines(study.snapshot()))
    assert any("8 complete (2 of them timed again)" in line for line in summary.lines(study.snapshot()))
    result = summary.as_json(study.snapshot())
    assert result["baseline"]["noisy"] == "the core was shared 40% of the time"  # type: ignore[index]


def test_a_quiet_study_claims_its_speed_ups(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=2)
    queue.enqueue_anchors(study)
    run(study, Scripted([[(4.0, 0.8)], [(2.0, 0.9)]]), 2)
    assert [list(c.cells) for c in summary.table(study.snapshot()).columns if c.header == "speed-up"] == [
        ["2.00x", "1.00x"]
    ]
    assert not any(line.startswith("*") for line in summary.lines(study.snapshot()))


def test_what_is_dominated_in_any_case_is_not_timed_again_but_baseline_is(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=2)
    queue.enqueue_anchors(study)
    trainings = [[(9.0, 0.3)], [(1.0, 0.9)], [(4.0, 0.8)]]
    said = run(study, Scripted(trainings, shares={0: 0.9, 2: 0.5}), 3)
    assert len(said) == 1
    assert "trial 0 was disturbed (the core was shared 10% of the time): it is timed again as trial 6" in said[0]
    assert study.trials()[2].user_attrs[records.NOISY]


def test_without_repeats_a_disturbed_trial_is_marked_and_that_is_all(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=0)
    assert run(study, Scripted([[(4.0, 0.9)]], shares={0: 0.5}), 1) == []
    assert study.snapshot().is_complete(1)
    assert study.trials()[0].user_attrs[records.NOISY]


def test_a_network_comes_back_with_its_point_when_a_repeat_is_slower(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=2)
    run(study, Scripted([[(2.0, 0.8)], [(1.9, 0.85)], [(2.1, 0.85)]], shares={1: 0.9}), 2)
    assert [p.trial for p in study.snapshot().front] == [1]
    assert study.networks.of(0).exists()  # a repeat may yet bring it back
    study.collect()
    run(study, Scripted([[(2.1, 0.85)]]), 1)
    assert [p.trial for p in study.snapshot().front] == [0, 2]
    assert {p.name for p in study.networks.folder.iterdir()} == {study.networks.of(n).name for n in (0, 2)}


def test_a_repeat_is_never_stopped_early(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=1)
    steady = [(seconds, 1 - 0.1 ** (seconds / 4)) for seconds in (1.0, 2.0, 3.0, 4.0)]
    hopeless = [(100 * seconds, 0.4) for seconds in (1.0, 2.0, 3.0, 4.0)]
    objective = Scripted([*[steady] * 9, [(5.0, 0.95)], hopeless], shares={9: 0.5})
    run(study, objective, 11)
    assert study.trials()[10].values == [400.0, 0.4]
    assert records.WOULD_STOP not in study.trials()[10].user_attrs


def test_a_repeat_that_was_about_to_be_queued_is_queued_by_the_next_start(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=0)  # as if it had been killed after the result was told
    run(study, Scripted([[(4.0, 0.9)]], shares={0: 0.5}), 1)
    search = study.spec.search.model_copy(update={"repeats": 2})
    again = opening.resumed(
        "tiny", study.spec.model_copy(update={"search": search}), study.optuna, study.database, FACTS
    )
    assert not again.snapshot().is_complete(1)
    recovery.recover(again)
    recovery.recover(again)
    assert [records.first(t) for t in repeats.waiting(again.trials())] == [0]
    asked = queue.claim(again, 1)
    assert asked is not None
    assert asked.number == 1


def test_the_reference_of_the_hypervolume_waits_for_a_quiet_baseline(new_study: Callable[..., Study]) -> None:
    study = new_study(repeats=1)
    queue.enqueue_anchors(study)
    objective = Scripted([[(4.0, 0.9)]] * 6 + [[(2.0, 0.9)]], shares={0: 0.5})
    run(study, objective, 6)
    assert study.snapshot().reference.train_seconds == 40.0  # type: ignore[union-attr]
    run(study, objective, 1)
    assert study.snapshot().reference.train_seconds == 20.0  # type: ignore[union-attr]


@pytest.fixture
def place(place: Place) -> Place:
    """The working directory with a study that repeats."""
    (place.folder / "studies" / "tiny.toml").write_text(TOML.replace("repeats = 0", "repeats = 2"))
    return place


def test_totals_are_exact_and_the_last_trial_is_timed_again(place: Place) -> None:
    place.script(shares={"0": 0.5}, slow={"1": 1.5})
    done = place.run(*STUDY, "--n-trials", "1", "--json")
    assert done.code == 0, done.err
    assert "(the core was shared 50% of the time): it is timed again as trial 6" in done.err
    assert (
        "trial 6 was disturbed (the reference workload took 1.50x its time): it is timed again as trial 7" in done.err
    )
    trials = place.trials()
    assert place.reasons() == ["complete", *["waiting"] * 5, "complete", "complete"]
    assert [records.first(t) for t in trials if records.is_repeat(t)] == [0, 0]
    result = json.loads(done.out)
    assert (result["trials"]["complete"], result["trials"]["repeats"]) == (3, 2)
    assert (result["baseline"]["trial"], result["baseline"]["noisy"]) == (7, None)
    assert [point["trial"] for point in result["front"]] == [7]
    assert place.run(*STUDY).code == 0
    check_whole(place.trials(), 7)
    front = {f"trial-{point.trial:05d}" for point in records.pareto_front(place.trials(), 0.2)}
    assert {path.name for path in (place.folder / "studies" / "artifacts" / "tiny").glob("trial-*")} == front


def test_a_repeat_that_is_killed_is_run_by_the_same_command_also_of_a_complete_study(place: Place) -> None:
    place.script({7: "kill_program"}, shares={"0": 0.5, "6": 0.5})
    assert place.run(*STUDY, "--sampler", "random").code == -signal.SIGKILL
    place.script({1: "SIGSEGV"})
    done = place.run(*STUDY, "--sampler", "random")
    assert done.code == 0, done.err
    check_whole(place.trials(), 7)
    assert not repeats.unsettled(place.trials(), 0.2, 2)
    assert "nothing to train" in place.run(*STUDY, "--sampler", "random").err
