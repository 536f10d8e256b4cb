"""A run of so many minutes: data and minutes are all it needs, and a network of all images is what it leaves."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from PIL import Image

from objectives.errors import DataError
from objectives.export import load_model
from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from search import minutes, trial
from search.database import storage
from search.planning import budget, costs, plan
from search.planning.budget import Budget
from search.planning.promise import SIDES, promised
from search.study import opening, queue, records
from search.study.spec import read
from search.study.study import Study
from search.views import summary
from search.views.display import STARTING, Display
from search.workers.seam import Halted, TrialFault
from spaces.base import BASELINE
from tests.objectives.data.images import make_folder
from tests.search.conftest import FACTS, FORMATS, Scripted
from tests.search.place import PATIENCE, Done, Place, wait_for
from tests.search.planning.conftest import IMAGES
from tests.search.study.test_confirmation import searched

WORDS = ("--data", "digits", "--device", "cpu", "--as", "mine")
SHORT, LONG = ("--minutes", "0.2"), ("--minutes", "10")
SCALE = 0.01  # of the stand-in: its cheapest run takes a seventieth of SHORT
TOO_FEW = "minutes are too few for a first network"
NO_TIME, NO_FRONT = "no time is left to train on all images", "nothing is on the front to be trained on all images"


def check_result(done: Done, name: str = "mine") -> dict[str, Any]:
    """What a run in minutes has told: a network of all images, or that there was no time left for it."""
    result: dict[str, Any] = json.loads(done.out)
    if done.code == 2:  # on a machine that is busy
        assert TOO_FEW in done.err
        assert result["front"] == []
        return result
    assert done.code == 0, done.err
    assert result["study"] == name
    assert (result["trials"]["running"], result["trials"]["failed"]) == (0, 0)
    if (refit := result["refit"]) is None:
        assert (NO_TIME if result["front"] else NO_FRONT) in done.err
        return result
    low, high = refit["interval"]
    assert 0 <= low <= refit["accuracy"] <= high <= 1
    assert Path(refit["folder"]).is_dir()
    about = json.loads((Path(refit["folder"]) / "model.json").read_text())
    assert about["study"] == name
    assert about["refit"]["n_images"] == refit["n_images"] > result["identity"]["data"]["n_train"]
    assert about["trial"] == refit["trial"]
    assert about.get("test_time_flip", False) == (refit["flip_gain"] > 0)
    return result


def test_data_and_minutes_are_planned_searched_and_trained_on_all_images_and_the_same_command_goes_on(
    place: Place,
) -> None:
    place.script(scale=SCALE)
    done = place.run(*WORDS, *SHORT, "--json")
    result = check_result(done)
    said = ("digits: 10 classes, 1500 images to train", "a plan for 0.2 minutes:", "study 'mine': ", STARTING)
    assert (at := [done.err.index(each) for each in said]) == sorted(at), "what is known is said at once"
    written = (place.folder / "studies" / "mine.toml").read_bytes()
    name, spec = read(str(place.folder / "studies" / "mine.toml"))
    assert (name, spec.data.name, spec.data.size) == ("mine", "digits", 8)
    ended = [t.number for t in place.trials("mine") if t.state.is_finished()]

    again = place.run(*WORDS, *SHORT, "--json")
    more = check_result(again)
    assert "a plan for" not in again.err
    assert (place.folder / "studies" / "mine.toml").read_bytes() == written
    trials = place.trials("mine")
    assert all(trials[number].state.is_finished() for number in ended)
    assert more["trials"]["complete"] >= result["trials"]["complete"]
    assert not any(t.state == TrialState.RUNNING for t in trials)


def test_minutes_that_no_network_fits_into_say_how_many_would_do(place: Place) -> None:
    place.script(scale=SCALE, pause=10.0, hang=60.0)
    done = place.run(*WORDS, "--minutes", "0.05", "--json")
    assert done.code == 2
    assert json.loads(done.out)["front"] == []
    said = done.err.splitlines()[-1]
    assert said.startswith(f"error: 0.05 {TOO_FEW}: --minutes ")
    assert float(said.split("--minutes ")[1].split()[0]) > 0.05


def test_interrupted_while_it_plans_it_says_how_to_go_on(place: Place) -> None:
    place.script(probing=60.0)
    with place.started(*WORDS, *LONG) as process:
        while not (place.folder / "probes.count").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        "interrupted; to go on: python -m search.run --data digits --device cpu --as mine --minutes 10"
    )


def test_interrupted_it_leaves_nothing_running_and_the_same_command_goes_on(place: Place) -> None:
    place.script(scale=SCALE, pause=0.02)
    for _ in range(2):
        with place.started(*WORDS, *LONG, "-v") as process:
            wait_for(process, "epoch 1 of")
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "to go on: python -m search.run --data digits --device cpu --as mine --minutes 10 -v" in err
        assert "Traceback" not in err
        states = {trial.state for trial in place.trials("mine")}
        assert not states & {TrialState.RUNNING, TrialState.FAIL}
        assert TrialState.WAITING in states
    anchors = [trial.user_attrs.get(records.ANCHOR) for trial in place.trials("mine")]
    assert len(set(anchors)) == len(anchors)


def test_a_plan_is_printed_and_written_but_never_over_another(place: Place) -> None:
    place.script(scale=SCALE)
    words = ("plan", "digits", "--minutes", "0.2", "--device", "cpu", "--as", "mine")
    done = place.run(*words, "--json", "-q")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    written = Path(told["study_file"])
    assert written.samefile(place.folder / "studies" / "mine.toml")
    _, spec = read(str(written))
    assert [*spec.space.epochs] == told["epochs"]
    assert (told["name"], told["minutes"], told["images"]["name"]) == ("mine", 0.2, "digits")
    before = written.read_bytes()
    again = place.run(*words, "--json")
    assert (again.code, again.out) == (2, "")
    assert "is there already" in again.err
    assert len(again.err.splitlines()) == 1
    assert written.read_bytes() == before
    assert not place.database.exists()


def test_a_plan_is_run_where_it_was_made(place: Place) -> None:
    place.script(scale=SCALE)
    where = "--device cpu --workers 2 --storage sqlite:///my.db"
    done = place.run("plan", "digits", "--minutes", "0.2", "--as", "mine", *where.split())
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].endswith(f" --study mine --minutes 0.2 {where}")


def test_images_are_as_large_as_the_minutes_suffice_for_with_those_that_are_trained_on(place: Place) -> None:
    place.script(scale=SCALE)
    make_folder(place.folder / "many", [150, 150], side=128)
    sizes = {}
    for name, words in {"all": (), "few": ("--n-train", "20")}.items():
        done = place.run("plan", "many", "--minutes", "1", "--device", "cpu", "--as", name, "--json", "-q", *words)
        assert done.code == 0, done.err
        sizes[name] = json.loads(done.out)["images"]["size"]
    assert sizes["all"] < sizes["few"] == 128


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "digits", "--minutes", "0.2", "--n-trials", "5"), "not allowed with argument"),
        (("--data", "digits", "--minutes", "0.2", "--add", "5"), "not allowed with argument"),
        (("--data", "digits", "--minutes", "0.2", "--timeout", "5"), "--timeout is not allowed with --minutes"),
        (("--minutes", "0.2"), "--data folder:DIR --minutes M"),
        (("--data", "digits"), "--data folder:DIR --minutes M"),
        ((), "--study NAME"),
        (("--data", "digits", "--minutes", "0"), "not a positive number"),
        (("--data", "digits", "--minutes", "nan"), "not a positive number"),
        (("--data", "digits", "--minutes", "0.2", "--as", "../x"), "study name"),
        (("--data", "cifar01", "--minutes", "0.2"), "did you mean 'cifar10'"),
        (("--data", "folder:a\udcffb", "--minutes", "0.2"), "rename it"),
        (("plan", "digits"), "--minutes"),
        (("plan", "digits", "--minutes", "x"), "not a positive number"),
    ],
    ids=ascii,
)
def test_what_cannot_be_meant_is_refused_with_the_way_out(words: tuple[str, ...], said: str, place: Place) -> None:
    done = place.run(*words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not list(place.folder.glob("studies/*.db"))
    assert [path.name for path in place.folder.glob("studies/*.toml")] == ["tiny.toml"]


@pytest.mark.parametrize("words", [("run",), ()], ids=["frontrunner run", "search.run"])
def test_minutes_go_with_no_timeout_by_whatever_name_the_program_is_called(
    words: tuple[str, ...], place: Place
) -> None:
    module = "search" if words else "search.run"
    done = place.run(*words, "--data", "digits", "--minutes", "0.2", "--timeout", "5", module=module)
    assert (done.code, done.out, "--timeout is not allowed with --minutes" in done.err) == (2, "", True)


def test_a_study_that_has_a_file_can_be_run_in_minutes_too(place: Place) -> None:
    place.script(scale=0.002)
    done = place.run("--study", "tiny", *SHORT, "--device", "cpu", "--json")
    check_result(done, "tiny")
    assert [path.name for path in place.folder.glob("studies/*.toml")] == ["tiny.toml"]


# --- the training on all images ---------------------------------------------------------------------------------------


@dataclass
class Words(Display):
    """What is said."""

    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)


def within(left: float) -> Budget:
    """A budget of which so many seconds are left to train in."""
    seconds = 1e6
    return Budget(time.monotonic() - (Budget(0.0, seconds).deadline - left), seconds)


FOUND = [[(4.0, 0.8)], [(2.0, 0.9)]]


def test_the_best_is_trained_on_all_images_with_seeds_of_its_own(new_study: Callable[..., Study]) -> None:
    objective = Scripted([*FOUND, [(1.0, 0.5), (2.5, 0.99)]])
    study = searched(new_study, objective, 2)
    said = Words()
    minutes.refit(study, objective, within(1e5), said)
    assert "trial 1 is trained on all 250 images, those that validate included" in said.lines
    assert objective.trained[-1] == objective.trained[1]
    assert objective.seeds[-1] not in objective.seeds[:-1]
    now = study.snapshot()
    refit = summary.as_json(now)["refit"]
    assert isinstance(refit, Mapping)
    assert (refit["trial"], refit["n_images"], refit["train_seconds"]) == (1, 250, 2.5)
    assert (refit["measured"], refit["n_seeds"]) == (0.9, 0)  # what it says of images that it has seen counts nothing
    assert objective.exported[-1] == Path(refit["folder"])
    assert refit["folder"] in "\n".join(summary.lines(now))
    study.collect()
    assert Path(refit["folder"]).is_dir()
    assert len(now.points) == 2


@pytest.mark.parametrize(
    ("training", "left", "said"),
    [
        pytest.param([(1.0, 0.9)], 1.0, "no time is left", id="no time"),
        pytest.param(TrialFault("out_of_memory", "of 80 GiB nothing is left"), 1e5, "it failed", id="a fault"),
    ],
)
def test_what_does_not_come_to_its_end_leaves_no_network_and_says_why(
    training: list[tuple[float, float]] | BaseException, left: float, said: str, new_study: Callable[..., Study]
) -> None:
    objective = Scripted([*FOUND, training])
    study = searched(new_study, objective, 2)
    words = Words()
    minutes.refit(study, objective, within(left), words)
    assert any(said in line for line in words.lines)
    assert summary.as_json(study.snapshot())["refit"] is None
    assert not study.networks.refit.exists()


@dataclass
class Endless(Scripted):
    """A training on all images whose first epoch ends only when it is halted."""

    halted: threading.Event = field(default_factory=threading.Event)

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        if not whole:
            yield from super().reports(pipeline, seeds)
            return
        self.halted.wait()
        raise Halted


@pytest.mark.long  # it waits for clocks
def test_a_training_on_all_images_ends_with_the_time_in_the_midst_of_an_epoch(new_study: Callable[..., Study]) -> None:
    objective = Endless([*FOUND])
    study = searched(new_study, objective, 2)
    words = Words()
    minutes.refit(study, objective, within(12.0), words, halt=objective.halted.set)
    assert "it was given up in epoch 1: the time is up" in words.lines
    assert summary.as_json(study.snapshot())["refit"] is None


def test_killed_while_it_is_written_a_network_of_all_images_is_not_told_as_the_one_before(
    new_study: Callable[..., Study],
) -> None:
    objective = Scripted([*FOUND, [(1.0, 0.5), (2.5, 0.99)], [(1.0, 0.95)], [(1.0, 0.5)]])
    study = searched(new_study, objective, 2)
    minutes.refit(study, objective, within(1e5), Words())
    assert summary.as_json(study.snapshot())["refit"] is not None

    def killed(folder: Path, about: Mapping[str, object]) -> None:
        raise KeyboardInterrupt

    trial.run(study, study.ask(), objective, Display(), math.inf)  # a better one
    objective.export = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        minutes.refit(study, objective, within(1e5), Words())
    assert summary.as_json(study.snapshot())["refit"] is None


def test_without_anything_worth_training_nothing_is_trained(new_study: Callable[..., Study]) -> None:
    objective = Scripted([])
    study = new_study()
    queue.enqueue_anchors(study)
    words = Words()
    minutes.refit(study, objective, within(1e5), words)
    assert not objective.trained
    assert [line for line in words.lines if NO_FRONT in line]


# --- flips ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def unseen(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study of images that nobody has seen and that the data let be flipped, after its first trials."""

    def made(objective: Scripted, n: int = 1, **data: object) -> Study:
        images = replace(IMAGES, name="folder:x", flips=None)
        found = plan.chosen("mine", 5.0, images, costs.nominal(plan.to_probe(8)[0], 1e10), "cpu")
        (tmp_path / "mine.toml").write_text(found.study_file())
        name, spec = read(str(tmp_path / "mine.toml"))
        spec = spec.model_copy(update={"data": spec.data.model_copy(update=data)})
        facts = {**FACTS, "data": {**FACTS["data"], "name": "folder", "flip": True}}
        study = opening.created(name, spec, storage.open_storage(f"sqlite:///{tmp_path}/studies.db"), facts, FORMATS)
        queue.enqueue_anchors(study, in_minutes=True)
        go_on(study, objective, n)
        return study

    return made


def go_on(study: Study, objective: Scripted, n: int) -> None:
    for _ in range(n):
        trial.run(study, study.ask(), objective, Display(), math.inf)


@dataclass
class Fitting(Scripted):
    """Nothing speaks against flips."""

    def mirrored(self, seconds: float) -> dict[str, Any]:
        return {**super().mirrored(seconds), "refuted": False}


@pytest.mark.parametrize(("kind", "flips"), [(Scripted, False), (Fitting, True)])
def test_the_first_network_decides_for_all_runs_to_come_whether_flips_fit(
    kind: type[Scripted], flips: bool, unseen: Callable[..., Study]
) -> None:
    objective, words = kind([[(1.0, 0.8)]] * 12), Words()
    study = unseen(objective)
    assert not objective.trained[0].flip
    for _ in range(2):
        minutes.judge_flips(study, objective, 1.0, words.say)
    assert words.lines == ["mirror images: 40.0% of 100 instead of 90.0%"]
    go_on(study, objective, 11)
    trained = [(t, records.pipeline(t).flip) for t in study.trials()[1:] if t.state.is_finished()]
    assert any(records.is_proposed(t) for t, _ in trained)
    assert {flip for t, flip in trained if t.user_attrs.get(records.ANCHOR) != BASELINE} == {flips}
    again = opening.stored(study.name, study.database)
    assert not opening.changes(again)
    assert again.snapshot().restrictions == study.snapshot().restrictions


@pytest.mark.parametrize(("n", "data"), [(1, {"flip": True}), (4, {})], ids=["said", "flipped before"])
def test_flips_stay_where_they_were_said_to_fit_or_trained_with(
    n: int, data: dict[str, object], unseen: Callable[..., Study]
) -> None:
    objective, words = Scripted([[(1.0, 0.8)]] * 4), Words()
    study = unseen(objective, n, **data)
    minutes.judge_flips(study, objective, 1.0, words.say)
    assert not words.lines
    assert study.snapshot().restrictions == study.spec.restrictions


@dataclass
class Described(Fitting):
    """Nothing speaks against flips, and what exports are told is known."""

    told: list[Mapping[str, object]] = field(default_factory=list)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        super().export(folder, about)
        self.told.append(about)


LAST = "the last network takes"


@pytest.mark.parametrize(("gain", "is_taken"), [(0.04, True), (0.0, True), (-0.02, True), (-0.06, False)])
def test_the_last_network_takes_mirror_images_too_where_more_is_expected_of_it_by_what_its_twins_did(
    gain: float, is_taken: bool, unseen: Callable[..., Study]
) -> None:
    objective, words = Described([*FOUND, [(1.0, 0.5)]], gain=gain), Words()
    study = unseen(objective, 1)
    minutes.judge_flips(study, objective, 1.0, words.say)
    go_on(study, objective, 1)
    minutes.refit(study, objective, within(1e5), words)
    now = study.snapshot()
    told, said = now.attributes[records.REFIT], "\n".join(summary.lines(now))
    assert [line for line in words.lines if LAST in line]
    assert objective.told[-1].get("test_time_flip", False) == is_taken == ("its mirror image together" in said)
    plain = promised(0.9, 0, now.n_val, now.attributes[records.IDENTITY]["data"]["n_train"], told["n_images"])
    assert told["measured"] == 0.9
    assert plain.accuracy <= told["accuracy"] <= plain.accuracy + max(SIDES[0], gain)
    assert (told["accuracy"] > plain.accuracy) == (told["flip_gain"] > 0) == is_taken
    if is_taken:
        calibration = objective.told[-1]["calibration"]
        assert isinstance(calibration, Mapping)
        assert (calibration["temperature"], calibration["n_images"]) == (3.0, 0)


@pytest.mark.parametrize("why", ["said", "refuted", "no network", "damaged", "no time"])
def test_the_last_network_takes_images_alone_where_nothing_was_seen_of_both_sides(
    why: str, unseen: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Scripted if why == "refuted" else Described
    objective, words = kind([*FOUND, [(1.0, 0.5)]], gain=0.04), Words()
    study = unseen(objective, 1)
    minutes.judge_flips(study, objective, 1.0, words.say)
    go_on(study, objective, 1)
    if why == "said":
        search = study.spec.search.model_copy(update={"refit_test_time_flip": False})
        study = replace(study, spec=study.spec.model_copy(update={"search": search}))
    if why == "no network":
        shutil.rmtree(study.networks.of(1))
    if why == "damaged":
        monkeypatch.setattr(objective, "both_sides", broken)
    monkeypatch.setattr(minutes, "PLAN_SHARE", 0.0 if why == "no time" else minutes.PLAN_SHARE)
    minutes.refit(study, objective, within(1e5), words)
    assert study.snapshot().attributes[records.REFIT]["flip_gain"] == 0.0
    assert not [line for line in words.lines if LAST in line]
    assert any("was not seen: it is damaged" in line for line in words.lines) == (why == "damaged")


@dataclass(frozen=True)
class Ticking(Budget):
    """A budget of which a list of seconds is spent."""

    spent: list[float] = field(default_factory=list)

    def left(self) -> float:
        return self.seconds - sum(self.spent)


@pytest.mark.parametrize(("left", "takes"), [(100.0, 0.0), (100.0, 97.4), (4.9, 2.4), (2.35, 1.0)])
def test_what_looking_at_both_sides_takes_is_taken_from_the_last_training_and_not_from_its_end(
    left: float, takes: float, unseen: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, words, spent = Described([*FOUND, [(1.0, 0.5)]], gain=0.04), Words(), list[float]()
    study = unseen(objective, 1)
    minutes.judge_flips(study, objective, 1.0, words.say)
    go_on(study, objective, 1)
    looked = objective.both_sides

    def slow(folder: Path) -> dict[str, Any]:
        spent.append(takes)
        return looked(folder)

    monkeypatch.setattr(objective, "both_sides", slow)
    monkeypatch.setattr(minutes, "PLAN_SHARE", 1.0)
    minutes.refit(study, objective, Ticking(0.0, left, spent=spent), words)
    now = study.snapshot()
    best = now.choice
    assert best is not None
    assert objective.trained[-1] == budget.in_time(now, best, left - sum(spent))
    assert bool(spent) == (budget.spare(now, best, left) > 0.1)  # else not looked at: no time is spare


def broken(folder: Path) -> dict[str, Any]:
    raise DataError("it is damaged")


# --- real trainings ---------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("data", ["digits", "folder:images"])
def test_real_images_come_to_a_network_in_half_a_minute(data: str, place: Place) -> None:
    for number, name in enumerate(("Füchse", "=cmd()")):
        (place.folder / "images" / name).mkdir(parents=True)
        for shade in range(40):
            picture = Image.new("RGB", (11, 17), (120 * number + shade, 5 * shade, 90))
            picture.save(place.folder / "images" / name / f"{shade}, a.png")
    words = ("--data", data, "--minutes", "0.5", "--device", "cpu", "--json")
    done = place.run(*words, module="search.run")
    assert done.code == 0, done.err
    name = json.loads(done.out)["study"]
    result = check_result(done, name)
    assert (place.folder / "studies" / f"{name}.toml").is_file()
    if result["refit"]:
        load_model(Path(result["refit"]["folder"]))
    check_result(place.run(*words, module="search.run"), name)
