"""Databases: what is said of them, and where they should not lie."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
import sqlalchemy.exc

from search.database import disk, server, storage
from search.errors import StorageError
from search.study import results
from search.study.results import Result
from search.study.study import Study

MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
host:/x /mnt/with\\040blank fuse.sshfs rw 0 0
tmpfs /home/me/local tmpfs rw 0 0
host:/y /mnt/M\u00fcll nfs4 rw 0 0
host:/z /mnt/M\udcfcll cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/studies/optuna.db", "nfs4"),
        ("/mnt/with blank/optuna.db", "fuse.sshfs"),
        ("/mnt/M\u00fcll/optuna.db", "nfs4"),
        ("/mnt/M\udcfcll/optuna.db", "cifs"),
        ("/home/me/local/optuna.db", None),
        ("/var/optuna.db", None),
        ("/homework/optuna.db", None),
    ],
)
def test_an_sqlite_file_on_a_network_file_system_is_warned_of(path: str, kind: str | None) -> None:
    warning = storage.on_network_file_system(f"sqlite:///{path}", MOUNTS)
    assert (warning is None) == (kind is None)
    if warning is not None and kind is not None:
        assert kind in warning
        assert "--storage" in warning


def test_a_database_that_is_held_is_asked_again_and_any_other_failure_is_not() -> None:
    busy = sqlalchemy.exc.OperationalError("INSERT", {}, Exception("database is locked"))
    broken = sqlalchemy.exc.OperationalError("INSERT", {}, Exception("no such table"))
    answers: list[Exception | str] = [busy, busy, "done", broken, "never"]

    def action() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert storage.patiently(action, 10) == "done"
    with pytest.raises(sqlalchemy.exc.OperationalError, match="no such table"):
        storage.patiently(action, 10)
    answers[:] = [busy]
    with pytest.raises(sqlalchemy.exc.OperationalError, match="locked"):
        storage.patiently(action, -1)


def test_a_result_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    whole = Result(7, "COMPLETE", (1.5, 0.9), {"curve": [[1, 0.5, 0.9, None]]}, -0.7)
    results.keep(tmp_path, whole)
    results.keep(tmp_path, Result(3, "FAIL", attributes={"stop_reason": "hang"}))
    assert [result for _, result in results.kept(tmp_path)] == [
        Result(3, "FAIL", attributes={"stop_reason": "hang"}),
        whole,
    ]


def test_one_thread_may_take_a_study_for_itself_twice(new_study: Callable[..., Study]) -> None:
    study = new_study()
    with study.exclusive(), study.exclusive():
        assert study.ask().number == 0


@pytest.mark.parametrize(("n", "said"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_500_000_000, "2.5 GB")])
def test_bytes_are_said_as_people_say_them(n: int, said: str) -> None:
    assert disk.words(n) == said


def test_a_url_of_postgresql_gets_the_installed_driver_or_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    url = sqlalchemy.make_url("postgresql://u:canary@h/x")
    for installed in server.DRIVERS:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, here=installed: name == here or None)
        assert server.with_driver(url).drivername == f"postgresql+{installed}"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StorageError, match=r"\[postgres\]") as said:
        storage.open_storage("postgresql://u:canary@h/x")
    assert "canary" not in str(said.value)


def test_a_password_is_hidden_wherever_a_url_has_it() -> None:
    for url in ("postgresql://u:canary@h/x", "postgresql://u@h/x?password=canary"):
        assert "canary" not in storage.shown(url)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"trial": 7}', b'{"trial": 7, "state": "COMPLETE", "valu'])
def test_a_kept_result_that_is_damaged_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = results.keep(tmp_path, Result(7, "FAIL"))
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"trial-00007\.json is damaged: move it away"):
        list(results.kept(tmp_path))
