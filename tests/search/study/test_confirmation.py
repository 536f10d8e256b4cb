"""A front is confirmed with fresh seeds, which say what its points are worth and never change what they are."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from math import inf
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from search import trial
from search.study import confirmation, queue, records, recovery
from search.study.confirmation import SHARE
from search.study.study import Study
from search.views import figures, summary
from search.views.confirmed import LIKENESS
from search.views.display import Display
from search.views.drawing import points
from search.views.report import why
from spaces.base import BASELINE
from tests.search.conftest import TOML, Scripted
from tests.search.place import Done, Place, check_whole

FLOOR = 0.2
STUDY = ("--study", "tiny", "--device", "cpu")
N_TRIALS = 12  # of the search: its front has several points


def ended(number: int, seconds: float, accuracy: float, **attributes: object) -> FrozenTrial:
    made = optuna.trial.create_trial(state=TrialState.COMPLETE, values=[seconds, accuracy], user_attrs=attributes)
    made.number = number
    return made


def again(number: int, of: int, seconds: float, accuracy: float, **attributes: object) -> FrozenTrial:
    """A confirmation that ended."""
    return ended(number, seconds, accuracy, **{records.CONFIRM_OF: of}, **attributes)


BASE = ended(0, 4.0, 0.6, **{records.ANCHOR: BASELINE})
FRONT = [BASE, ended(1, 2.0, 0.7), ended(2, 8.0, 0.9), ended(3, 1.0, 0.5)]  # 3, 1, 2 by rising seconds
LONG = ended(4, 100.0, 0.3)


@pytest.mark.parametrize(
    ("trials", "share", "due"),
    [
        pytest.param([*FRONT, LONG], SHARE, 0, id="BASELINE first"),
        pytest.param([*FRONT, LONG, again(5, 0, 4.0, 0.6)], SHARE, 0, id="with all its seeds"),
        pytest.param([*FRONT, LONG, again(5, 0, 4.0, 0.6), again(6, 0, 4.0, 0.6)], SHARE, 3, id="then the cheapest"),
        pytest.param([*FRONT, again(4, 0, 4.0, 0.6)], SHARE, None, id="a quarter is spent"),
        pytest.param([*FRONT, again(4, 0, 4.0, 0.6)], inf, 0, id="the command has no share"),
        pytest.param([BASE, ended(1, 1.0, 0.7)], SHARE, 1, id="there is time for the shorter one"),
        pytest.param([ended(0, 1.0, 0.1)], inf, None, id="nothing passed the floor"),
        pytest.param(
            [BASE, *[again(n, 0, 4.0, 0.5, **{records.REASON: "diverged"}) for n in (1, 2)]],
            inf,
            None,
            id="what diverges is not tried for ever",
        ),
    ],
)
def test_the_front_is_confirmed_from_the_cheapest_on_in_a_share_of_the_seconds(
    trials: list[FrozenTrial], share: float, due: int | None
) -> None:
    found = confirmation.due(trials, FLOOR, 2, share)
    assert (found.number if found is not None else None) == due
    assert confirmation.pending(trials, FLOOR, 2, share) == (due is not None)
    assert confirmation.due(trials, FLOOR, 0, share) is None


@given(st.lists(st.tuples(st.floats(0.1, 9), st.integers(2, 10), st.integers(0, 9)), max_size=12))
def test_no_confirmation_changes_what_the_search_found(runs: list[tuple[float, int, int]]) -> None:
    searched = [ended(n, seconds, tenths / 10) for n, (seconds, tenths, _) in enumerate(runs)]
    better = [again(len(runs) + n, min(of, n), 0.01, 1.0) for n, (_, _, of) in enumerate(runs)]
    for look in (records.points, records.n_counted, lambda trials: records.pareto_front(trials, FLOOR)):
        assert look([*searched, *better]) == look(searched)  # type: ignore[operator]


def test_the_mean_is_of_the_fresh_seeds_alone() -> None:
    trials = [*FRONT, *[again(4 + n, 2, 8.0 + n, 0.8 + n / 100) for n in range(3)]]
    found = confirmation.confirmed(trials, FLOOR, 500, "plain", {})
    assert set(found) == {2}
    assert found[2].accuracy.mean == pytest.approx(0.81)
    assert found[2].searched == 0.9
    correction = confirmation.correction(found.values())
    assert correction is not None
    assert (correction.mean, correction.point, correction.n_seeds) == (pytest.approx(0.09), 2, (3, 3))


@pytest.mark.parametrize("with_seeds", [(), (0,), (1,), (0, 2), (0, 1, 2)], ids=str)
def test_a_point_that_is_no_better_than_a_cheaper_one_is_marked_whichever_of_them_has_fresh_seeds(
    with_seeds: tuple[int, ...], new_study: Callable[..., Study]
) -> None:
    curves = [[(1.0, 0.5)], [(2.0, 0.52)], [(4.0, 0.9)]]  # of 50 images, which tell accuracies to 14 points
    fresh = [[(curves[n][0][0], curves[n][0][1] + luck)] for n in with_seeds for luck in (-0.02, 0.02)]
    objective = Scripted([*curves, *fresh])
    study = searched(new_study, objective, 3)
    for point in [study.trials()[number] for number in with_seeds for _ in range(2)]:
        study.enqueue_afresh(point, {records.CONFIRM_OF: point.number})
        trial.run(study, study.ask(confirmation.waiting(study.trials())[-1]), objective, Display(), math.inf)
    now = study.snapshot()
    assert now.alike == {1}
    assert [row.split()[0] for row in summary.table(now, 200) if "~" in row] == ["1"]
    assert [each.number for each in points.on_front(now) if each.is_alike] == [1]
    assert summary.lines(now).count(LIKENESS) == 1


def test_a_group_reaches_as_far_as_its_cheapest_point() -> None:
    assert confirmation.alike([(0.4, 0.6), (0.55, 0.7), (0.65, 0.8)]) == [False, True, False]


def searched(new_study: Callable[..., Study], objective: Scripted, n: int, **search: object) -> Study:
    """A study whose search is over."""
    study = new_study(stopping="none", **search)
    queue.enqueue_anchors(study)
    for _ in range(n):
        trial.run(study, study.ask(), objective, Display(), math.inf)
    return study


def confirm(study: Study, objective: Scripted, n_trials: int = 0, share: float = inf) -> None:
    while (asked := queue.claim(study, n_trials, share)) is not None:
        trial.run(study, asked, objective, Display(), math.inf)
    assert study.snapshot().is_complete(n_trials, share)


SEARCH = [[(4.0, 0.8)], [(2.0, 0.9)]]
FRESH = [[(4.0, 0.8)], [(4.1, 0.81)], [(2.1, 0.88)], [(0.1, 0.99)]]


def test_confirmations_have_seeds_of_their_own_and_the_parameters_of_their_point(
    new_study: Callable[..., Study],
) -> None:
    objective = Scripted([*SEARCH, *FRESH])
    study = searched(new_study, objective, 2, confirm=2)
    before = study.snapshot()
    confirm(study, objective)
    now = study.snapshot()
    assert [t.user_attrs.get(records.CONFIRM_OF) for t in now.trials if t.state == TrialState.COMPLETE] == [
        *[None] * 2,
        *[0] * 2,
        *[1] * 2,
    ]
    assert objective.trained[2:] == [objective.trained[n] for n in (0, 0, 1, 1)]
    assert len(set(objective.seeds)) == 6
    assert (now.front, now.outcomes, now.curves, now.n_counted) == (
        *(before.front, before.outcomes, before.curves, before.n_counted),
    )
    assert now.confirmed[1].accuracy.mean == pytest.approx((0.88 + 0.99) / 2)
    lines = "\n".join(summary.lines(now))
    assert "Confirmed with 2 fresh seeds: accuracy 3.50 points higher in the mean than the search said" in lines
    assert "6 complete (4 with fresh seeds)" in lines
    assert "The test split is closed" in lines
    assert "* confirms trial 1 with fresh seeds" in figures.note(now.trials[-1]).splitlines()
    point, *_ = summary.as_json(now)["front"]  # type: ignore[misc]
    assert point["confirmed"]["n"] == 2
    assert {n for n in range(99) if study.networks.of(n).exists()} == {1, *(t.number for t in now.untested)}


def test_a_confirmation_that_is_lost_is_tried_again_with_its_own_seeds(new_study: Callable[..., Study]) -> None:
    objective = Scripted([*SEARCH, *FRESH])
    study = searched(new_study, objective, 2, confirm=2)
    lost = queue.claim(study, 0, inf)
    assert lost is not None
    recovery.lose(study, lost.number, "its process is gone")
    (retry,) = confirmation.waiting(study.trials())
    assert retry.user_attrs[records.CONFIRM_OF] == 0
    assert retry.user_attrs[records.SEED_TRIAL] == lost.number
    confirm(study, objective)
    assert {of.n for of in study.snapshot().confirmed.values()} == {2}
    check_whole([t for t in study.trials() if t.state != TrialState.WAITING], 2)


def test_a_search_that_goes_on_comes_before_what_confirms_it(new_study: Callable[..., Study]) -> None:
    objective = Scripted([*SEARCH, [(1.0, 0.95)]])
    study = searched(new_study, objective, 2, confirm=2)
    interrupted = queue.claim(study, 2, inf)
    assert interrupted is not None
    study.requeue(interrupted)
    more = queue.claim(study, 3, inf)
    assert more is not None
    assert records.CONFIRM_OF not in more.user_attrs
    assert queue.claim(study, 3, inf) is None  # the last of them runs elsewhere


def test_a_confirmation_is_never_stopped_early_and_what_diverges_is_said(new_study: Callable[..., Study]) -> None:
    hopeless = [(100 * seconds, 0.4) for seconds in (1.0, 2.0, 3.0, 4.0)]
    objective = Scripted([*SEARCH, hopeless, [(math.inf, 0.5)]])
    study = searched(new_study, objective, 2, confirm=1)
    confirm(study, objective)
    assert study.snapshot().confirmed[0].cost.mean == pytest.approx(400.0)
    assert "Trial 1 did not train to its end with 1 fresh seed (diverged)." in summary.lines(study.snapshot())


def test_a_study_that_confirms_nothing_is_as_it_was(new_study: Callable[..., Study]) -> None:
    study = searched(new_study, Scripted(SEARCH), 2, confirm=0)
    assert study.snapshot().is_complete(2)
    assert queue.claim(study, 2) is None
    assert "onfirmed" not in "\n".join([*summary.table(study.snapshot(), 200), *summary.lines(study.snapshot())])


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(place: Place) -> Place:
    """The working directory with a study that confirms itself."""
    (place.folder / "studies" / "tiny.toml").write_text(TOML.replace("confirm = 0", "confirm = 1"))
    return place


def result(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def check_confirmed(place: Place, first: dict[str, Any], last: dict[str, Any], n: int) -> None:
    """What holds once the front of a search has `n` fresh seeds a point, and was tested."""
    check_whole(place.trials(), N_TRIALS)
    assert [point["trial"] for point in last["front"]] == [point["trial"] for point in first["front"]]
    for point in [*last["front"], last["baseline"]]:
        assert point["confirmed"]["n"] == n
        assert point["test_accuracy"]["mean"] == pytest.approx(point["confirmed"]["val_accuracy"] - 0.01)
    networks = {path.name for path in (place.folder / "studies" / "artifacts" / "tiny").glob("trial-*")}
    assert networks == {f"trial-{point['trial']:05d}" for point in last["front"]}


@pytest.mark.long
def test_a_run_confirms_in_a_quarter_of_its_seconds_and_the_command_does_the_rest_and_tests(place: Place) -> None:
    found = place.run(*STUDY, "--n-trials", str(N_TRIALS), "--json")
    first = result(found)
    assert "test split" not in found.err
    assert all(point["test_accuracy"] is None for point in first["front"])
    seconds = [(records.is_confirmation(t), records.seconds(t)) for t in place.trials()]
    assert 0 < sum(each for again, each in seconds if again) <= SHARE * sum(s for again, s in seconds if not again)
    done = place.run("confirm", *STUDY, "--seeds", "1", "--json")
    last = result(done)
    assert done.err.count("warning: a copy") == 1
    check_confirmed(place, first, last, 1)


@pytest.mark.long
def test_a_confirmation_that_is_killed_goes_on_with_the_same_command_and_trains_and_tests_nothing_twice(
    place: Place,
) -> None:
    confirm = ("confirm", *STUDY, "--seeds", "2")
    first = result(place.run(*STUDY, "--n-trials", str(N_TRIALS), "--json"))
    place.script({1: "kill_program"})
    assert place.run(*confirm).code == -signal.SIGKILL
    place.script({1: "SIGSEGV", "test": "2"})
    done = place.run(*confirm)
    assert done.code == 5, done.err  # the third network killed its worker
    assert [why for why in place.reasons() if why in ("worker_lost", "crash")] == ["worker_lost", "crash"]
    place.script()
    done = place.run(*confirm, "--json")
    n_tested = int((place.folder / "tests.count").stat().st_size)
    assert not (place.folder / "trainings.count").exists()
    check_confirmed(place, first, result(done), 2)
    done = place.run(*confirm)
    assert "nothing to train or to test" in done.err
    assert n_tested == sum(map(records.is_confirmation, place.trials())) - 4  # lost, crashed, and two tested before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--study nope", 2, "there is no study 'nope' in sqlite:///studies.db; known are tiny"),
        ("--study tiny --storage sqlite:///no.db", 4, "there is no database"),
        ("--study tiny", 2, "has no front yet, nothing that reached 21.25%: run it first"),
    ],
)
def test_what_cannot_be_confirmed_is_one_line_and_an_exit_code(
    words: str, code: int, said: str, new_study: Callable[..., Study], command: Callable[[str], Done]
) -> None:
    new_study()
    done = command(f"confirm --storage sqlite:///studies.db {words}")
    assert (done.code, done.out) == (code, "")
    assert said in done.err


@pytest.mark.parametrize("seeds", ["0", "21", "many"])
def test_seeds_are_one_to_twenty(seeds: str, command: Callable[[str], Done]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(f"confirm --study tiny --seeds {seeds}")


def test_seconds_that_were_disturbed_with_every_fresh_seed_are_marked_so() -> None:
    noisy = {records.NOISY: "other work"}
    trials = [*FRONT, again(4, 2, 8.0, 0.8, **noisy), again(5, 2, 7.0, 0.8), again(6, 1, 2.0, 0.7, **noisy)]
    found = confirmation.confirmed(trials, FLOOR, 500, "plain", {})
    assert {first: each.is_disturbed for first, each in found.items()} == {2: False, 1: True}


@pytest.mark.parametrize("searched_quietly", [True, False])
@pytest.mark.parametrize("confirmed_quietly", [True, False, None])
def test_a_claim_is_made_of_seconds_that_nothing_disturbed_in_table_page_and_words(
    searched_quietly: bool, confirmed_quietly: bool | None, new_study: Callable[..., Study]
) -> None:
    study = new_study(calibration={"step_seconds": 1e-3}, stopping="none", repeats=0, confirm=0)
    queue.enqueue_anchors(study)
    quiet = {True: 1.0, False: 2.0}
    slow = {1: quiet[searched_quietly]} | ({} if confirmed_quietly is None else {3: quiet[confirmed_quietly]})
    objective = Scripted([[(4.0, 0.8)], [(2.0, 0.9)], [(4.0, 0.8)], [(2.0, 0.9)]], slow=slow)
    for _ in range(2):
        trial.run(study, study.ask(), objective, Display(), math.inf)
    for point in study.snapshot().points if confirmed_quietly is not None else ():
        study.enqueue_afresh(point, {records.CONFIRM_OF: point.number})
        waiting = confirmation.waiting(study.trials())[-1]
        trial.run(study, study.ask(waiting), objective, Display(), math.inf)
    now, is_claim = study.snapshot(), searched_quietly if confirmed_quietly is None else confirmed_quietly
    best = next(each for each in points.on_front(now) if each.number == 1)
    assert best.is_disturbed == now.is_disturbed(best.trial) == (not is_claim)
    table = "\n".join(summary.table(now, 200))
    assert ("2.00x" in table) == is_claim
    assert table.count("*2.00") == (not searched_quietly) + (confirmed_quietly is False)
    assert ("no speed-up is claimed" in why.sentence(best, now)) == (not is_claim)


# --- a study that confirms --------------------------------------------------------------------------------------------
