"""How good an exported network is on labelled images, as the command `test` tells it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.export import load_model
from search.pareto.intervals import wilson
from tests.objectives.data.images import make_folder
from tests.search.commands.networks.conftest import CLASSES
from tests.search.place import Done

Command = Callable[[str], Done]


def test_images_that_validated_it_give_the_accuracy_that_its_training_told(
    model: Path, birds: Path, command: Command
) -> None:
    done = command(f"test --model {model} --data folder:{birds} --split validation --json")
    assert done.code == 0, done.err
    told, about = json.loads(done.out), load_model(model).about
    assert (told["accuracy"], told["balanced_accuracy"]) == (about["accuracy"], about["balanced_accuracy"])
    assert told["split"] == "validation"


def test_all_figures_follow_from_the_confusions(model: Path, birds: Path, command: Command) -> None:
    told = json.loads(command(f"test --model {model} --data {birds} --json").out)
    right = [row[at] for at, row in enumerate(told["confusion"])]
    assert told["split"] == "test"
    assert [sum(row) for row in told["confusion"]] == [8, 8, 8]
    assert told["accuracy"] == pytest.approx(sum(right) / 24)
    assert told["interval"] == list(wilson(told["accuracy"], 24))
    assert [each["class"] for each in told["classes"]] == list(CLASSES)
    assert [each["recall"] for each in told["classes"]] == [n / 8 for n in right]
    assert 0 <= told["calibration_error"] <= 1
    out = command(f"test --model {model} --data {birds}").out
    assert out.startswith(f"accuracy  {told['accuracy']:.2%} of 24 images, the test split (95 %: ")
    assert "images of a class (row) that are told as another (column):" in out


def test_a_folder_without_a_test_split_is_taken_as_a_whole_and_may_lack_classes(
    model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    for name in CLASSES[1:]:
        shutil.copytree(birds / "test" / name, tmp_path / "new" / name)
    done = command(f"test --model {model} --data new --json")
    told = json.loads(done.out)
    assert (done.code, told["split"], told["n"]) == (0, "all", 16)
    assert told["classes"][0]["recall"] is None
    assert done.err == "warning: there is no test split: these are all images\n"
    assert "no test split: --split all" in command(f"test --model {model} --data new --split test").err
    told = json.loads(command(f"test --model {model} --data {birds} --split all --json").out)
    assert told["n"] == 90 + 24
    assert told["remarks"] == ["the network was trained on most of these images: on others it is less accurate"]


@pytest.mark.parametrize("split", ["test", "validation", "all", ""])
def test_a_test_split_without_an_image_is_none(
    split: str, model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(birds / "train", tmp_path / "new" / "train")
    (tmp_path / "new" / "test" / CLASSES[0]).mkdir(parents=True)
    (tmp_path / "new" / "test" / CLASSES[0] / "notes.txt").write_text("to come")
    done = command(f"test --model {model} --data new --json {split and '--split'} {split}")
    if split == "test":
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
        assert "has no test split" in done.err
        return
    told = json.loads(done.out)
    assert (done.code, told["split"], told["n"]) == (0, split or "all", 30 if split == "validation" else 90)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--data other", 3, "2 classes that the network does not know: class000, class001: it knows =cmd(), "),
        ("--data digits", 3, "10 classes that the network does not know"),
        ("--data other --split validation", 3, "does not have the images that validated this network"),
        ("--data nowhere", 3, "there is no folder nowhere"),
        ("--data digits --labels x.csv", 2, "names the images of a folder"),
    ],
)
def test_data_that_do_not_fit_are_one_line(
    words: str, code: int, said: str, model: Path, tmp_path: Path, command: Command
) -> None:
    make_folder(tmp_path / "other", [9, 9])
    done = command(f"test --model {model} {words}")
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert said in done.err
