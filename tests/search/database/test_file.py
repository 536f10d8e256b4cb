"""SQLite files as databases: one under all its names, apart from every other one, in any folder, of any version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from search.database import disk, file, storage
from search.database.storage import Database
from search.errors import StorageError

ODD = "M\udcfcll \u00fc per%20cent what? #{brace} [x]*"  # \udcfc: a byte that is no UTF-8


@contextmanager
def opened(url: str, create: bool = True, any_version: bool = False) -> Iterator[Database]:
    """A database, closed at the end."""
    database = storage.open_storage(url, create=create, any_version=any_version)
    try:
        yield database
    finally:
        database.optuna.engine.dispose()


def test_a_database_lies_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.chdir(folder)
    for url in (f"sqlite:///{folder}/x.db", "sqlite:///x.db"):
        with opened(url) as database:
            optuna.create_study(study_name="s", storage=database.optuna, load_if_exists=True)
            assert database.optuna.engine.dialect.name == "sqlite"
        assert (disk.database_bytes(url) or 0) > 10_000
    with sqlite3.connect(folder / "x.db") as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchall() == [("s",)]
    connection.close()
    assert {path.name for path in folder.iterdir()} <= {"x.db", "x.db.lock"}


def test_all_names_of_a_database_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real" / "x.db"
    real.parent.mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link.db").symlink_to("real/x.db")
    (tmp_path / "again.db").symlink_to(tmp_path / "link.db")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    names = ("real/x.db", "link.db", "again.db", "folder/x.db", f"{real}", "deep/../real/x.db", "deep/up/../link.db")
    found = set()
    for name in names:
        with opened(f"sqlite:///{name}") as database, database.exclusive("s"):
            found.add((database.place, database.artifacts("s").absolute(), database.folder.absolute()))
    assert found == {(str(real), real.parent / "artifacts-x.db" / "s", real.parent)}
    assert {path.name for path in tmp_path.iterdir()} == {"real", "folder", "link.db", "again.db", "deep"}


def test_no_two_databases_share_networks(tmp_path: Path) -> None:
    names = ("optuna.db", "optuna.sqlite3", "x.db", "x.sqlite3", "x.old.db", "x.old", "x", "y.db")
    folders = set()
    for name in names:
        (tmp_path / name).write_bytes(file.MAGIC)
        file.adopt(tmp_path / name)
        folders.add(file.networks(tmp_path / name))
        file.networks(tmp_path / name).mkdir()
    assert len(folders) == len(names)
    assert tmp_path / "artifacts" in folders  # of the default database, for ever


def test_the_folder_of_an_earlier_version_is_taken_over_by_the_only_database_it_can_belong_to(tmp_path: Path) -> None:
    """It was named without the suffix. Study files and other folders of the same stem claim nothing."""
    before = tmp_path / "artifacts-x" / "study" / "trial-00001"
    before.mkdir(parents=True)
    (tmp_path / "x.toml").write_text("")
    with opened(f"sqlite:///{tmp_path}/x.db") as database:
        assert (database.artifacts("study") / "trial-00001").is_dir()
        assert database.networks.name == "artifacts-x.db"
    with opened(f"sqlite:///{tmp_path}/x.sqlite3") as database:
        assert not database.networks.exists()


def test_the_folder_that_two_databases_have_shared_is_left_alone(tmp_path: Path) -> None:
    before = tmp_path / "artifacts-x"
    (before / "study").mkdir(parents=True)
    for name in ("x.db", "x.sqlite3"):
        (tmp_path / name).write_bytes(file.MAGIC)
    for name in ("x.db", "x.sqlite3"):
        file.adopt(tmp_path / name)
        assert file.networks(tmp_path / name) != before
        assert file.disputed(tmp_path / name) == before
    assert (before / "study").is_dir()


def other_tables(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE cookies (value TEXT)").connection.close()


@pytest.mark.parametrize(
    ("url", "create", "said"),
    [
        ("sqlite:///{0}/none.db", False, "there is no database"),
        ("sqlite:///{0}/none/x.db", True, "there is no folder"),
        ("sqlite:///{0}/x.db?timeout=5", True, "?timeout=5"),
        ("sqlite:///file:x.db?mode=ro&uri=true", True, "?mode=ro&uri=true"),
        ("sqlite:///", True, "outlives the process"),
        ("sqlite://", True, "outlives the process"),
        ("sqlite:///:memory:", True, "outlives the process"),
        ("sqlite:///{0}", True, "is a folder: name a database in it"),
        ("sqlite:///{0}/text.db/x.db", True, "text.db is no folder, but a file"),
        ("sqlite:///{0}/cookies.db", True, "holds no studies"),
        ("sqlite:///{0}/cookies.db", False, "holds no studies"),
        ("sqlite:///{0}/empty.db", False, "holds no studies"),
        ("sqlite:///{0}/text.db", False, "is no database"),
    ],
)
def test_what_is_no_database_of_studies_is_refused_and_stays_as_it_is(
    url: str, create: bool, said: str, tmp_path: Path
) -> None:
    other_tables(tmp_path / "cookies.db")
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("text" * 1000)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StorageError) as refused, opened(url.format(tmp_path), create):
        pass
    assert said in str(refused.value)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert after == before


def test_a_working_directory_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StorageError, match="the working directory is gone"), opened("sqlite:///x.db"):
        pass


@pytest.mark.parametrize(("version", "said"), [("v9.9.9.a", "of another Optuna"), ("v3.0.0.a", "storage upgrade")])
def test_a_database_of_another_optuna_is_used_by_nobody_who_does_not_say_so(
    version: str, said: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with opened(url) as database:
        assert database.other_version is None
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()
    for create in (True, False):
        with pytest.raises(StorageError, match=said), opened(url, create):
            pass
    with opened(url, create=False, any_version=True) as database:
        assert said in str(database.other_version)


def test_a_command_is_told_of_a_storage_that_it_would_not_find_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    asked = "sqlite:///a b/x.db"
    with opened(storage.DEFAULT_URL) as usual, opened(asked) as other:
        assert (usual.option, other.option) == ("", " --storage 'sqlite:///a b/x.db'")
        monkeypatch.setenv("OPTUNA_STORAGE", asked)
        assert (usual.option, other.option) == (f" --storage {storage.DEFAULT_URL}", "")
