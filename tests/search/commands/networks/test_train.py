"""The command that trains a pipeline anew: on a real folder, and with a scripted objective where ends count."""

from __future__ import annotations

import json
import math
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from objectives.export import load_model
from objectives.inference.folder import WEIGHTS, description
from objectives.pipeline import Pipeline
from objectives.task import Seeds
from search import trial
from search.commands import parsers
from search.commands.networks import train
from search.pareto.intervals import of_accuracies
from search.study.study import Study
from search.training import FRESH, OURS
from search.views.display import Display
from tests.search import program
from tests.search.conftest import Scripted
from tests.search.place import PATIENCE, Done, Place, wait_for

Command = Callable[[str], Done]
TOML = 'family = "small"\nepochs = 2\nlr = 0.2\n'


def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def test_a_pipeline_is_trained_anew_and_its_networks_are_like_any_other(
    model: Path, birds: Path, command: Command, tmp_path: Path
) -> None:
    line = f"train --pipeline {model} --data {birds} --device cpu --in-process"
    done = command(f"{line} -o anew --seeds 2 --whole --json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    places = [tmp_path / "anew" / name for name in ("seed-1", "seed-2", "all")]
    one, whole = load_model(places[0]), load_model(places[2])
    assert [each["network"] for each in told["seeds"]] == [str(place) for place in places[:2]]
    assert told["val_accuracy"]["mean"] == pytest.approx(fmean(each["accuracy"] for each in told["seeds"]))
    assert one.about["accuracy"] == told["seeds"][0]["accuracy"] == one.about["val_accuracy"]
    assert (one.size, one.classes) == (16, load_model(model).classes)
    assert told["pipeline"] == load_model(model).about["pipeline"]
    assert (told["family"], told["images"]) == ("small", {"train": 60, "validation": 90})
    assert weights(places[0]) != weights(places[1]) != weights(places[2])
    assert whole.about["accuracy"] is None
    assert whole.calibration.temperature == one.calibration.temperature
    assert "that of seed 1" in str(whole.about["calibration"])
    low, high = told["all_images"]["promise"]["interval"]
    assert low < told["all_images"]["promise"]["accuracy"] < high
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert whole.probabilities(images).sum(1).tolist() == pytest.approx([1, 1, 1])
    # the same command again has nothing to train; more seeds are added; one alone lies where it was asked for
    before = [place.stat().st_mtime_ns for place in places]
    again = command(f"{line} -o anew --seeds 3 --whole")
    assert (again.code, again.err.count("was trained before")) == (0, 3), again.err
    assert [place.stat().st_mtime_ns for place in places] == before
    assert "mean of 3 seeds" in again.out
    assert command(f"{line} -o alone").code == 0
    assert weights(tmp_path / "alone") == weights(places[0])
    assert command(f"test --model alone --data {birds} --device cpu --json").code == 0


@pytest.mark.parametrize(
    ("content", "words", "code", "said"),
    [
        pytest.param(
            "epochs = 2\nlr = 100.0\nweight_decay = 1.0\n",
            *("", 2, "the pipeline diverged with 1 seed, after"),
            marks=pytest.mark.long,  # it trains
        ),
        (TOML + 'number_format = "tf32"\n', "", 5, "number format tf32 needs an NVIDIA GPU"),
        (TOML, "--family cnn1d", 2, "take series"),
        (TOML + '[[strategies]]\nstrategy = "HaarStem"\n', "--family vgg --size 32", 2, "needs a residual network"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    content: str, words: str, code: int, said: str, birds: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "p.toml").write_text(content)
    done = command(f"train --pipeline p.toml --data {birds} --device cpu --in-process -q -o new {words}")
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert said in done.err
    assert not (tmp_path / "new").exists()


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, with the scripted objective."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRONTRUNNER_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    monkeypatch.setenv("SCRIPT", str(tmp_path / "script.json"))
    (tmp_path / "script.json").write_text("{}")
    (tmp_path / "p.toml").write_text(TOML)

    def run(words: str) -> Done:
        typed = [*shlex.split(words), "--device", "cpu", "--in-process"]
        options = parsers.COMMANDS["train"].parser().parse_args(typed)
        options.words = typed
        return Done(train.perform(options, program.training), *capsys.readouterr())

    return run


def told(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_seeds_are_fresh_ones_and_their_spread_is_told_from_four_on(scripted: Command) -> None:
    found = told(scripted("--pipeline p.toml --data digits -o four --seeds 4 --json"))
    pipeline = Pipeline(epochs=2, lr=0.2)
    curves = [program.curve(pipeline, Seeds.of(0, 0, repeat=FRESH + n)) for n in (1, 2, 3, 4)]
    assert [(each["train_seconds"], each["accuracy"]) for each in found["seeds"]] == [curve[-1] for curve in curves]
    (expected,) = of_accuracies([[accuracy for _, (__, accuracy) in curves]])
    assert found["val_accuracy"]["interval"] == list(expected.interval or ())
    assert found["val_accuracy"]["from"] == "seeds"
    assert found["train_seconds"]["interval"] is not None
    few = told(scripted("--pipeline p.toml --data digits -o two --seeds 2 --json"))
    assert (few["val_accuracy"]["from"], few["train_seconds"]["interval"]) == ("images", None)
    said = scripted("--pipeline p.toml --data digits -o two --seeds 2").out
    assert "an interval takes 4 seeds" in said
    assert f"from the number of images, {program.FACTS['data']['n_val']}" in said


def test_from_two_trainings_on_seeds_and_the_whole_are_added_and_fewer_are_told_alone(
    scripted: Command, tmp_path: Path
) -> None:
    line = "--pipeline p.toml --data digits -o out"
    for words, n_seeds, n_before in (("--seeds 3", 3, 0), ("--seeds 2", 2, 2), ("--seeds 2 --whole", 2, 2)):
        done = scripted(f"{line} {words}")
        assert (done.code, done.err.count("was trained before")) == (0, n_before), done.err
        assert f"mean of {n_seeds} seeds" in done.out
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["all", "seed-1", "seed-2", "seed-3"]
    assert "holds networks of several trainings: ask for two or more" in scripted(line).err


def test_a_point_of_a_study_is_trained_on_its_data_or_on_others(
    scripted: Command, new_study: Callable[..., Study], tmp_path: Path
) -> None:
    made = new_study(stopping="none", seed=5)
    objective = Scripted([[(1.0, 0.5)], [(2.0, 0.9)], [(4.0, 0.7)]])
    for _ in range(3):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    found = told(scripted("--study tiny --under-seconds 3 -o one --json"))
    assert Pipeline.from_json(found["pipeline"]) == objective.trained[1]
    assert (found["data"], found["family"], found["exported_accuracy"]) == ("digits", "small", 0.9)
    other = told(scripted("--study tiny --trial 2 --data fashion_mnist -o two --json"))  # not on the front
    assert Pipeline.from_json(other["pipeline"]) == objective.trained[2]
    assert other["data"] == "fashion_mnist"
    for words, said in (
        ("", "200 images to train, as in the study: --n-train N for another number"),
        ("--n-train 100", "the study had 200 images to train, this has 100"),
        ("--data fashion_mnist", "the study had 200 images to train, this has all that validation leaves"),
    ):
        done = scripted(f"--study tiny --trial 2 {words} -o {tmp_path / str(len(words))}")
        assert said in done.err.splitlines(), done.err
    for words, said in (
        ("--trial 9", "has trained no trial 9"),
        ("--under-seconds 0.5", "nothing on the front of 'tiny' trains in 0.5 s"),
        ("--under-mflop 3", "ask with --under-seconds S"),
    ):
        refused = scripted(f"--study tiny {words} -o three")
        assert (refused.code, refused.err.count("\n"), said in refused.err) == (2, 1, True), refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--pipeline p.toml -o new", "--data is missing"),
        ("--pipeline p.toml --data digits --trial 3 -o new", "--trial chooses from the front of a study"),
        ("--pipeline p.toml --data digits -o new --seeds 0", "--seeds 0 trains nothing"),
        ("--pipeline p.toml --data digits -o no/where", "there is no folder "),
        ("--pipeline p.toml --data digits -o p.toml", "is a file"),
        ("--pipeline p.toml --data digits -o .", "is there, and not a network of this command"),
        ("--pipeline p.toml --data digits -o run --seeds 2", "is there, and not a folder of networks of this command"),
        ("--pipeline p.toml --data digits -o done --seeds 2", "done is the network of a single training: name another"),
        ("--pipeline p.toml --data digits -o done --whole", "done is the network of a single training: name another"),
        ("--pipeline p.toml --data digits -o done --seed 3", "done was trained with another seed: name another folder"),
        ("--pipeline p.toml --data digits -o done --family thin", "done was trained with another network: name"),
        ("--pipeline done --data digits -o new", "of which family its network is: add --family"),
        ("--pipeline p.toml --data digits -o new --channels 2", "channels is 2: choose 1 (grey) or 3 (colour)"),
        ("--pipeline p.toml --data digits -o new --labels x.csv", "labels = 'x.csv' names the images of a folder"),
    ],
)
def test_what_cannot_be_meant_is_one_line(words: str, said: str, scripted: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    if "done" in words:
        assert scripted("--pipeline p.toml --data digits -o done -q").code == 0
    done = scripted(f"{words} -q")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert said in done.err
    assert not (tmp_path / "new").exists()


def test_a_fault_ends_it_in_one_line_and_the_same_command_does_the_rest(place: Place) -> None:
    (place.folder / "p.toml").write_text(TOML)
    words = shlex.split("train --pipeline p.toml --data digits -o out --seeds 3 --device cpu -q")
    place.script({1: "SIGSEGV"})
    done = place.run(*words)
    assert (done.code, done.out, done.err.count("\n")) == (5, "", 1), done.err
    assert "seed 2 cannot be trained: the worker process died (signal SIGSEGV)" in done.err
    assert [each.name for each in (place.folder / "out").iterdir()] == ["seed-1"]
    place.script(pause=0.3)
    with place.started(*words[:-1]) as process:
        wait_for(process, "seed 3")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted; to go on: ")
    place.script()
    assert place.run(*words).code == 0
    assert (place.folder / "trainings.count").stat().st_size == 1  # the third
    assert [(description(place.folder / "out" / f"seed-{n}") or {})[OURS]["number"] for n in (1, 2, 3)] == [1, 2, 3]
