"""Laws of images that come more than once: they are told with their number and their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from objectives.data.dataset import load
from objectives.data.duplicates import repetitions
from objectives.data.sources import Labelled
from objectives.objective import TrainingObjective
from objectives.task import DataSpec, Task
from tests.objectives.data.images import grey, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")

FOUND = Labelled(
    pixels=np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8),
    labels=np.arange(20) % 2,
    classes=("ant", "bee"),
    flip=True,
)
TRAIN, VAL = np.arange(15), np.arange(15, 20)


def test_images_that_come_once_are_no_matter() -> None:
    assert repetitions(FOUND, TRAIN, VAL) == ()


def test_validation_images_that_are_trained_on_are_counted_with_examples() -> None:
    pixels = FOUND.pixels.copy()
    pixels[[15, 17, 19]] = pixels[[1, 3, 1]]
    (line,) = repetitions(replace(FOUND, pixels=pixels), TRAIN, VAL)
    assert line.startswith(
        "validation images that are training images as well: 3 of 5 "
        "(image 1 (bee) = image 15 (bee), image 3 (bee) = image 17 (bee), image 1 (bee) = image 19 (bee)): "
    )


def test_copies_of_an_image_of_another_class_are_counted_with_examples() -> None:
    pixels = FOUND.pixels.copy()
    pixels[[4, 6, 9]] = pixels[1]
    (line,) = repetitions(replace(FOUND, pixels=pixels), TRAIN, VAL)
    assert line.startswith(
        "images that are copies of one of another class: 2 "
        "(image 1 (bee) = image 4 (ant), image 1 (bee) = image 6 (ant)): "
    )


def test_copies_within_the_training_images_are_no_matter() -> None:
    pixels = FOUND.pixels.copy()
    pixels[2] = pixels[0]
    assert repetitions(replace(FOUND, pixels=pixels), TRAIN, VAL) == ()


def test_copies_in_a_folder_are_told_by_their_paths_from_the_cache_too(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [1, 20, 20], ["alone", "a", "b"])
    for name in ("x.pgm", "=cmd\n.pgm"):
        (folder / "b" / name).write_bytes(grey(1))  # a/0000.pgm
    Image.open(folder / "a" / "0000.pgm").save(folder / "a" / "as png.png")  # other bytes, the same pixels
    (folder / "a" / "bad.png").touch()
    for _ in range(2):
        *_, line = load_folder(folder, drop_small_classes=True).warnings
        assert line.startswith("images that are copies of one of another class: 2 (a/0000.pgm = b/=cmd\\n.pgm, a/0")


def test_every_image_in_both_splits_is_found_whatever_the_size(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for i in range(20):
            (folder / label / f"{i}.pgm").write_bytes(grey(i // 10 + 2 * (label == "a"), side=9))
    (line,) = load_folder(folder, size=5).warnings  # of one of three splits
    assert line.startswith("validation images that are training images as well: 14 of 14")


def test_the_warnings_are_among_the_facts_of_a_training(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [9, 9])
    (folder / "class000" / "copy.pgm").write_bytes((folder / "class001" / "0000.pgm").read_bytes())
    objective = TrainingObjective(Task(DataSpec(f"folder:{folder}", size=8), "small"), "cpu")
    warnings = objective.facts()["warnings"]
    assert isinstance(warnings, list)
    assert "another class" in warnings[-1]


def test_the_embedded_digits_have_no_copies() -> None:
    assert load(DataSpec("digits", n_train=1200), torch.device("cpu")).warnings == ()
