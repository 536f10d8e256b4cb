"""Which folder is a class and which a split: `cats/ dogs/`, or `Train/ val/ test/` with class folders in each.

A name alone does not make a split, because a class may be called 'train', too: a training split holds class folders.
A test split is known by its name; only `held_out` looks into it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from objectives.data.layout.labels import TABLES, named
from objectives.data.layout.listing import NO_FILE, File, Layout, Walk, is_image, role, stamp
from objectives.errors import DataError
from objectives.words import counted, printable, some

_TRAIN = re.compile(r"train(ing)?", re.IGNORECASE)
_WORDS = re.compile(r"[-_ .]+")
# Beside or within classes, folders of exactly these names are a split; 'valves' and 'testudo' may be classes there.
_PLAIN = re.compile(r"(val|valid|validation|dev|test|testing|eval|evaluation)([-_ ]?(set|data|images))?", re.IGNORECASE)


def arranged(path: Path, follow_links: bool) -> Layout:
    """The classes, splits and files of a folder. Classes and files are sorted by name; folders within a class are its.

    Raises:
        DataError: no classes, an arrangement with two readings.
    """
    walk = Walk(str(path), follow_links)
    folders, skipped = [], []
    for entry, fault in walk.entries(str(path)):
        if fault and role(entry.name) == "train" and entry.is_dir():
            target = os.path.realpath(entry.path)
            raise DataError(printable(f"{entry.path} is a link out of {path}: pass folder:{target}"))
        if fault:
            skipped.append(printable(f"{entry.name}: {fault}"))
        elif entry.is_dir():
            folders.append(entry.name)
    split = _split(path, folders, walk)
    if split is None:
        _check_ends(path, folders)
        _check_classes(path, folders, skipped, walk)
    top = path if split is None or split.val else path / split.train
    places = {".": False} if split is None or not split.val else {split.train: False, split.val: True}
    gathered = _Gathered(walk, top)
    if split:
        gathered.warn_of_loose(path, "split folders")
    for place, validates in places.items():
        gathered.add(place, validates)
    gathered.warn_of_hidden(path)
    if gathered.inner:
        raise DataError(_within(path, gathered.inner))
    if split and (plain := [name for name in gathered.classes if _PLAIN.fullmatch(name)]):
        raise DataError(_mixed(top, plain, [name for name in gathered.classes if name not in plain]))
    remarks = [f"{split.test}/ left unopened"] if split and split.test else []
    if walk.followed:
        remarks.append(f"{counted(len(walk.followed), 'link')} out of the folder followed")
    return Layout(
        top,
        tuple(map(printable, gathered.classes)),
        tuple(gathered.files),
        tuple(gathered.skipped) if split is None else (*skipped, *gathered.skipped),
        f"all of {printable(split.val)}/" if split and split.val else None,
        tuple(map(printable, remarks)),
        tuple(gathered.warnings),
    )


def held_out(path: Path, follow_links: bool) -> Layout | None:
    """The classes and files of the test split of a folder; None where it has none.

    Raises:
        DataError: as `arranged`.
    """
    walk = Walk(str(path), follow_links)
    split = _split(path, [entry.name for entry, fault in walk.entries(str(path)) if not fault and entry.is_dir()], walk)
    if split is None or not split.test:
        return None
    gathered = _Gathered(walk, path / split.test)
    gathered.add(".", validates=False)
    classes = tuple(map(printable, gathered.classes))
    return Layout(path / split.test, classes, tuple(gathered.files), tuple(gathered.skipped))


@dataclass(frozen=True)
class _Split:
    """Names of the folders that are splits; '' where there is none."""

    train: str
    val: str
    test: str


class _Gathered:
    """The files of the class folders of one split or two."""

    def __init__(self, walk: Walk, top: Path) -> None:
        self._walk, self._top = walk, top
        self.classes: list[str] = []
        self.files: list[File] = []
        self.skipped: list[str] = []
        self.warnings: list[str] = []
        self.inner: dict[str, Path] = {}  # folders within a class that are splits by their names, with what they hold

    def add(self, split: str, validates: bool) -> None:
        """Adds what lies in the class folders of a split; '.' is the folder itself."""
        place = self._top / split
        for entry, fault in self._walk.entries(str(place)):
            if fault:
                self._skip(entry.path, fault)
            elif entry.is_dir():
                if entry.name not in self.classes:
                    self.classes.append(entry.name)
                self._add_class(entry.path, self.classes.index(entry.name), validates)
            elif not entry.is_file():
                self._skip(entry.path, NO_FILE)
        self.warn_of_loose(place, "class folders")

    def warn_of_loose(self, place: Path, beside: str) -> None:
        """Tells of images that lie where only folders are looked for."""
        if loose := list(self._walk.images(str(place))):
            where = f"left out, because beside the {beside} of {place}: {counted(len(loose), 'image')}"
            self.warnings.append(printable(f"{where} ({some(loose)})"))

    def warn_of_hidden(self, path: Path) -> None:
        """Tells of images that are hidden, or in hidden folders: of a class, a split, or the whole."""
        if names := [os.path.relpath(file, path) for file in self._walk.concealed() if is_image(file)]:
            what = f"left out, because hidden: {counted(len(names), 'image')} ({some(names)})"
            self.warnings.append(printable(f"{what}: rename what begins with a dot if it is meant"))

    def _add_class(self, place: str, label: int, validates: bool) -> None:
        for entry, fault in self._walk.files(place):
            if fault:
                self._skip(entry.path, fault)
            else:
                relative = os.path.relpath(entry.path, self._top)
                if (inner := os.path.dirname(entry.path)) != place:
                    self._note_split(Path(place), Path(inner))
                self.files.append(File(entry.path, relative, label, validates, stamp(entry.path)))

    def _note_split(self, place: Path, folder: Path) -> None:
        while folder != place and folder.name not in self.inner:
            beside = [each.name for each in folder.parent.iterdir()] if _edges(folder.name) - {"train"} else []
            if _PLAIN.fullmatch(folder.name) or any("train" in _edges(name) for name in beside):
                self.inner.setdefault(folder.name, folder)
            folder = folder.parent

    def _skip(self, path: str, fault: str) -> None:
        self.skipped.append(printable(f"{os.path.relpath(path, self._top)}: {fault}"))


def _split(path: Path, folders: Sequence[str], walk: Walk) -> _Split | None:
    """The folders that are splits, or None where the folders are classes.

    Raises:
        DataError: they are neither, or both.
    """
    by_role = {name: [folder for folder in folders if role(folder) == name] for name in ("train", "val", "test")}
    others = [folder for folder in folders if role(folder) is None]
    trains = [folder for folder in by_role["train"] if walk.folders(str(path / folder))]
    if not trains:
        if folders and not others:
            raise DataError(_no_training(path, folders, by_role["train"]))
        if plain := [folder for folder in folders if _PLAIN.fullmatch(folder)]:
            raise DataError(_mixed(path, plain, others))
        return None
    if mixed := [folder for folder in others if walk.any_image(str(path / folder))]:
        if all(any(walk.images(str(path / train))) for train in trains):
            return None  # classes, one of them called 'train'
        raise DataError(_mixed(path, trains, mixed))
    for name, found in by_role.items():
        if len(found) > 1:
            raise DataError(
                printable(f"{path} has {len(found)} folders for one split, {name} ({some(found)}): keep one of them")
            )
    val = "".join(by_role["val"])
    if val and not walk.folders(str(path / val)):
        held = "images" if any(walk.images(str(path / val))) else "nothing"
        way_out = f"put the images of class X into {path / val / 'X'}, or rename it"
        raise DataError(
            printable(f"{path / val} is a split by its name, but holds {held} instead of class folders: {way_out}")
        )
    return _Split(trains[0], val, "".join(by_role["test"]))


def _edges(name: str) -> set[str]:
    """The splits that the first and the last word of a name mean: of 'test_cats' and 'cats-test' the test split."""
    words = _WORDS.split(name)
    known = [word for word in (words[0], words[-1]) if _PLAIN.fullmatch(word) or _TRAIN.fullmatch(word)]
    return {found for word in known if (found := role(word)) is not None}


def _check_ends(path: Path, folders: Sequence[str]) -> None:
    """Raises DataError where all folders are called as splits are, but for what comes before: 'my_train', 'my_test'."""
    roles = [_edges(folder) for folder in folders]
    if len(folders) > 1 and all(roles) and {"train"} < set().union(*roles):
        raise DataError(
            printable(
                f"{some(folders)} in {path} are splits by the ends of their names: call them 'train', 'val', 'test', "
                "with class folders in each, or rename what is no split"
            )
        )


def _no_training(path: Path, folders: Sequence[str], trains: Sequence[str]) -> str:
    if trains:
        what = f"{some(folders)} in {path} are splits by their names, but {trains[0]} holds no class folders"
        ways = f"put the images of class X into {path / trains[0] / 'X'}, or name them in a table"
        return printable(f"{what}: {ways}: --labels FILE.csv (columns file, label, split)")
    return printable(
        f"{some(folders)} in {path} are splits by their names, and none is for training: "
        "call the one that is 'train', or rename what is no split, say to class_NAME"
    )


def _within(path: Path, inner: Mapping[str, Path]) -> str:
    name, place = next(iter(inner.items()))
    what = f"{place} is a split within a class by its name, so that its images would be trained on"
    ways = f"put the splits above the classes ({path / name / 'CLASS'}, {path / 'train' / 'CLASS'})"
    return printable(f"{what}: {ways}, or rename what is no split")


def _mixed(path: Path, splits: Sequence[str], classes: Sequence[str]) -> str:
    what = f"{path} mixes folders that are splits by their names ({some(splits)}) with classes ({some(classes)})"
    return printable(f"{what}: put the classes into {path / 'train'}, or rename what is no split")


def _check_classes(path: Path, folders: Sequence[str], skipped: Sequence[str], walk: Walk) -> None:
    """Raises DataError where the folders of a folder without splits cannot be its classes."""
    files = [entry for entry, fault in walk.entries(str(path)) if not fault and entry.is_file()]  # a pipe never ends
    tables = [Path(entry.path) for entry in files if entry.name.lower().endswith(TABLES)]
    table = f"name them in a table with columns file, label: --labels {named(tables) or 'FILE.csv'}"
    if not folders:
        hidden = sorted(entry.name for entry in os.scandir(path) if entry.name.startswith(".") and entry.is_dir())
        hint = f" ({some(skipped)})" if skipped else f", hidden ones apart ({some(hidden)})" if hidden else ""
        way_out = f"put the images of class X into {path / 'X'}, or {table}"
        raise DataError(printable(f"{path} has no class folders{hint}: {way_out}"))
    if len(folders) > 1:
        return
    inner, below = path / folders[0], walk.folders(str(path / folders[0]))
    while len(below) == 1:
        inner = inner / below[0]
        below = walk.folders(str(inner))
    if below and not any(walk.images(str(inner))):
        raise DataError(printable(f"{path} holds a single folder: did you mean folder:{inner}"))
    if tables:
        raise DataError(printable(f"{path} has one class, {folders[0]}: {table}"))
