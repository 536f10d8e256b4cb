"""Studies that this version does not understand: listed, read as far as it goes, renamed, deleted; nothing is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.commands.exits import exit_code
from search.database import storage
from search.study import opening, records, spec
from tests.search.conftest import FACTS, FORMATS
from tests.search.place import Done

Command = Callable[[str], Done]
PATH = "--storage sqlite:///studies.db"


def without(known: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in known.items() if key not in keys}


def changed(known: dict[str, Any], section: str, **values: object) -> dict[str, Any]:
    return known | {section: known[section] | values}


FOREIGN: dict[str, tuple[str, Callable[[Any], object]]] = {  # what is unknown: (attribute of the study, its change)
    "space": ("spec", lambda known: changed(known, "space", name="of-tomorrow")),
    "key": ("spec", lambda known: changed(known, "search", of_tomorrow=True)),
    "kind": ("spec", lambda known: known | {"kind": "of-tomorrow"}),
    "identity": (records.IDENTITY, lambda known: without(known, "data")),
    "data": (records.IDENTITY, lambda known: changed(known, "data") | {"data": {}}),
    "formats": (records.FORMATS, lambda known: None),
    "floor": (records.FLOOR, lambda known: {"of": "tomorrow"}),
}
CHANGED: dict[str, tuple[str, Callable[[Any], object]]] = {  # it can be read, but not gone on with
    "strategy": (records.IDENTITY, lambda known: changed(known, "space", of_tomorrow=["a", "b"])),
    "device": (records.IDENTITY, lambda known: known | {"of_tomorrow": 1}),
    "number format": (records.FORMATS, lambda known: known | {"fp4": None}),
}


@pytest.fixture
def studies(tmp_path: Path, study_file: Path) -> Callable[..., list[str]]:
    """Makes a study, `plain`, with a trial and networks, and others of which an attribute was changed."""

    def make(changes: dict[str, tuple[str, Callable[[Any], object]]]) -> list[str]:
        _, read = spec.read(str(study_file))
        database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
        names = []
        for what in ("plain", *changes):
            name = what.replace(" ", "-")
            study = opening.created(name, read, database, FACTS, FORMATS).optuna
            attributes = {records.WORDS: f"words of {name}", records.REASON: "below_floor"}
            study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs=attributes))
            attributes = {records.WORDS: f"words of {name}"}
            study.add_trial(create_trial(state=TrialState.COMPLETE, values=[1.5, 0.9], user_attrs=attributes))
            if what in changes:
                attribute, change = changes[what]
                study.set_user_attr(attribute, change(study.user_attrs[attribute]))
            database.artifacts(name).joinpath("trial-00001").mkdir(parents=True)
            names.append(name)
        database.optuna.engine.dispose()
        return names

    return make


def test_all_studies_are_listed_and_read_as_far_as_they_are_understood(
    studies: Callable[..., list[str]], command: Command, tmp_path: Path
) -> None:
    _, *names = studies(FOREIGN | CHANGED)
    optuna.create_study(study_name="theirs", storage=f"sqlite:///{tmp_path}/studies.db")
    listed = command(f"studies {PATH} list")
    assert listed.code == 0
    rows = {line.split()[0]: line for line in listed.out.splitlines() if line}
    assert rows["plain"].split()[1:4] == ["2", "0", "1"]
    assert "theirs" not in rows
    for name in names:
        assert ("foreign" in rows[name]) == (name in FOREIGN)
        (note,) = [line for line in listed.out.splitlines() if f"study {name!r}" in line]
        assert "version" in note
        shown = command(f"studies {PATH} show {name}")
        assert (shown.code, f"words of {name}" in shown.out, "90.00%" in shown.out) == (0, True, True), shown.out
    for said in ("of-tomorrow", "search.of_tomorrow", "parameters removed: of_tomorrow", "fp4"):
        assert said in listed.out
    for words in ("show theirs", "rename theirs ours", "delete theirs --yes"):
        done = command(f"studies {PATH} {words}")
        assert (done.code, "not one of ours" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("identity", 4, "another version"), ("key", 4, "another version"), ("strategy", 2, "--as NAME")],
)
def test_a_study_that_is_not_understood_is_examined_but_not_gone_on_with(
    name: str, code: int, said: str, studies: Callable[..., list[str]], command: Command
) -> None:
    studies({name: (FOREIGN | CHANGED)[name]})
    examined = command(f"doctor {PATH} --study {name}")
    assert (examined.code, "BAD  study" in examined.out, "ok   disk" in examined.out) == (1, True, True)
    done = command(f"run {PATH} --study tiny.toml --as {name} --device cpu")
    assert (done.code, done.err.count("\n"), said in done.err) == (code, 1, True), done.err


def test_a_study_that_is_not_understood_is_cleaned_around_renamed_and_deleted(
    studies: Callable[..., list[str]], command: Command, tmp_path: Path
) -> None:
    _, *names = studies(FOREIGN)
    networks = tmp_path / "artifacts-studies.db"
    (networks / "gone").mkdir()
    for line in (f"studies {PATH} disk", f"studies {PATH} clean"):
        assert command(line).code == 0
    assert {folder.name for folder in networks.iterdir()} == {"plain", *names}
    assert all((networks / name / "trial-00001").is_dir() for name in names)
    for name in names:
        assert command(f"studies {PATH} rename {name} {name}-2").code == 0
        assert (networks / f"{name}-2" / "trial-00001").is_dir()
        assert command(f"studies {PATH} delete {name}-2 --yes").code == 0
    assert [folder.name for folder in networks.iterdir()] == ["plain"]
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            for column in {"study_id", "trial_id"} & set(columns):
                found = {row[0] for row in database.execute(f"SELECT {column} FROM {table}")}
                assert found <= ({1} if column == "study_id" else {1, 2}), table


def test_a_database_of_a_later_optuna_gives_what_it_can(
    studies: Callable[..., list[str]], command: Command, tmp_path: Path
) -> None:
    studies({})
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.9.a'")
        database.execute("CREATE TABLE trial_thoughts (trial_id INTEGER, thought TEXT)")
        database.execute("INSERT INTO trial_thoughts VALUES (1, 'hm')")
    listed = command(f"studies {PATH} list")
    assert (listed.code, "foreign" in listed.out, "v9.9.9.a" in listed.out) == (0, True, True)
    for words in ("doctor --study plain", "dashboard --study plain", "run --study tiny.toml --device cpu"):
        done = command(f"{words} {PATH}")
        assert (done.code, done.err.count("\n"), "v9.9.9.a" in done.err) == (4, 1, True), done.err
    assert "90.00%" in command(f"studies {PATH} show plain").out
    assert command(f"studies {PATH} clean").code == 0
    assert (tmp_path / "artifacts-studies.db" / "plain" / "trial-00001").is_dir()
    assert command(f"studies {PATH} rename plain other").code == 0
    assert command(f"studies {PATH} delete other --yes").code == 0
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        assert database.execute("SELECT count(*) FROM trial_thoughts").fetchone() == (0,)


READING = (
    *("studies list", "studies show plain", "studies disk", "studies clean", "best --study plain"),
    *("report --study plain", "doctor --study plain"),
    "studies delete plain --yes",
)


def overwritten(path: Path) -> None:
    """Every page but the first two is damaged in its head."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(path.read_bytes())
    for page in range(8192, len(content), 4096):
        content[page : page + 140] = b"\xff" * 140
    path.write_bytes(content)


def without_values(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE trial_values")


@pytest.mark.parametrize("damage", [overwritten, without_values])
def test_a_damaged_database_is_at_most_one_line_of_any_command(
    damage: Callable[[Path], None], studies: Callable[..., list[str]], command: Command, tmp_path: Path
) -> None:
    studies({})
    damage(tmp_path / "studies.db")
    for words in READING:
        name, _, rest = words.partition(" ")
        done = command(f"{name} {PATH} {rest}")
        assert done.code in (0, 4) or name == "doctor", (words, done)
        assert [line.startswith("error: ") for line in done.err.splitlines()] == [True] * (done.code == 4), (
            words,
            done,
        )
        assert name != "doctor" or done.code == 4 or "BAD  database" in done.out, done


def test_what_sqlite_says_of_some_damaged_pages_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def read() -> int:
        raise MemoryError

    assert exit_code(read, "sqlite:///x.db") == 4
    assert capsys.readouterr().err.startswith("error: memory is short, or sqlite:///x.db is damaged: ")


def test_a_folder_in_the_place_of_the_database_is_no_full_disk(command: Command, tmp_path: Path) -> None:
    (tmp_path / "studies.db").mkdir()
    for words in READING:
        name, _, rest = words.partition(" ")
        done = command(f"{name} {PATH} {rest}")
        assert (done.code, "is a folder" in done.err, done.err.count("\n")) == (4, True, 1), (words, done)
