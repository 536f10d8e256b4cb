"""Looks after the studies of a database: frontrunner studies list | show | rename | delete | disk | clean."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import sqlalchemy
from optuna.trial import TrialState

from objectives.data.cache import contents
from objectives.data.sources import cache_home
from objectives.words import counted
from search.commands.exits import exit_code
from search.database import catalogue, disk, file, storage
from search.database.file import READ_ONLY
from search.database.storage import Database
from search.errors import Foreign, StorageError, UsageError
from search.host import devices
from search.host.places import study_files
from search.study import opening, records, recovery
from search.study.spec import check_name
from search.study.study import Study
from search.views import summary
from search.views.columns import columns


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
    database = storage.open_storage(url, create=False, any_version=True)
    if database.read_only and options.command in ("rename", "delete", "clean"):
        raise StorageError(f"{database.shown} {READ_ONLY}")
    match options.command:
        case "list":
            _list(database)
        case "show":
            _show(database, options.study)
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
    return catalogue.names_with(database, records.IDENTITY)


def _opened(database: Database, name: str) -> Study | Foreign:
    """A study, or why this version does not understand it."""
    if database.other_version is not None:
        return Foreign(f"{database.shown} {database.other_version}")
    try:
        return opening.stored(name, database)
    except Foreign as foreign:
        return foreign


def _list(database: Database) -> None:
    """A line a study; below, what this version cannot go on with, and why."""
    notes, rows = [], []
    for name in _names(database):
        try:
            cells, note = _row(_opened(database, name))
        except opening.UNREADABLE as error:
            cells, note = _row(Foreign(f"trials of study {name!r} are of another version of frontrunner ({error})"))
        rows.append([name, *cells, ", ".join(str(who.get("pid")) for who in _runs(database, name).values())])
        notes += [note] if note else []
    header = ["study", "trials", "waiting", "front", "best accuracy", "device", "run by"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    print(*columns(header, rows, left=["study", "device"]), *dict.fromkeys(notes), sep="\n")


def _row(study: Study | Foreign) -> tuple[list[str], str]:
    """(cells, what this version cannot do with the study)."""
    if isinstance(study, Foreign):
        return ["", "", "", "", "foreign"], f"{study}: show says what can be read; rename and delete work"
    now, changed = study.snapshot(), opening.changes(study)
    cells = [
        str(now.n_counted),
        str(now.counts.waiting),
        str(len(now.front)),
        f"{now.front[-1].accuracy:.2%}" if now.front else "",
        str(now.attributes[records.IDENTITY]["device"]["model"]),
    ]
    return (
        cells,
        f"study {study.name!r} can be read, but not gone on with by this version: {changed[0]}" if changed else "",
    )


def _show(database: Database, name: str) -> None:
    study = _opened(database, name)
    if isinstance(study, Study):
        try:
            now = study.snapshot()
            print(*summary.table(now), *summary.lines(now), sep="\n")
            return
        except opening.UNREADABLE as error:
            study = Foreign(f"trials of study {name!r} were written by another version of frontrunner ({error})")
    print(*_as_far_as_understood(opening.loaded(name, database)), str(study), sep="\n")


def _as_far_as_understood(study: optuna.Study) -> list[str]:
    """Every trial of a study, in what all versions write."""
    try:
        trials = study.get_trials(deepcopy=False)
    except opening.UNREADABLE as error:
        raise Foreign(f"trials of study {study.study_name!r} cannot be read by this version ({error})") from error
    rows = []
    for trial in trials:
        seconds, accuracy = [*(trial.values or ()), None, None][:2]
        rows.append(
            [
                str(trial.number),
                "" if seconds is None else f"{seconds:.2f}",
                "" if accuracy is None else f"{accuracy:.2%}",
                str(trial.user_attrs.get(records.REASON) or trial.state.name.lower()),
                str(trial.user_attrs.get(records.WORDS, trial.params)),
            ]
        )
    return [study.study_name, *columns(["trial", "seconds", "accuracy", "ended", "pipeline"], rows, left=["ended"])]


def _check_ours(database: Database, name: str) -> None:
    """Raises UsageError where there is no such study, or it is not ours."""
    if name not in _names(database):
        opening.loaded(name, database)  # says more


def _rename(database: Database, name: str, new_name: str) -> None:
    check_name(new_name)
    _check_ours(database, name)
    if new_name in catalogue.names(database):
        raise UsageError(f"there is a study {new_name!r} already: choose another name")
    with _idle(database, name):
        catalogue.rename(database, name, new_name)
    print(f"study {name!r} is now {new_name!r}: go on with --as {new_name}")


def _delete(database: Database, name: str, *, sure: bool) -> None:
    _check_ours(database, name)
    study, networks = _opened(database, name), database.artifacts(name)
    trials = "" if isinstance(study, Foreign) else f"{counted(len(study.trials()), 'trial')} and "
    what = f"study {name!r} with {trials}{disk.words(disk.folder_bytes(networks))}"
    if not sure:
        if not sys.stdin.isatty():
            raise UsageError(f"this would delete {what}: say --yes")
        try:
            typed = input(f"delete {what}? Type its name: ")
        except EOFError:
            typed = ""
        if typed != name:
            raise UsageError("nothing was deleted")
    with _idle(database, name):
        catalogue.delete(database, name)
        shutil.rmtree(networks, ignore_errors=True)
    print(f"deleted {what}")


def _disk(database: Database) -> Iterator[tuple[str, int | None]]:
    """(what, bytes) of all that belongs to the database."""
    yield f"database {database.shown}", disk.database_bytes(database.url)
    for name in _names(database):
        yield f"networks of {name}", disk.folder_bytes(database.artifacts(name))
    for folder in _orphans(database):
        yield f"{folder}: of no study, `clean` removes it", disk.folder_bytes(folder)
    if database.path is not None and (disputed := file.disputed(database.path)) is not None:
        yield f"{disputed}: of this database or of another, nothing removes it", disk.folder_bytes(disputed)
    if (home := cache_home()) is not None:
        yield f"decoded images and downloads in {home}", disk.folder_bytes(home)
    yield "free", disk.free_bytes(database.folder)


def _clean(database: Database, *, cache: bool) -> int:
    """Removes what nothing names; bytes freed. Networks of a study that is not understood stay."""
    before = sum(n_bytes or 0 for what, n_bytes in _disk(database) if what != "free")
    for name in _names(database):
        if isinstance(study := _opened(database, name), Study):
            with suppress(*opening.UNREADABLE):  # trials that another version has written
                study.collect()
    for folder in _orphans(database):
        shutil.rmtree(folder, ignore_errors=True)
    if cache and (home := cache_home()) is not None:
        contents.clear(home, None)
    if not any(_runs(database, name) for name in _names(database)) and database.path is not None:
        with database.optuna.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.execute(sqlalchemy.text(statement))
    return max(0, before - sum(n_bytes or 0 for what, n_bytes in _disk(database) if what != "free"))


def _orphans(database: Database) -> list[Path]:
    """Folders of networks whose study is gone."""
    names, place = set(catalogue.names(database)), database.networks
    folders = sorted(place.iterdir()) if place.is_dir() else []
    return [folder for folder in folders if folder.is_dir() and folder.name not in names]


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
        study = _opened(database, name)
        for trial in study.trials() if isinstance(study, Study) else ():  # of a server: also what other hosts run
            if trial.state == TrialState.RUNNING and isinstance(study, Study) and not recovery.is_lost(study, trial):
                who = trial.user_attrs[records.OWNER]
                raise StorageError(f"study {name!r} is being run by {who['pid']} on {who['host']}: end it first")
        yield
