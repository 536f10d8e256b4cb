"""The command that takes a point apart."""

from __future__ import annotations

import json
import math
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from objectives.pipeline import Pipeline
from objectives.task import Task
from search import trial
from search.ablation.course import Course
from search.ablation.ingredients import Variant
from search.commands.fronts import ablate
from search.commands.parsers import COMMANDS
from search.host import devices
from search.invocation import Ablating
from search.study import queue, records
from search.study.study import Study
from search.views.display import Display
from search.workers.seam import Preparation, TrialFault
from spaces.base import BASELINE
from tests.search import program
from tests.search.conftest import FACTS, Scripted
from tests.search.place import Done, Place, check_whole
from tests.search.views.test_report import read

Run = Callable[[str], Done]
CLUSTER = "--device cpu --cluster auto --workers 4"


@pytest.fixture
def study(new_study: Callable[..., Study]) -> Study:
    """Its anchors, BASELINE first; one that crashed, twice; and a fresh seed of the first."""
    made = new_study(stopping="none")
    queue.enqueue_anchors(made)
    scripts = [[(4.0, 0.8)], *([(2.0 + n, 0.81 + n / 100)] for n in range(3)), *[TrialFault("crash", "a bug")] * 2]
    objective = Scripted([*scripts, [(4.0, 0.8)]])
    for _ in range(5):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    made.enqueue_afresh(made.trials()[0], {records.CONFIRM_OF: 0})
    trial.run(made, made.ask(made.trials()[-1]), Scripted([[(4.0, 0.8)]]), Display(), math.inf)
    return made


class Here(program.ScriptedObjective):
    """Trains nothing, on the device of the study."""

    def facts(self) -> dict[str, object]:
        return FACTS


def training(task: Task, device: str, threads: int) -> Preparation:
    """A `Training` of such."""

    class Prepare(program.Prepare):
        def opening(self, model: str) -> Here:
            return Here(self.script, model)

    return Prepare(program.Script.read())


@pytest.fixture
def run(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, on what trains nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRONTRUNNER_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SCRIPT", str(tmp_path / "script.json"))
    (tmp_path / "script.json").write_text("{}")

    def run(line: str) -> Done:
        words = shlex.split(f"--study tiny --device cpu --in-process --storage sqlite:///studies.db {line}")
        options = COMMANDS["ablate"].parser().parse_args(words)
        options.words = words
        return Done(ablate.perform(options, training), *capsys.readouterr())

    return run


def test_it_tells_seconds_and_points_of_every_ingredient_and_writes_a_page(run: Run, tmp_path: Path) -> None:
    done = run("--trial 1 --seeds 2")
    assert done.code == 0, done.err
    assert "of trial 1 switched off in turn: " in done.err.splitlines()[0] + done.err.splitlines()[1]
    assert " trainings; about " in done.err
    first, words, _, header, *_ = done.out.splitlines()
    assert first.startswith("trial 1, taken apart: ")
    assert header.split() == ["ingredient", "pairs", "s", "without", "seconds", "points", "switched", "off"]
    assert words.strip()
    page = read((tmp_path / "tiny-trial-1.html").read_text())
    assert list(page.figures) == ["ablation-1"]
    assert [each for each in page.references if not each.startswith("#")] == []
    again = run("--trial 1 --seeds 2 --json -o other.html")
    assert "nothing to train; for more --seeds N" in again.err
    told: dict[str, Any] = json.loads(again.out)
    assert (told["trial"], told["rounds"], told["file"]) == (1, 2, str(tmp_path / "other.html"))
    assert told["together"]["ingredient"] == BASELINE
    assert all(each["pairs"] == 2 for each in told["ingredients"])
    assert {*done.out.split()} >= {each["name"].split()[0] for each in told["ingredients"]}
    *_, more = run("--trial 1 --seeds 3 --minutes 0.0001").err.splitlines()
    assert more.startswith("time is up; to go on: ")


REFUSED = {
    "--trial 99": "study 'tiny' has no trial 99: those of its front are",
    "--trial 0": "trial 0 has nothing to switch off: it is trained as BASELINE is",
    "--trial 4": "trial 4 did not train to its end (crash): those of the front are",
    "--trial 6": "trial 6 only says more of trial 0: take that one apart, --trial 0",
    "--trial 1 --minutes 0.0001": "no pair of trainings of trial 1 has ended: the same command goes on, with time",
}


def test_what_cannot_be_taken_apart_is_one_line(run: Run) -> None:
    for words, said in REFUSED.items():
        done = run(words)
        assert (done.code, done.out) == (2, ""), words
        assert done.err.splitlines()[-1].startswith(f"error: {said}"), words


def test_where_nothing_is_left_and_no_pair_ended_it_says_what_failed_and_why(run: Run, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(json.dumps({"faults": {str(n): "inf" for n in range(99)}}))
    for _ in range(2):
        done = run("--trial 1 --seeds 1")
        assert (done.code, done.out) == (2, "")
        *_, last = done.err.splitlines()
        assert last.startswith("error: no pair of trainings of trial 1 came to its end (the whole pipeline: diverged; ")
        assert "all of them: diverged" in last
        assert last.endswith("): try more --seeds")


@pytest.mark.parametrize(
    ("words", "n"), [("--device cpu", 1), ("--device cpu:2", 2), ("--device cpu:2 --in-process", 1), (CLUSTER, 4)]
)
def test_time_is_that_of_all_workers(words: str, n: int, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "n_cores", lambda: 2)  # however many this machine has
    typed = shlex.split(f"--study tiny --trial 1 {words}")
    options = COMMANDS["ablate"].parser().parse_args(typed)
    asked = Ablating(**{**vars(options), "words": typed})
    assert asked.at_a_time == n
    now, variants = study.snapshot(), [Variant(str(k), Pipeline(epochs=k)) for k in range(1, 5)]
    alone, course = (Course(1, tuple(variants), 1, n_workers=k) for k in (1, asked.at_a_time))
    assert course.wall_left(now) == pytest.approx(alone.wall_left(now) / n)
    assert f"about {course.wall_left(now) / 60:.1f} min left" in course.line(now)


@pytest.mark.long
def test_an_ablation_that_is_killed_or_interrupted_goes_on_with_the_same_command(place: Place) -> None:
    study = ("--study", "tiny", "--device", "cpu")
    first = place.run(*study, "--n-trials", "7", "--json")
    point = next(each for each in json.loads(first.out)["front"] if each["trial"] != 0)["trial"]
    words = ("ablate", *study, "--trial", str(point), "--seeds", "2", "--json")
    place.script({2: "kill_program"})
    assert place.run(*words).code == -signal.SIGKILL
    place.script({3: "SIGSEGV"})
    done = place.run(*words)
    assert done.code == 0, done.err
    assert "warning: no page is written: plotly.graph_objects is not installed" in done.err
    told = json.loads(done.out)
    assert told["rounds"] == 2
    assert all(each["pairs"] == 2 for each in [*told["ingredients"], told["together"]])
    assert [why for why in place.reasons() if why in ("worker_lost", "crash")] == ["worker_lost", "crash"]
    check_whole([t for t in place.trials() if not records.is_ablation(t)], 7)
    place.script()
    assert json.loads(place.run(*words).out) == told
    assert not (place.folder / "trainings.count").exists()
