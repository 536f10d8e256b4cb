"""Power may fail at any moment: what was not synced is lost, and still every file is whole or not there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives import durable

FILES = {"weights": b"w" * 5000, "about": b"{}"}


def as_folder(place: Path, content: bytes) -> None:
    durable.write_folder(place, FILES | {"content": content})


def as_file(place: Path, content: bytes) -> None:
    durable.write_file(place, content)


WRITERS = pytest.mark.parametrize("write", [as_file, as_folder])


def content(place: Path) -> bytes:
    return (place / "content" if place.is_dir() else place).read_bytes()


@WRITERS
def test_nothing_gets_its_name_before_all_of_it_is_on_the_disk(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    fsync, rename = os.fsync, os.rename

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))

    def checked(source: Path, target: Path) -> None:
        whole = {str(source), *(str(path) for path in Path(source).rglob("*"))}
        assert whole <= synced, "a power cut now would leave a name without its content"
        synced.clear()
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", checked)
    monkeypatch.setattr(os, "replace", checked)
    write(tmp_path / "it", b"new")
    assert str(tmp_path) in synced, "a power cut now would lose the name"
    assert content(tmp_path / "it") == b"new"


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


def test_a_folder_carries_the_checksums_of_its_files(tmp_path: Path) -> None:
    durable.write_folder(tmp_path / "it", FILES)
    lines = (tmp_path / "it" / durable.SUMS).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == list(FILES)
