"""What a command line says as the study file does is no change, and names no study of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.study.asked import override
from search.study.spec import StudySpec, read
from tests.search.conftest import TOML


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudySpec:
    """A study of 200 images of a folder with a table, which the working directory holds."""
    monkeypatch.chdir(tmp_path)
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
    (tmp_path / "images.csv").touch()
    text = TOML.replace('name = "digits"', f"name = 'folder:{tmp_path}/images'\nlabels = '{tmp_path}/images.csv'")
    (tmp_path / "birds.toml").write_text(text)
    return read("birds.toml")[1]


@pytest.mark.parametrize(
    ("data", "n_train", "seed", "labels"),
    [
        *(("folder:images", *rest) for rest in ((None, None, None), (200, 0, "images.csv"), (None, 0, "./images.csv"))),
        *(("folder:./images/", None, None, None), (None, 200, None, None), (None, None, 0, None)),
        (None, None, None, "images.csv"),
    ],
)
def test_what_changes_nothing_names_nothing(
    data: str | None, n_train: int | None, seed: int | None, labels: str | None, spec: StudySpec
) -> None:
    assert override("birds", spec, data, None, n_train, seed, labels) == ("birds", spec)


def test_a_folder_that_has_moved_is_that_of_the_study(spec: StudySpec, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").rename(tmp_path / "elsewhere" / "images")
    name, moved = override("birds", spec, "folder:elsewhere/images", None, None, None)
    assert (name, moved.data.n_train, moved.data.labels) == ("birds", 200, spec.data.labels)
    assert moved.data.name == f"folder:{tmp_path}/elsewhere/images"


@pytest.mark.parametrize(
    ("data", "n_train", "seed", "labels", "word"),
    [
        ("folder:others/images", None, None, None, "folder"),  # called the same, beside that of the study
        ("digits", 200, 0, None, "digits"),
        ("folder:images", 199, None, None, "n-train"),
        ("folder:images", 200, 4, None, "seed"),
        ("folder:images", None, None, "others.csv", "labels"),
    ],
)
def test_what_changes_something_is_said_in_the_name(
    data: str, n_train: int | None, seed: int | None, labels: str | None, word: str, spec: StudySpec, tmp_path: Path
) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "others" / "images" / name).mkdir(parents=True)
    derived, changed = override("birds", spec, data, None, n_train, seed, labels)
    assert derived.startswith(f"birds-{word}-")
    assert changed != spec
