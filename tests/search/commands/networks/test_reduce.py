"""A network on digits made smaller by the command: the whole path, bad input, ends of every kind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from objectives.export import load_model
from objectives.host.durable import SUMS
from objectives.inference.folder import DESCRIPTION, WEIGHTS
from objectives.objective import TrainingObjective
from objectives.pipeline import NumberFormatName, Pipeline
from objectives.reduction.quantisation import forms
from objectives.reduction.settings import CriterionName, RetrainingName
from objectives.task import DataSpec, Seeds, Task
from search import reducing
from search.commands import parsers
from search.host.devices import n_cores
from tests.search.place import PATIENCE, Done, Place, wait_for

Command = Callable[[str], Done]
LINE = "reduce --model model --data digits --n-train 200 --device cpu --epochs 1"
WORDS = LINE.split()
JOURNAL = ".small.journal"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a short training on 200 digits."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    objective = TrainingObjective(Task(DataSpec("digits", n_train=200), "small", stem_stride=2), "cpu")
    for _ in objective.reports(Pipeline(batch_size=20, epochs=4, crop=False, width=0.5), Seeds(0, 0, 0)):
        pass
    objective.export(folder, {"study": "made", "trial": 0})
    return folder


@pytest.fixture
def here(exported: Path, tmp_path: Path) -> Path:
    """A working directory with that export, `model`."""
    shutil.copytree(exported, tmp_path / "model")
    return tmp_path


@pytest.fixture
def place(here: Path) -> Place:
    return Place(here)


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / reducing.DOCUMENT).read_text())
    return found


def course(folder: Path) -> list[dict[str, Any]]:
    """The attempts of a result without their seconds."""
    return [{k: v for k, v in each.items() if k != "seconds"} for each in document(folder)["attempts"]]


def rewritten(folder: Path, **changes: object) -> None:
    """Another description, with its checksum."""
    description = json.loads((folder / DESCRIPTION).read_text()) | changes
    content = json.dumps(description).encode()
    old = hashlib.sha256((folder / DESCRIPTION).read_bytes()).hexdigest()
    (folder / DESCRIPTION).write_bytes(content)
    (folder / SUMS).write_text((folder / SUMS).read_text().replace(old, hashlib.sha256(content).hexdigest()))


def test_the_choices_of_the_command_line_are_those_of_a_reduction() -> None:
    assert get_args(CriterionName) == parsers.CRITERIA
    assert get_args(RetrainingName) == parsers.RETRAINING
    assert get_args(NumberFormatName) == parsers.NUMBER_FORMATS
    assert tuple(reducing.QUANTISED) == parsers.QUANTISED


def test_a_network_of_series_becomes_smaller_likewise(command: Command, tmp_path: Path) -> None:
    x, y = np.sin(np.outer(np.arange(120) % 2 + 1, np.arange(20)))[:, None].repeat(2, 1), np.arange(120) % 2
    np.savez(tmp_path / "waves.npz", x=x, y=y)
    objective = TrainingObjective(Task(DataSpec(f"series:{tmp_path / 'waves.npz'}"), "cnn1d"), "cpu")
    list(objective.reports(Pipeline(batch_size=16, epochs=3, lr=0.05, width=0.25), Seeds(0, 0, 0)))
    objective.export(tmp_path / "model", {"study": "made", "trial": 0})
    done = command(
        "reduce --model model --data series:waves.npz --device cpu --epochs 1 --iterations 1 -o small --json"
    )
    assert done.code == 0, done.err
    assert load_model(tmp_path / "small").is_series
    assert "trained on other images" not in done.err


def test_a_network_becomes_smaller_within_its_accuracy_and_says_how(here: Path, command: Command) -> None:
    done = command(f"{LINE} -o small --epsilon 3 --iterations 4 --test --json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told == document(here / "small")
    assert told["settings"]["epsilon"] == 0.03
    assert (told["ending"], len(told["attempts"])) == ("complete", 4)
    accepted = [each for each in told["attempts"] if each["accepted"]]
    least = told["base"]["accuracy"] - 0.03
    assert accepted
    assert all(each["accuracy"] >= least - 1e-9 for each in accepted)
    before, after = told["base"], told["reduced"]
    assert after["n_parameters"] == accepted[-1]["n_parameters"] < before["n_parameters"]
    assert after["flops"] == accepted[-1]["flops"]
    assert after["n_bytes"] == (here / "small" / WEIGHTS).stat().st_size < before["n_bytes"]
    assert (told["n_test"], [each["batch"] for each in told["latencies"]]) == (297, [1, 256])
    assert 0.1 < after["test_accuracy"] <= 1
    loaded = load_model(here / "small")
    assert sum(p.numel() for p in loaded.network.parameters()) == after["n_parameters"]
    assert loaded.mean == load_model(here / "model").mean
    page = (here / "small" / reducing.PAGE).read_text()
    assert page.count("<circle") + page.count("<path") == 5
    assert "://" not in page
    # the same command again has nothing left to try; one that asks for more goes on, and shows a table
    again = command(f"{LINE} -o small --epsilon 3 --iterations 4 --json -q")
    assert [*json.loads(again.out)["attempts"]] == told["attempts"]
    more = command(f"{LINE} -o small --epsilon 3 --iterations 5")
    assert (more.code, "goes on after 4 attempts" in more.err, "verdict" in more.out) == (0, True, True), more.err
    assert "attempt 4:" not in more.err
    assert "attempt 5:" in more.err
    assert document(here / "small")["attempts"][:4] == told["attempts"]
    refused = command(f"{LINE} -o small --epsilon 2")
    assert (refused.code, "epsilon was 0.03, now it is 0.02" in refused.err) == (2, True), refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--epsilon 0", "argument --epsilon: '0' is not a number above 0"),
        ("--epsilon nan", "'nan' is not a number"),
        ("--epsilon 100.1", "and up to 100"),
        ("--beta -1", "is not a number from 0 to 1000"),
        ("--gamma=1001", "is not a number from 0 to 1000"),
        ("--criterion best", "invalid choice: 'best'"),
        ("--budget-minutes 0", "is not a positive number"),
        ("--iterations 0", "is not a whole number from 1"),
    ],
)
def test_words_that_cannot_be_meant_are_one_line(
    words: str, said: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        command(f"{LINE} -o small {words}")
    out, err = capsys.readouterr()
    assert (refused.value.code, out, err.count("\n"), said in err) == (2, "", 1, True), err


def damage(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"x")


BAD: dict[str, tuple[str, int, str, Callable[[Path], object]]] = {  # (words, code, what is said, what is done before)
    "no model": ("--model none -o small", 2, "there is no such folder", lambda here: None),
    "no export": ("--model . -o small", 3, "it has no model.json; model does", lambda here: None),
    "damaged": ("-o small", 3, "is damaged", lambda here: damage(here / "model")),
    "foreign": (
        "-o small",
        3,
        "is not an exported model: not an arch",
        lambda here: rewritten(here / "model", architecture={"a": 1}),
    ),
    "no pipeline": ("-o small", 3, "how the network was trained", lambda here: rewritten(here / "model", pipeline=0)),
    "newer": ("-o small", 3, "update frontrunner", lambda here: rewritten(here / "model", format=99)),
    "other classes": ("--data fashion --n-train 4 -o small", 3, "the network tells 0, 1, 2", lambda here: images(here)),
    "no data": ("--data none -o small", 3, "there is no folder none", lambda here: None),
    "no folder": ("--data folder: -o small", 3, "unknown data set", lambda here: None),
    "number format": ("--number-format tf32 -o small", 5, "--number-format fp32", lambda here: None),
    "too many": (f"--device cpu:{n_cores()} --threads 2 -o small", 2, f"may use {n_cores()}", lambda here: None),
    "threads": ("--threads 9999 -o small", 2, "at most", lambda here: None),
    "the model itself": ("-o model/.", 2, "is the model itself", lambda here: None),
    "within": ("-o model/small", 2, "lie in one another", lambda here: None),
    "around": ("-o .", 2, "lie in one another", lambda here: None),
    "a file": ("-o file", 2, "is a file", lambda here: (here / "file").touch()),
    "not ours": (
        "-o other",
        2,
        "no result of this command",
        lambda here: shutil.copytree(here / "model", here / "other"),
    ),
    "labels": ("--labels x.csv -o small", 2, "names the images of a folder", lambda here: None),
}


def images(here: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (here / "fashion" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 30 * number).save(here / "fashion" / name / f"{number}.png")


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_reduced_is_one_line_and_leaves_nothing(case: str, here: Path, command: Command) -> None:
    words, code, said, before = BAD[case]
    before(here)
    there = {path.name for path in here.iterdir()}
    done = command(f"{LINE} -q {words}")
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert said in done.err
    assert {path.name for path in here.iterdir()} - {"run"} == there


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"content": "x", "split": "y"}}, "trained on other images"),
        ({"accuracy": None}, "trained on all images"),
    ],
)
def test_a_network_whose_accuracy_may_mislead_is_warned_of(
    changes: dict[str, object], said: str, here: Path, command: Command
) -> None:
    rewritten(here / "model", **changes)
    done = command(f"{LINE} -o small --iterations 1")
    assert (done.code, f"warning: the network was {said}" in done.err) == (0, True), done.err
    other = command(f"{LINE} -o other --iterations 1 --seed 1")
    assert ("another split" in other.err) == ("data" not in changes)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.long  # three starts of the program
def test_interrupted_and_killed_it_comes_to_the_network_of_an_undisturbed_run(place: Place, command: Command) -> None:
    words = [*WORDS, "--epsilon", "3", "--iterations", "5"]
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        with place.started(*words, "--epochs", "8", "-o", "small", module="search") as process:
            wait_for(process, "attempt ")
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, err
        if code == 130:
            assert "interrupted; to go on: python -m search reduce --model model" in err
            assert document(place.folder / "small")["ending"] == "interrupted"
            load_model(place.folder / "small")
    assert command(f"{' '.join(words)} --epochs 8 -o small -q").code == 0
    assert command(f"{' '.join(words)} --epochs 8 -o whole -q").code == 0
    assert course(place.folder / "small") == course(place.folder / "whole")
    assert (place.folder / "small" / WEIGHTS).read_bytes() == (place.folder / "whole" / WEIGHTS).read_bytes()


# The end of the time is raised wherever Python is, also in callbacks of others while rubbish is collected, which drop
# it: it is asked for again (`reducing.AGAIN`).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_minutes_that_suffice_for_nothing_give_the_network_back_and_a_line(here: Path, command: Command) -> None:
    done = command(f"{LINE} -o small --budget-minutes 1e-6")
    assert (done.code, "time is up; to go on: " in done.err) == (0, True), done.err
    assert "The network is the one before: nothing was tried." in done.out
    assert (here / "small" / WEIGHTS).read_bytes() == (here / "model" / WEIGHTS).read_bytes()
    assert document(here / "small")["ending"] == "time"


@pytest.mark.parametrize("how", parsers.QUANTISED)
def test_a_quantised_result_lies_beside_the_export_in_fewer_bytes(how: str, here: Path, command: Command) -> None:
    done = command(f"{LINE} -o small --iterations 1 --quantise {how} --json")
    told, file = json.loads(done.out), here / "small" / f"weights.{how}"
    assert told["quantised"]["n_bytes"] == file.stat().st_size < told["reduced"]["n_bytes"]
    weights = forms.load(file)
    network = load_model(here / "small").network
    assert set(network.state_dict()) == set(weights)
    network.load_state_dict(weights)
    assert told["quantised"]["accuracy"] > told["reduced"]["accuracy"] - 0.1


def test_nothing_is_begun_that_is_forecast_to_end_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = reducing._Limit(at=100.0, took=[500.0, 10.0, 20.0, 10.0])  # the first of them is too long ago to count
    assert limit.allows()
    now = 50.0
    limit.ended()
    assert limit.allows() is False  # 50 s again, and a fifth more for neighbours
    assert limit.is_reached
    assert reducing._Limit(at=60.0).allows()  # the first is begun on trial


@pytest.fixture
def alarms() -> Iterator[None]:
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_takes_too_long_after_all_is_given_up(alarms: None) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(reducing.TimeUp), reducing.ended_at(time.monotonic() + 0.05):
        time.sleep(PATIENCE)
    with reducing.ended_at(time.monotonic() + 3600):
        pass
    assert signal.getsignal(signal.SIGALRM) is handler


@pytest.mark.long  # two processes that import torch
def test_workers_come_to_the_network_of_one(place: Place, command: Command) -> None:
    for name, device in (("one", "cpu"), ("two", "cpu:2")):
        assert command(f"{LINE} -o {name} --iterations 3 --device {device}").code == 0
    assert (place.folder / "one" / WEIGHTS).read_bytes() == (place.folder / "two" / WEIGHTS).read_bytes()


@pytest.mark.long  # a start of the program
def test_two_runs_do_not_make_one_result(place: Place, command: Command) -> None:
    with place.started(*WORDS, "--epochs", "500", "-o", "small", module="search") as process:
        wait_for(process, "before: ")
        done = command(f"{LINE} --epochs 500 -o ../{place.folder.name}/small -q")
        assert (done.code, f"process {process.pid} makes" in done.err) == (4, True), done.err
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
