"""Looks after the studies of a database: frontrunner studies list | show | rename | delete | disk | clean."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from objectives.data.sources import cache_home
from search.commands.exits import exit_code
from search.database import disk, storage
from search.database.storage import Database
from search.errors import StorageError, UsageError
from search.host import devices
from search.host.places import study_files
from search.study import opening, records
from search.study.spec import check_name
from search.views import summary

WIDE = 200  # columns of a table that does not go to a terminal


def perform(options: argparse.Namespace) -> int:
    """Does what the command line asks; 0, 2 usage, 4 storage, 130 interrupted."""
    if options.command == "files":
        for name, path in study_files().items():
            print(f"{name:<20}  {path}")
        return 0
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage.url(options.storage, None)
    return exit_code(lambda: _do(options, url), url)


def _do(options: argparse.Namespace, url: str) -> int:
    database = storage.open_storage(url, create=False)
    match options.command:
        case "list":
            _print(_listed(database))
        case "show":
            study = opening.stored(options.study, database)
            _print(summary.table(study), *summary.lines(study))
        case "rename":
            _rename(database, options.study, options.new_name)
        case "delete":
            _delete(database, options.study, sure=options.yes)
        case "disk":
            for what, n_bytes in _disk(database):
                print(f"{disk.words(n_bytes):>10}  {what}")
        case "clean":
            print(f"{disk.words(_clean(database, cache=options.cache))} freed")
    return 0


def _names(database: Database) -> list[str]:
    """Names of our studies; a database may hold others."""
    summaries = optuna.get_all_study_summaries(database.optuna)
    return sorted(each.study_name for each in summaries if records.IDENTITY in each.user_attrs)


def _listed(database: Database) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("study", "trials", "waiting", "front", "best accuracy", "device", "run by"):
        table.add_column(
            column, justify="right" if column in ("trials", "waiting", "front", "best accuracy") else "left"
        )
    for name in _names(database):
        study = opening.stored(name, database)
        trials, front = study.trials(), study.front()
        runs = [str(who.get("pid")) for who in _runs(database, name).values()]
        table.add_row(
            name,
            str(records.n_counted(trials)),
            str(records.counts(trials).waiting),
            str(len(front)),
            f"{front[-1].accuracy:.2%}" if front else "",
            study.optuna.user_attrs[records.IDENTITY]["device"]["model"],
            ", ".join(runs),
        )
    return table


def _rename(database: Database, name: str, new_name: str) -> None:
    check_name(new_name)
    opening.stored(name, database)
    if new_name in [each.study_name for each in optuna.get_all_study_summaries(database.optuna)]:
        raise UsageError(f"there is a study {new_name!r} already: choose another name")
    with _idle(database, name):
        old, new = (storage.artifacts(database.url, each) for each in (name, new_name))
        change = sqlalchemy.text("UPDATE studies SET study_name = :new WHERE study_name = :old")
        with database.optuna.engine.begin() as connection:
            connection.execute(change, {"new": new_name, "old": name})
            if old.exists():
                old.rename(new)  # before the commit: a failure undoes the name
    print(f"study {name!r} is now {new_name!r}: go on with --as {new_name}")


def _delete(database: Database, name: str, *, sure: bool) -> None:
    study = opening.stored(name, database)
    what = f"study {name!r} with {len(study.trials())} trials and {disk.words(disk.folder_bytes(study.artifacts))}"
    if not sure:
        if not sys.stdin.isatty():
            raise UsageError(f"this would delete {what}: say --yes")
        if input(f"delete {what}? Type its name: ") != name:
            raise UsageError("nothing was deleted")
    with _idle(database, name):
        optuna.delete_study(study_name=name, storage=database.optuna)
        shutil.rmtree(study.artifacts, ignore_errors=True)
    print(f"deleted {what}")


def _disk(database: Database) -> Iterator[tuple[str, int | None]]:
    """(what, bytes) of all that belongs to the database."""
    yield f"database {database.shown}", disk.database_bytes(database.url)
    names = _names(database)
    for name in names:
        yield f"networks of {name}", disk.folder_bytes(storage.artifacts(database.url, name))
    for folder in _orphans(database):
        yield f"{folder}: of no study, `clean` removes it", disk.folder_bytes(folder)
    yield f"decoded images and downloads in {cache_home()}", disk.folder_bytes(cache_home())
    yield "free", disk.free_bytes(storage.folder(database.url))


def _clean(database: Database, *, cache: bool) -> int:
    """Removes what nothing names; bytes freed."""
    before = sum(n_bytes or 0 for what, n_bytes in _disk(database) if what != "free")
    for name in _names(database):
        opening.stored(name, database).collect()
    for folder in _orphans(database):
        shutil.rmtree(folder, ignore_errors=True)
    if cache:
        shutil.rmtree(cache_home() / "images", ignore_errors=True)
    if not any(_runs(database, name) for name in _names(database)) and storage.sqlite_path(database.url) is not None:
        with database.optuna.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.execute(sqlalchemy.text(statement))
    return max(0, before - sum(n_bytes or 0 for what, n_bytes in _disk(database) if what != "free"))


def _orphans(database: Database) -> list[Path]:
    """Folders of networks whose study is gone."""
    names = {each.study_name for each in optuna.get_all_study_summaries(database.optuna)}
    place = storage.artifacts(database.url, "any").parent
    return [folder for folder in sorted(place.glob("*")) if folder.is_dir() and folder.name not in names]


def _runs(database: Database, name: str) -> dict[str, dict[str, object]]:
    """The runs of a study on this host, by device."""
    held = devices.held_devices().items()
    return {slot: who for slot, who in held if (who.get("study"), who.get("database")) == (name, database.place)}


@contextmanager
def _idle(database: Database, name: str) -> Iterator[None]:
    """Keeps runs of the study from asking; refuses where there is one."""
    with database.exclusive(name):
        for who in _runs(database, name).values():
            raise StorageError(f"study {name!r} is being run by process {who.get('pid')}: end it first")
        study = opening.stored(name, database)
        for trial in study.trials():  # of a database server: also what other hosts run
            if trial.state == TrialState.RUNNING and not study.is_lost(trial):
                who = trial.user_attrs[records.OWNER]
                raise StorageError(f"study {name!r} is being run by {who['pid']} on {who['host']}: end it first")
        yield


def _print(*what: Table | str) -> None:
    out = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)
    for each in what:
        out.print(each, soft_wrap=isinstance(each, str))
