"""Power may fail at any moment: what was not synced is lost, and still every file is whole or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.data import sources
from objectives.host import durable
from tests.objectives.data.images import load_folder, make_folder

FILES = {"weights": b"w" * 5000, "about": b"{}"}


def as_folder(place: Path, content: bytes) -> None:
    durable.write_folder(place, FILES | {"content": content})


def as_file(place: Path, content: bytes) -> None:
    durable.write_file(place, content)


WRITERS = pytest.mark.parametrize("write", [as_file, as_folder])


def content(place: Path) -> bytes:
    return (place / "content" if place.is_dir() else place).read_bytes()


def as_cache(place: Path, content: bytes) -> None:
    """A folder of images, which leaves its decoded images in the cache."""
    make_folder(place.with_name("images"), [3, 3])
    load_folder(place.with_name("images"))
    place.write_bytes(content)


def as_download(place: Path, content: bytes) -> None:
    """Files that somebody else writes."""

    def fetch(into: Path) -> None:
        (into / "set" / "raw").mkdir(parents=True)
        (into / "set" / "raw" / "images").write_bytes(content)

    assert sources._download("set", fetch) == ""
    place.write_bytes(content)


class Disk:
    """What a power cut would leave: what was synced, as it was when it was synced."""

    def __init__(self) -> None:
        self._synced: dict[str, object] = {}
        self.n_named = 0
        self._fsync, self._rename = os.fsync, os.rename

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self._synced[path] = as_it_is(Path(path))

    def rename(self, source: Path, target: Path) -> None:
        for path in (Path(source), *Path(source).rglob("*")):
            assert self._synced.get(str(path)) == as_it_is(path), f"a power cut now would leave {target} without {path}"
        self._rename(source, target)
        self.n_named += 1

    def check_names(self, folder: Path) -> None:
        """The names that files got by renaming are on the disk."""
        assert set(self._synced.get(str(folder), ())) >= {path.name for path in folder.iterdir()}  # type: ignore[call-overload]


def as_it_is(path: Path) -> object:
    return path.read_bytes() if path.is_file() else sorted(entry.name for entry in path.iterdir())


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("write", "where"),
    [
        (as_file, "."),
        (as_folder, "."),
        (as_cache, "cache/frontrunner/images"),
        (as_cache, "cache/frontrunner/images/index"),
        (as_download, "cache/frontrunner/datasets"),
    ],
)
def test_nothing_gets_its_name_before_all_of_it_is_on_the_disk(
    write: Callable[[Path, bytes], None], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    for name, function in (("fsync", disk.fsync), ("rename", disk.rename), ("replace", disk.rename)):
        monkeypatch.setattr(os, name, function)
    write(tmp_path / "it", b"new")
    assert content(tmp_path / "it") == b"new"
    assert disk.n_named >= 1
    if where != ".":
        (tmp_path / "it").unlink()
    disk.check_names(tmp_path / where)


@WRITERS
def test_a_disk_that_is_full_leaves_the_old_content_and_nothing_else(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "it", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}"):
        write(tmp_path / "it", b"new")
    assert content(tmp_path / "it") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("name", ["no/it", "x" * 250, "folder"])
def test_a_file_that_cannot_be_written_is_told_by_the_name_that_was_asked_for(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"\[Errno") as failed:  # the second is too long for its partial file alone
        durable.write_file(tmp_path / name, b"new")
    assert failed.value.filename == str(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_carries_the_checksums_of_its_files(tmp_path: Path) -> None:
    durable.write_folder(tmp_path / "it", FILES)
    lines = (tmp_path / "it" / durable.SUMS).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == sorted(FILES)


@pytest.mark.parametrize("cut", [b"", b"one line"])
def test_a_list_of_checksums_that_is_cut_off_is_damage(tmp_path: Path, cut: bytes) -> None:
    durable.write_folder(tmp_path / "it", FILES)
    assert durable.damaged(tmp_path / "it") == []
    sums = tmp_path / "it" / durable.SUMS
    sums.write_bytes(sums.read_bytes().splitlines(keepends=True)[0] if cut else b"")
    assert durable.damaged(tmp_path / "it") == [durable.SUMS]
