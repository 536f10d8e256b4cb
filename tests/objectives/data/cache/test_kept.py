"""Laws of the decoded images that are kept: never other ones than those in the folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from objectives.data.cache import decoders
from objectives.data.cache import kept as kept_module
from objectives.data.reading import keep
from objectives.errors import DataError
from objectives.task import DataSpec
from tests.objectives.data.images import files_under, grey, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")

REPOSITORY = Path(__file__).parents[4]
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


def kept(cache: Path) -> list[Path]:
    """The shards in the cache."""
    return sorted((cache / "images").glob("*-*"))


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
    (stored,) = kept(cache)
    before = (stored / "pixels.npy").stat()
    load_folder(tmp_path / "copy")
    after = (stored / "pixels.npy").stat()
    assert kept(cache) == [stored]
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


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


@pytest.mark.parametrize("which", ["images/*/pixels.npy", "images/*/rows.npy", "images/*/about.json", "images/index/*"])
@pytest.mark.parametrize(
    "damage", [flipped, lambda _: _[:-9], lambda _: b"", lambda _: b"x" * 64], ids=["flip", "truncate", "empty", "text"]
)
def test_a_damaged_cache_is_built_again(
    tmp_path: Path, cache: Path, which: str, damage: Callable[[bytes], bytes]
) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    before = load_folder(folder)
    (damaged,) = cache.glob(which)
    whole = damaged.read_bytes()
    damaged.write_bytes(damage(whole))
    assert load_folder(folder).content_hash == before.content_hash
    assert damaged.read_bytes() == whole
    assert len(kept(cache)) == 1


@pytest.mark.parametrize("which", ["images/4-*", "images/index/*"])
def test_a_cache_file_of_another_folder_is_not_taken_for_this_one(tmp_path: Path, cache: Path, which: str) -> None:
    folder, other = (make_folder(tmp_path / name, [5, n]) for name, n in (("data", 5), ("other", 6)))
    before = load_folder(folder), load_folder(other)
    one, two = cache.glob(which)
    one.rename(cache / "third")
    two.rename(one)
    (cache / "third").rename(two)
    assert [load_folder(place).content_hash for place in (folder, other)] == [each.content_hash for each in before]


def test_of_a_folder_that_changed_by_a_file_that_file_alone_is_read_and_the_old_images_go(
    tmp_path: Path, cache: Path, opens: list[str]
) -> None:
    folder = make_folder(tmp_path / "data", [10, 10])
    load_folder(folder)
    (old,) = kept(cache)
    (folder / "class001" / "0003.pgm").write_bytes(grey(1000))
    (folder / "class001" / "0004.pgm").unlink()
    opens.clear()
    changed = load_folder(folder)
    assert {path for path in opens if path.startswith(str(folder))} == {str(folder / "class001" / "0003.pgm")}
    assert old not in kept(cache)
    assert len(kept(cache)) == 1
    shutil.rmtree(cache)
    assert load_folder(folder).content_hash == changed.content_hash


def test_a_copy_of_a_folder_keeps_its_images_when_the_folder_changes(tmp_path: Path, cache: Path) -> None:
    folder = make_folder(tmp_path / "data", [10, 10])
    shutil.copytree(folder, tmp_path / "copy")
    load_folder(folder)
    load_folder(tmp_path / "copy")
    (old,) = kept(cache)
    (folder / "class001" / "0004.pgm").unlink()
    load_folder(folder)
    assert old in kept(cache)


def test_what_was_kept_before_the_workers_start_leaves_them_nothing_to_read(tmp_path: Path, opens: list[str]) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    told: list[tuple[str, int, int]] = []
    keep(DataSpec(f"folder:{folder}", size=4), lambda *words: told.append(words))
    assert told[0] == ("listing", 0, 0)
    assert {what for what, done, total in told if done == total == 10} == {"reading", "decoding", "arranging"}
    opens.clear()
    load_folder(folder)
    assert not [path for path in opens if path.startswith(str(folder))]


def test_processes_decode_what_this_one_would(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "data", [9, 9])
    (folder / "class000" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "class000" / "notes.txt").write_text("no image")
    here = load_folder(folder)
    shutil.rmtree(cache)
    monkeypatch.setattr(decoders, "ALONE", 0)
    monkeypatch.setattr(kept_module, "CHUNK_FILES", 4)
    there = load_folder(folder)
    assert (there.content_hash, there.split_hash, there.skipped) == (here.content_hash, here.split_hash, here.skipped)
    assert len(kept(cache)) == 1


def test_a_process_that_dies_of_its_files_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "ALONE", 0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        DataError, match=r"decoded 10 files from .*0000.pgm to .*0004.pgm died \(exit code 1\): find"
    ) as it:
        load_folder(make_folder(tmp_path / "data", [5, 5]))
    assert "\n" not in str(it.value)


KILLED = """
import os, signal, sys
from objectives.data.cache import decoders, kept
from objectives.data.reading import keep
from objectives.task import DataSpec

def progress(what, done, total):
    print(what, done, total, flush=True)
    if what == "decoding" and 0 < done:
        os.kill(os.getpid(), signal.SIGKILL)

decoders.ALONE, kept.CHUNK_FILES = int(sys.argv[2]), 7
keep(DataSpec("folder:" + sys.argv[1], size=4), progress)
"""


@pytest.mark.parametrize("alone", ["0", "1000"])
def test_killed_in_the_middle_the_next_run_decodes_only_the_rest(
    alone: str, tmp_path: Path, cache: Path, opens: list[str]
) -> None:
    folder = make_folder(tmp_path / "data", [10, 10])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), alone], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    assert killed.stdout.splitlines()[:2] == ["listing 0 0", "reading 20 20"]
    parts = list((cache / "images").glob("4-*-part-*"))
    n_done = sum(len(np.load(part / "rows.npy")) for part in parts)
    assert 6 <= n_done < 20
    opens.clear()
    resumed = load_folder(folder)
    assert len({path for path in opens if path.startswith(str(folder))}) == 20 - n_done
    assert len(kept(cache)) == 1
    shutil.rmtree(cache)
    assert load_folder(folder).content_hash == resumed.content_hash


def test_nothing_is_written_into_the_data_folder_and_nothing_unfinished_into_the_cache(
    tmp_path: Path, cache: Path
) -> None:
    folder = make_folder(tmp_path / "data" / "train", [5, 5]).parent
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    load_folder(folder)
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == before
    assert {len(name.split("/")) for name in files_under(cache)} == {2, 3}
    assert not [name for name in files_under(cache) if "part-" in name]
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
