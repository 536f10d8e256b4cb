"""Laws of what is shown and cleared of the cache: all of it, and nothing else."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from objectives.data.cache import shards
from objectives.data.cache.contents import clear, entries
from objectives.host.durable import PARTIAL
from tests.objectives.data.images import files_under, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")
DAY = 86_400


def test_every_folder_is_shown_with_its_images_and_their_bytes(tmp_path: Path, cache: Path) -> None:
    folder, other = make_folder(tmp_path / "data", [5, 5]), make_folder(tmp_path / "other", [4, 6, 3])
    for size in (4, 8):
        load_folder(folder, size)
    load_folder(other)
    (cache / "images" / "old.safetensors").write_bytes(b"of another version")
    (cache / "datasets").mkdir()
    (cache / "datasets" / "set").write_bytes(b"downloaded")
    found = entries(cache)
    assert sorted((e.belongs_to, e.side, e.n_images) for e in found if e.what == "images") == [
        *((str(folder), 4, 10), (str(folder), 8, 10), (str(other), 4, 13))
    ]
    assert sorted(e.what for e in found) == ["download", "images", "images", "images", "index", "index", "other"]
    assert sum(e.n_bytes for e in found) >= sum((cache / name).stat().st_size for name in files_under(cache))


def test_what_is_being_written_is_shown_as_a_part_and_what_vanishes_meanwhile_is_not(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_folder(make_folder(tmp_path / "data", [5, 5]))
    (whole,) = (cache / "images").glob("4-*")
    shutil.copytree(whole, whole.with_name(f".{whole.name}.1{PARTIAL}"))
    shutil.copytree(whole, whole.with_name(f"copy of {whole.name}"))
    found = sorted((entry.what, entry.side, entry.n_images) for entry in entries(cache) if entry.what != "index")
    assert found == [("images", 4, 10), ("other", None, None), ("part", 4, 10)]

    def read(folder: Path) -> object:
        said = table(folder)
        shutil.rmtree(folder)
        return said

    table = shards.table
    monkeypatch.setattr(shards, "table", read)
    assert [entry.what for entry in entries(cache)] == ["index"]


def test_clearing_removes_all_images_and_nothing_outside_of_them(tmp_path: Path, cache: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    before = load_folder(folder)
    (cache / "datasets").mkdir()
    (cache / "datasets" / "set").write_bytes(b"downloaded")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").touch()
    (cache / "images" / "link").symlink_to(tmp_path / "precious", target_is_directory=True)
    images = files_under(folder)
    assert {entry.what for entry in clear(cache, None)} == {"images", "index", "other"}
    assert files_under(cache) == {"datasets/set", "images/.lock"}
    assert (files_under(folder), files_under(tmp_path / "precious")) == (images, {"x"})
    assert load_folder(folder).content_hash == before.content_hash


def test_what_was_used_since_stays(tmp_path: Path, cache: Path) -> None:
    old, used = make_folder(tmp_path / "old", [5, 5]), make_folder(tmp_path / "used", [4, 6])
    for folder in (old, used):
        load_folder(folder)
    for path in (*(cache / "images").iterdir(), *(cache / "images" / "index").iterdir()):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3 * DAY))
    load_folder(used)
    removed = clear(cache, datetime.now() - timedelta(days=2))
    assert {entry.belongs_to for entry in removed} == {str(old)}
    assert {entry.belongs_to for entry in entries(cache)} == {str(used)}


def test_where_there_is_no_cache_there_is_nothing_to_clear(cache: Path) -> None:
    assert (entries(cache), clear(cache, None)) == ([], [])
    assert not cache.exists()
