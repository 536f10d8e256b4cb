"""A lock is held by one at a time, and leaves nothing where it was."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from search.host.locks import Held, holder, locked


def test_one_at_a_time_holds_a_lock_though_each_removes_its_file(tmp_path: Path) -> None:
    path, counter = tmp_path / "a.lock", tmp_path / "count"
    counter.write_text("0")

    def count(number: int) -> None:
        with locked(path, {"number": number}, wait=60):
            before = int(counter.read_text())
            time.sleep(1e-4)
            counter.write_text(str(before + 1))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(400)))
    assert (counter.read_text(), path.exists()) == ("400", False)


def test_who_holds_a_lock_is_told_and_nothing_is_left_of_it_however_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with pytest.raises(Held) as held, locked(path, {"pid": 7}), locked(path, {"pid": 8}):
        pass
    assert held.value.holder == {"pid": 7}
    assert (holder(path), list(tmp_path.iterdir())) == (None, [])


def test_a_file_that_a_dead_holder_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text('{"pid": 7}')
    with locked(path, {"pid": 8}):
        assert holder(path) == {"pid": 8}
    assert not path.exists()
