"""Laws of what a folder is taken for: classes, or splits that hold them; and of what is refused with a way out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from objectives.data.card import examine
from objectives.data.layout.labels import tabled
from objectives.errors import DataError
from objectives.task import DataSpec
from objectives.words import some
from tests.objectives.data.images import as_set, everything, grey, load_folder

pytestmark = pytest.mark.usefixtures("cache")


def make(place: Path, *files: str) -> Path:
    """The folder `data` with an image at each path; 'x*3/' stands for three files in x; 'x/' for an empty folder."""
    place = place / "data"
    for number, file in enumerate(files):
        path, _, times = file.rstrip("/").partition("*")
        (place / path).mkdir(parents=True, exist_ok=True)
        for each in range(int(times or 0)):
            (place / path / f"{each}.pgm").write_bytes(grey(100 * number + each))
    return place


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "", ""),
        ("Train", "", "Test"),
        ("TRAINING", "Validation", "testing"),
        ("train_set", "valid", "eval"),
        ("training", "DEV", ""),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_splits_are_known_by_their_names_in_any_case(train: str, val: str, test: str, tmp_path: Path) -> None:
    folder = make(tmp_path, *(f"{split}/{name}*10" for split in (train, val) if split for name in ("ant", "bee")))
    if test:
        (folder / test).mkdir()
    data = load_folder(folder)
    assert data.classes == ("ant", "bee")
    assert (len(data.train.y), len(data.val.y)) == ((20, 20) if val else (13, 7))
    assert f"({f'all of {val}/' if val else 'split off'}" in data.about
    assert (f"{test}/ left unopened" in data.about) == bool(test)


def test_all_of_the_validation_split_validates_whatever_part_trains(tmp_path: Path) -> None:
    folder = make(tmp_path, "train/ant*10", "train/bee*10", "val/ant*3", "val/bee*4")
    whole, part = load_folder(folder), load_folder(folder, n_train=6, seed=5)
    assert (
        as_set(whole.val)
        == as_set(part.val)
        == {grey(100 * i + j)[-16:] for i, n in ((2, 3), (3, 4)) for j in range(n)}
    )
    assert as_set(part.train) < as_set(whole.train)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ("train*3", "test*3"),
            "splits by their names, but train holds no class folders: .*train/X, or name them in a t",
        ),
        (("val/ant*3", "test/ant*3"), "test, val in .* are splits by their names, and none is for training"),
        (("train/ant*3", "train/bee*3", "cow*3"), r"mixes folders that are splits .* \(train\) with classes \(cow\)"),
        (("ant*3", "bee*3", "Test*3"), r"\(Test\) with classes \(ant, bee\)"),
        (("ant*3", "bee*3", "validation*3"), r"\(validation\) with classes"),
        (("train/ant*3", "training/ant*3"), r"2 folders for one split, train \(train, training\)"),
        (
            ("train/ant*3", "train/bee*3", "val*3"),
            "val is a split by its name, but holds images instead of class folders",
        ),
        (("train/ant*3", "train/bee*3", "val/"), "val is a split by its name, but holds nothing"),
        (
            ("train/ant*3", "train/bee*3", "val/ant*1", "val/cow*1"),
            r"no image to train on in .*/data \(cow\)",
        ),
        (("train/ant*3", "train/Bee*3", "val/bee*1"), "some look alike: 'Bee' and 'bee'"),
        (("train/ant*3", "train/bee*3", "val/ant/"), r"validation split has no image .*\(all of val/\)"),
        (("birds/train/ant*3", "birds/test/ant*3", "__MACOSX/birds*2"), r"did you mean folder:.*/data/birds$"),
        (("birds/ant*3", "birds/bee*3"), r"did you mean folder:.*/data/birds$"),
        (("a/b/c/ant*3", "a/b/c/bee*3"), r"did you mean folder:.*/data/a/b/c$"),
        (
            ("images*3",),
            "only 1 class, images, in .*/data: a classifier needs at least two: put the",
        ),
        (("ant/more*3",), "only 1 class, ant, in .*/data: a classifier needs at least two"),
        (("train/ant*3", "test/ant*3"), "only 1 class, ant, in .*/data/train: .* of class X into .*/data/train/X$"),
        (("train/ant*3", "val/ant*3"), "only 1 class, ant, in .*/data: "),
        ((".ant*3", ".bee*3"), r"no class folders, hidden ones apart \(\.ant, \.bee\): put the images"),
        (("testudo*3", "valves*3"), "testudo, valves in .* or rename what is no split, say to class_NAME"),
        (("test_a*3", "test_b*3"), "none is for training: call the one that is 'train', or rename"),
        (
            ("ant/train*3", "ant/val*3", "ant/test*3", "bee/train*3"),
            "data/ant/(test|val) is a split within a class .*: put the splits above .*/data/(test|val)/CLASS, ",
        ),
        (("ant/2020/Test*3", "ant*3", "bee*3"), "data/ant/2020/Test is a split within a class"),
        (("train/ant*3", "train/bee/eval*3"), "data/train/bee/eval is a split within a class"),
        (
            ("my_train/ant*3", "my_train/bee*3", "my_test/ant*3"),
            "my_test, my_train in .* by the ends of their names: call",
        ),
        (("seg-test/seg-test/ant*3", "seg-train/seg-train/ant*3"), "seg-test, seg-train in .* are splits by the ends"),
        (("train/ant*3", "train/bee*3", "train/val/ant*3"), r"data/train mixes .* \(val\) with classes \(ant, bee\)"),
        (("ant/train_ants*3", "ant/test_ants*3", "bee/train_bees*3"), "data/ant/test_ants is a split within a class"),
        (("ant/", "bee/"), "class 'ant' in .* has no images"),
    ],
)
def test_what_has_two_readings_is_refused_with_the_reason(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as refused:
        load_folder(make(tmp_path, *files))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (("bus*3", "train*3"), ("bus", "train")),
        (("bus*3", "train*3", "train/steam*3"), ("bus", "train")),
        (("pump*3", "valve*3", "testudo*3"), ("pump", "testudo", "valve")),
        (("ant*3", "bee*3", "__MACOSX/ant*3", "@eaDir/x*1", ".git/x*1", "lost+found/"), ("ant", "bee")),
        (("train/ant*3", "train/bee*3", "docs/"), ("ant", "bee")),
        (("ant/train*3", "ant/testudo*3", "bee/test/", "bee*3"), ("ant", "bee")),
        (("ant/2019*3", "ant/2020/may*3", "bee*3"), ("ant", "bee")),
        (("ant/test_shots*3", "bee/crash-test*3"), ("ant", "bee")),
        (("bullet_train*3", "night_train*3"), ("bullet_train", "night_train")),
        (("bullet_train*3", "crash_test*3", "bus*3"), ("bullet_train", "bus", "crash_test")),
    ],
)
def test_a_name_alone_makes_no_split_and_leftovers_are_no_classes(
    files: tuple[str, ...], classes: tuple[str, ...], tmp_path: Path
) -> None:
    assert load_folder(make(tmp_path, *files)).classes == classes


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "birds.zip").touch()
    with pytest.raises(DataError, match=rf"birds\.zip is a file: unpack it, or pass folder:{tmp_path}$"):
        load_folder(tmp_path / "birds.zip")


@pytest.mark.parametrize("place", [".", "train"])
def test_images_beside_the_folders_are_told(place: str, tmp_path: Path) -> None:
    folder = make(tmp_path, "train/ant*9", "train/bee*9")
    (folder / place / "lost").write_bytes(grey(9))
    (warning,) = load_folder(folder).warnings
    assert warning.endswith(": 1 image (lost)")


def test_a_dropped_class_may_be_empty_or_only_validated(tmp_path: Path) -> None:
    folder = make(tmp_path, "train/ant*3", "train/bee*3", "train/cow/", "val/ant*1", "val/dog*1")
    data = load_folder(folder, drop_small_classes=True)
    assert data.classes == ("ant", "bee")
    assert "without 2 small classes (cow, dog)" in data.about


def test_links_out_of_the_folder_are_followed_on_request_and_said(tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "elsewhere", "ant*3", "bee*3")
    (tmp_path / "data").mkdir()
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).symlink_to(elsewhere / name)
    with pytest.raises(DataError, match=r"ant: a link that leads out .* \(follow_links = true allows it\)"):
        load_folder(tmp_path / "data")
    os.symlink(tmp_path / "data", elsewhere / "ant" / "round")
    data = load_folder(tmp_path / "data", follow_links=True)
    assert data.classes == ("ant", "bee")
    assert "links out of the folder followed" in data.about
    assert data.skipped == ("ant/round/ant: a link round to a folder above it",)


def test_a_pipe_that_is_called_a_table_is_not_waited_for(tmp_path: Path) -> None:
    folder = make(tmp_path, "ant*3")
    os.mkfifo(folder / "labels.csv")
    with pytest.raises(DataError, match="only 1 class, ant"):
        load_folder(folder)


@pytest.mark.parametrize("top", ["", "train/"])
def test_hidden_images_are_told_but_for_those_of_well_known_folders(top: str, tmp_path: Path) -> None:
    known = [f"{top}ant/.ipynb_checkpoints*2", ".git*2", ".Trash-1000/files*2", "__MACOSX*2", ".empty/"]
    folder = make(tmp_path, f"{top}ant*3", f"{top}bee*3", f"{top}ant/.new*1", ".old/deep*2", *known)
    os.mkfifo(folder / ".old" / "pipe.jpg")
    (folder / ".old" / "notes.txt").write_text("soon")
    (folder / f"{top}bee" / ".one.pgm").write_bytes((folder / f"{top}bee" / "0.pgm").read_bytes())
    (folder / f"{top}bee" / "._0.pgm").write_bytes(b"\0\5\x16\7 what macOS keeps of another")
    data = load_folder(folder)
    named = sorted([".old/deep/0.pgm", ".old/deep/1.pgm", f"{top}ant/.new/0.pgm", f"{top}bee/.one.pgm"])
    said = f"left out, because hidden: 4 images ({some(named)}): rename what begins with a dot if it is meant"
    assert [each for each in data.warnings if "hidden" in each] == [said]
    assert (sum(map(len, everything(data).values())), data.skipped) == (6, ())


def test_hidden_images_are_told_and_what_systems_leave_beside_images_is_not(tmp_path: Path) -> None:
    folder = make(tmp_path, "ant*3", "bee*3")
    for name in ("ant/.0.jpg", ".loose"):
        (folder / name).write_bytes(grey(7))
    for name in ("ant/._0.pgm", "ant/.cut.jpg", "ant/.DS_Store", "ant/Thumbs.db", "bee/desktop.ini", ".directory"):
        (folder / name).write_bytes(b"\0\5\x16\7 of a system")
    os.mkfifo(folder / "bee" / ".pipe.jpg")
    (folder / "bee" / ".link.pgm").symlink_to(folder / "ant" / "0.pgm")
    card = examine(DataSpec(f"folder:{folder}"))
    assert [each.partition(": rename")[0] for each in card.warnings if "hidden" in each] == [
        "left out, because hidden: 2 images (.loose, ant/.0.jpg)"
    ]
    assert (card.n_train, card.unreadable, card.unrecognised) == (6, (), ())
    (folder / "labels.csv").write_text("file,label\nant/0.pgm,a\nbee/0.pgm,b\nant/.0.jpg,a\n")
    (left,) = tabled(folder, folder / "labels.csv", follow_links=False).warnings
    assert left.startswith("left out, because not in labels.csv: 5 images ("), "two of each class, and .loose"
