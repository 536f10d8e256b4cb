"""Laws of what data are: their pixels, labels and split, wherever they lie; and of how a difference is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from objectives.data import content
from objectives.data.cautions import of_classes
from objectives.data.dataset import Dataset
from objectives.objective import TrainingObjective
from objectives.task import DataSpec, Task
from tests.objectives.data.images import grey, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")


def facts(data: Dataset) -> dict[str, object]:
    """The part of a study's identity that is its data."""
    found = TrainingObjective(Task(DataSpec(f"folder:{data.name}"), "small"), "cpu", dataset=data).facts()["data"]
    assert isinstance(found, dict)
    return found


def reverse_names(folder: Path) -> None:
    for image in sorted(folder.rglob("*.pgm")):
        image.rename(image.with_name(f"{9999 - int(image.stem):04}.pgm"))


def as_png(folder: Path) -> None:
    for image in sorted(folder.rglob("*.pgm")):
        Image.open(image).save(image.with_suffix(".png"))
        image.unlink()


def deeper(folder: Path) -> None:
    (folder / "class000" / "more").mkdir()
    (folder / "class000" / "0003.pgm").rename(folder / "class000" / "more" / "0003.pgm")


@pytest.mark.parametrize("change", [reverse_names, as_png, deeper])
def test_data_are_their_pixels_labels_and_split_and_not_their_paths(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "data", [20, 30])
    before = facts(load_folder(folder))
    change(Path(shutil.move(folder, tmp_path / "moved")))
    assert facts(load_folder(tmp_path / "moved")) == before


def add(folder: Path) -> None:
    (folder / "class001" / "new.pgm").write_bytes(grey(999))


def add_two(folder: Path) -> None:
    add(folder)
    (folder / "class001" / "newer.pgm").write_bytes(grey(998))


def remove(folder: Path) -> None:
    (folder / "class000" / "0003.pgm").unlink()


def relabel(folder: Path) -> None:
    (folder / "class000" / "0003.pgm").rename(folder / "class001" / "was 0.pgm")


def repaint(folder: Path) -> None:
    (folder / "class000" / "0003.pgm").write_bytes(grey(999))


def rename(folder: Path) -> None:
    (folder / "class001").rename(folder / "class002")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add, ["1 image added: class001/new.pgm"]),
        (add_two, ["2 images added to class001"]),
        (remove, ["1 image removed from class000"]),
        (relabel, ["1 image removed from class000", "1 image added: class001/was 0.pgm"]),
        (repaint, ["images of class000 changed"]),
        (rename, ["30 images removed from class001 (class gone)", "30 images added to class002 (class new)"]),
    ],
)
def test_a_change_of_the_images_is_told_in_words(
    change: Callable[[Path], None], said: list[str], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "data", [20, 30])
    before = facts(load_folder(folder))
    change(folder)
    now = load_folder(folder)
    lines, explained = content.differences(before, facts(now), now.named)
    assert lines == said
    assert {key for key, value in facts(now).items() if before[key] != value} <= explained


def test_another_split_of_the_same_images_and_another_size_are_told_apart(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [20, 30])
    before, resplit, larger = (facts(load_folder(folder, **changes)) for changes in ({}, {"seed": 3}, {"size": 8}))
    assert content.differences(before, before, {})[0] == []
    assert content.differences(before, resplit, {})[0] == [
        "the same images are split otherwise into training and validation"
    ]
    lines, explained = content.differences(before, larger, {})
    assert lines == []
    assert {key for key, value in larger.items() if before[key] != value} - explained == {"size"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("caf\u00e9", "cafe\u0301"), "'caf\u00e9' in two Unicode forms"),
        (("Cat", "cat"), "'Cat' and 'cat'"),
        (("cat", "cat "), "'cat' and 'cat '"),
        (("big cat", "big  cat"), "'big cat' and 'big  cat'"),
        (("cat", "c\u200bat"), "'cat' and 'c\\u200bat'"),
        (("\uff11", "1"), "'\uff11' and '1'"),
    ],
)
def test_class_names_that_look_alike_are_told(names: tuple[str, str], said: str) -> None:
    labels = np.arange(20) % 2
    (line,) = of_classes(names, labels, np.arange(10))
    assert line.startswith(f"class names that look alike ({said}): ")
    assert of_classes(("cat", "dog"), labels, np.arange(10)) == ()


@pytest.mark.parametrize(("small", "warned"), [(1, True), (20, True), (21, False), (100, False)])
def test_uneven_classes_are_told_with_a_way_to_count_them_alike(small: int, warned: bool) -> None:
    labels = np.array([0] * small + [1] * 100)
    lines = of_classes(("rare", "common"), labels, np.arange(small + 1))
    assert len(lines) == warned
    assert all(f"rare has {small} image" in line and 'metric = "balanced"' in line for line in lines)


def test_classes_that_nobody_validates_are_told(tmp_path: Path) -> None:
    (line,) = load_folder(make_folder(tmp_path / "data", [2] * 150)).warnings
    assert line.startswith("classes without a validation image: 50 of 150 (")


def test_the_names_of_very_many_images_are_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    assert sum(map(len, load_folder(folder).named.values())) == 10
    monkeypatch.setattr(content, "MAX_NAMED", 9)
    assert load_folder(folder).named == {}
    assert replace(load_folder(folder), named={}).by_class == load_folder(folder).by_class
