"""Laws of the decoded images that are kept: never other ones than those in the folder."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.objectives.data.images import files_under, grey, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")

opened: list[str] | None = None  # files that Python opens, while a test listens


def _listen(event: str, values: tuple[object, ...]) -> None:
    if opened is not None and event == "open":
        opened.append(str(values[0]))


sys.addaudithook(_listen)


@pytest.fixture
def opens() -> Iterator[list[str]]:
    """Paths of all files opened during the test."""
    global opened
    opened = []
    yield opened
    opened = None


def test_a_second_load_reads_no_image_and_gives_the_same(tmp_path: Path, opens: list[str]) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    first = load_folder(folder)
    assert any(path.startswith(str(folder)) for path in opens)
    opens.clear()
    second = load_folder(folder)
    assert not any(path.startswith(str(folder)) for path in opens)
    assert torch.equal(first.train.x, second.train.x)
    assert (first.content_hash, first.split_hash) == (second.content_hash, second.split_hash)


def test_the_same_images_elsewhere_are_not_decoded_again(tmp_path: Path, cache: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    load_folder(folder)
    shutil.copytree(folder, tmp_path / "copy")
    (stored,) = (cache / "images").glob("*.safetensors")
    before = stored.stat()
    load_folder(tmp_path / "copy")
    assert list((cache / "images").glob("*.safetensors")) == [stored]
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_image_is_seen_even_with_its_old_size_and_time(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    before = load_folder(folder)
    image = folder / "class000" / "0000.pgm"
    stat = image.stat()
    image.write_bytes(grey(1000))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_folder(folder).content_hash != before.content_hash


def test_each_size_is_cached_by_itself(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    assert [load_folder(folder, size=size).size for size in (4, 8, 4, None)] == [4, 8, 4, 32]


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize("which", ["images", "images/index"])
@pytest.mark.parametrize(
    "damage", [flipped, lambda _: _[:-9], lambda _: b"", lambda _: b"x" * 64], ids=["flip", "truncate", "empty", "text"]
)
def test_a_damaged_cache_is_built_again(
    tmp_path: Path, cache: Path, which: str, damage: Callable[[bytes], bytes]
) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    before = load_folder(folder)
    (kept,) = filter(Path.is_file, (cache / which).iterdir())
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert load_folder(folder).content_hash == before.content_hash
    assert kept.read_bytes() == whole
    assert len(files_under(cache)) == 2


@pytest.mark.parametrize("which", ["images", "images/index"])
def test_a_cache_file_of_another_folder_is_not_taken_for_this_one(tmp_path: Path, cache: Path, which: str) -> None:
    folder, other = (make_folder(tmp_path / name, [5, n]) for name, n in (("data", 5), ("other", 6)))
    before = load_folder(folder), load_folder(other)
    one, two = filter(Path.is_file, (cache / which).iterdir())
    content = one.read_bytes(), two.read_bytes()
    one.write_bytes(content[1])
    two.write_bytes(content[0])
    assert [load_folder(place).content_hash for place in (folder, other)] == [each.content_hash for each in before]
    assert (one.read_bytes(), two.read_bytes()) == content


def test_nothing_is_written_into_the_data_folder_and_nothing_unfinished_into_the_cache(
    tmp_path: Path, cache: Path
) -> None:
    folder = make_folder(tmp_path / "data" / "train", [5, 5]).parent
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    load_folder(folder)
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == before
    assert {len(name.split("/")) for name in files_under(cache)} == {2, 3}
    assert not [name for name in files_under(cache) if ".partial" in name]


def test_a_cache_that_cannot_be_written_costs_time_and_a_warning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data = load_folder(make_folder(tmp_path / "data", [5, 5]))
    (warning,) = data.warnings
    assert re.match("cannot write .*: images are decoded at every start; set XDG_CACHE_HOME elsewhere", warning)
    assert data.n_classes == 2


@pytest.mark.parametrize("home", [None, "relative"])
def test_no_home_folder_costs_time_and_a_warning_only(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 98765)  # of a container: in no list of users
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    data = load_folder(make_folder(tmp_path / "data", [5, 5]))
    assert data.warnings == (
        "there is no home folder to keep a cache in: set HOME or XDG_CACHE_HOME: images are decoded at every start",
    )
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
