"""The database of studies: where it is, how it is opened, what its failures mean."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import shlex
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from search.database import file, server
from search.errors import StorageError
from search.host.locks import Held, locked
from search.host.owner import this_process
from search.host.places import STUDIES

DEFAULT_URL = f"sqlite:///{STUDIES}/optuna.db"
BUSY_SECONDS = 60.0  # how long a writer waits for another one: a backup or a dashboard may hold the database
TELL_SECONDS = 300.0  # how long a finished result is tried to be told, before it is kept in a file
LOCK_SECONDS = TELL_SECONDS + 120  # how long a process waits for another one that asks or tells
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs")
FAILURES = (SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error)
# What it logs in words of Python are cursors that an interruption left open; failures are raised.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)  # likewise

T = TypeVar("T")


@dataclass(frozen=True)
class Database:
    """An open database of studies."""

    url: str  # as it was asked for
    optuna: RDBStorage
    path: Path | None = None  # of an SQLite file: where it really lies, found out once
    read_only: bool = False
    other_version: str | None = None  # why its tables are not those of this Optuna
    _mine: threading.local = field(default_factory=threading.local, repr=False, compare=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """Its URL as it may be printed."""
        return shown(self.url)

    @property
    def place(self) -> str:
        """The same for every run that uses this database on this host, wherever it was started."""
        return shown(self.optuna.url) if self.path is None else os.path.realpath(self.path)

    @property
    def folder(self) -> Path:
        """Where files that belong to the database lie: beside an SQLite file, in `studies` otherwise."""
        return STUDIES if self.path is None else self.path.parent

    @property
    def option(self) -> str:
        """What a command needs that is to use this database, where it would not by itself; begins with a blank."""
        return option(self.url)

    @property
    def networks(self) -> Path:
        """The folder of the networks of all studies."""
        if self.path is not None:
            return file.networks(self.path)
        return STUDIES / f"artifacts-{hashlib.sha256(self.place.encode()).hexdigest()[:6]}"

    def artifacts(self, study_name: str) -> Path:
        """The folder of a study's exported models; no two databases share one."""
        return self.networks / study_name

    def checkpoint(self) -> None:
        """Moves what lies beside an SQLite file into it, as far as nobody reads an older state."""
        if self.path is not None and not self.read_only:
            with suppress(*FAILURES), self.optuna.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(sqlalchemy.text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def write(self, trial_id: int, attributes: Mapping[str, object]) -> None:
        """Sets user attributes of a trial, all or none: one commit instead of one each, which cost 2 to 5 ms."""
        with _create_scoped_session(self.optuna.scoped_session, True) as session:
            for name, value in attributes.items():
                self.optuna._set_trial_attr_without_commit(
                    session, models.TrialUserAttributeModel, trial_id, name, value
                )

    def begin(self, study_id: int, template: FrozenTrial | None = None) -> int:
        """Makes a trial in one commit, a running one unless the template says otherwise; its id.

        Once: Optuna tries again by itself where the server went away, which may have made the trial before, and which
        has forgotten that this thread has the study to itself.
        """
        with _create_scoped_session(self.optuna.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            return int(self.optuna._get_prepared_new_trial(study_id, template, session).trial_id)

    @contextmanager
    def exclusive(self, study_name: str) -> Iterator[None]:
        """Lets one thread of one process ask or tell at a time, so that counts are exact and no draw is made twice.

        A thread that has it already may take it again. The processes are those of all hosts where the database is a
        PostgreSQL server's, those of this host otherwise.

        Raises:
            StorageError: another process does not let go, or the database cannot be written.
        """
        if self.read_only:
            raise StorageError(f"{self.path} {file.READ_ONLY}")
        alone = self._alone_on_server if self.optuna.engine.name == server.BACKEND else self._alone_in_file
        try:
            with alone(study_name):
                yield
        except Held as error:
            pid = error.holder.get("pid", "?")
            raise StorageError(f"process {pid} has kept study {study_name!r} locked: look what it does") from error

    def has(self, study_name: str) -> bool:
        """Whether this thread has the study to itself."""
        return getattr(self._mine, study_name, None) is not None

    @contextmanager
    def _alone_in_file(self, study_name: str) -> Iterator[None]:
        if self.has(study_name):
            yield
            return
        path = self.folder / f"study-{study_name}.lock"
        with locked(path, this_process().to_json(), LOCK_SECONDS), self._marked(study_name, path):
            yield

    @contextmanager
    def _alone_on_server(self, study_name: str) -> Iterator[None]:
        """One connection has the lock and does all that this thread wants meanwhile; it counts when it fails."""
        if self.has(study_name):
            getattr(self._mine, study_name).take(LOCK_SECONDS)  # lost, if a server that went away came back
            yield
            return
        if not self._turn.acquire(timeout=LOCK_SECONDS):  # of the threads here, one waits with a connection
            raise Held(this_process().to_json())
        try:
            with patiently(self.optuna.engine.connect) as connection:
                lock = server.Lock(connection, study_name)
                patiently(lambda: lock.take(LOCK_SECONDS))
                session = self.optuna.scoped_session()
                session.bind = connection
                try:
                    with self._marked(study_name, lock):
                        yield
                finally:
                    session.bind = self.optuna.engine
                    lock.close()
        finally:
            self._turn.release()

    @contextmanager
    def _marked(self, study_name: str, held: object) -> Iterator[None]:
        setattr(self._mine, study_name, held)
        try:
            yield
        finally:
            setattr(self._mine, study_name, None)


def url(flag: str | None, from_spec: str | None) -> str:
    """The storage URL in force: the command line, OPTUNA_STORAGE, the study file, the default."""
    if flag is not None:  # an empty word is a variable that was not set, and no default
        return flag
    return os.environ.get("OPTUNA_STORAGE") or from_spec or DEFAULT_URL


def option(storage_url: str) -> str:
    """What a command needs that is to use this database, where it would not by itself; begins with a blank."""
    return "" if storage_url == url(None, None) else f" --storage {shlex.quote(shown(storage_url))}"


def shown(storage_url: str) -> str:
    """The URL as it may be printed: without a password."""
    if file.URL.match(storage_url):
        return storage_url
    try:
        parsed = sqlalchemy.make_url(storage_url)
        if "password" in parsed.query:  # libpq reads it there as well
            parsed = parsed.update_query_dict({"password": "***"})
        return parsed.render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "(not a URL)"


def open_storage(storage_url: str, *, create: bool = True, any_version: bool = False) -> Database:
    """The database at the URL, created where there is none and `create` says so; otherwise it may be read-only.

    Raises:
        StorageError: it cannot be opened, or is no database of Optuna's; nor of this one's, without `any_version`.
    """
    path = sqlite_path(storage_url)
    try:
        database = _on_server(storage_url, create) if path is None else _in_file(storage_url, path, create)
    except Held as error:
        raise StorageError(f"process {error.holder.get('pid', '?')} keeps {path} locked: look what it does") from error
    except (*FAILURES, OSError, ImportError) as error:
        raise StorageError(failure(error, storage_url)) from error
    if database.other_version is not None and not any_version:
        raise StorageError(f"{database.shown} {database.other_version}")
    return database


def is_new(storage_url: str) -> bool:
    """Whether the URL names an SQLite file that is not there and can be made.

    Raises:
        StorageError: it is not there, and cannot be made.
    """
    path = sqlite_path(storage_url)
    if path is None or path.is_file():
        return False
    if path.is_dir():
        raise StorageError(f"{path} is a folder: name a database in it: --storage sqlite:///{path / 'optuna.db'}")
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        raise StorageError(f"{above} is no folder, but a file: name another database with --storage")
    if not path.parent.exists() and storage_url != DEFAULT_URL:  # a slip of the pen is not trained into
        raise StorageError(f"there is no folder {path.parent}: make it, or name another database with --storage")
    return True


def _in_file(storage_url: str, path: Path, create: bool) -> Database:
    if is_new(storage_url) and not create:
        raise StorageError(f"there is no database {path}: name another with --storage")
    if file.is_read_only(path):
        if create:
            raise StorageError(f"{path} {file.READ_ONLY}")
        optuna_storage = file.opened(path, BUSY_SECONDS, create=False, read_only=True)
        return Database(storage_url, optuna_storage, path, True, _other_version(optuna_storage))
    # Two processes that create one file at the same moment: without the lock one of them dies in 4 of 6 starts.
    with locked(path.with_name(path.name + ".lock"), this_process().to_json(), LOCK_SECONDS):
        optuna_storage = file.opened(path, BUSY_SECONDS, create=create)
        with optuna_storage.engine.connect() as connection:
            connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))  # readers do not block the writer
        file.adopt(path)
    return Database(storage_url, optuna_storage, path, False, _other_version(optuna_storage))


def _on_server(storage_url: str, create: bool) -> Database:
    """The database of a server; of several processes that find it empty, one makes the tables."""
    parsed = server.with_driver(sqlalchemy.make_url(storage_url))
    template = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna fills it in
    make = partial(RDBStorage, template, skip_compatibility_check=True, skip_table_creation=not create)
    if parsed.get_backend_name() != server.BACKEND:
        optuna_storage = make()
        return Database(storage_url, optuna_storage, other_version=_other_version(optuna_storage))
    options = server.engine_options(parsed)
    engine = sqlalchemy.create_engine(parsed, connect_args=options["connect_args"])
    try:
        with engine.connect() as connection, closing(server.Lock(connection, server.EVERYTHING)) as lock:
            lock.take(LOCK_SECONDS)
            optuna_storage = make(engine_kwargs=options)
    finally:
        engine.dispose()
    atexit.register(optuna_storage.engine.dispose)  # the server is told of an end in order, and so is Python
    server.wait_to_connect(optuna_storage.engine, lambda connect, error: patiently(connect, BUSY_SECONDS, (error,)))
    return Database(storage_url, optuna_storage, other_version=_other_version(optuna_storage))


def _other_version(optuna_storage: RDBStorage) -> str | None:
    """Why the tables are not those of this Optuna, with the way out; None where they are."""
    versions = optuna_storage._version_manager
    found, ours = versions.get_current_version(), versions.get_head_version()
    if found == ours:
        return None
    if found in versions.get_all_versions():
        return (
            f"is of an older Optuna (tables {found}, not {ours}): copy it, then: optuna storage upgrade --storage URL"
        )
    return f"is of another Optuna (tables {found}, not {ours}): use the frontrunner that made it, or begin another"


def failure(error: BaseException, storage_url: str) -> str:
    """What a failure of the database means, and the way out, in one line without a password."""
    lines = str(error.__cause__ or error).splitlines()
    said = _without_password(lines[0] if lines else type(error).__name__, storage_url)
    path = sqlite_path(storage_url)
    place = shown(storage_url) if path is None else str(path)
    if "disk is full" in said or "No space left" in said or "disk I/O error" in said:
        return f"no space on {place} ({said}): make room, then the same command goes on"
    if "no such table: version_info" in said or 'relation "version_info" does not exist' in said:
        return f"{place} holds no studies: name another with --storage"
    if "not a database" in said or "malformed" in said:
        way_out = "restore a copy of it, move it away, or choose another with --storage"
        return f"{place} is no database, or a damaged one ({said}): {way_out}"
    if path is None and is_busy(error):
        return f"the server of {place} does not answer ({said}): start it, then the same command goes on"
    if is_busy(error):
        return (
            f"{place} has been locked by another program for {BUSY_SECONDS:g} s: end it, then the same command goes on"
        )
    return f"the storage {shown(storage_url)} cannot be used ({said}): mend it, or choose another with --storage"


def is_busy(error: BaseException) -> bool:
    """Whether a failure of the database may pass: another program holds it, or its server is away."""
    said = f"{error} {error.__cause__}"
    return "database is locked" in said or "database table is locked" in said or server.is_passing(error)


def _without_password(text: str, storage_url: str) -> str:
    try:
        parsed = sqlalchemy.make_url(storage_url)
    except SQLAlchemyError:
        return text.replace(storage_url, shown(storage_url))
    text = text.replace(storage_url, shown(storage_url))
    for password in filter(None, (parsed.password, parsed.query.get("password"))):
        text = text.replace(str(password), "***")
    return text


def patiently(
    action: Callable[[], T], seconds: float | None = None, failures: tuple[type[Exception], ...] = FAILURES
) -> T:
    """What the action returns, tried again while the database is held by another program, or its server is away.

    Raises:
        One of `failures`: it still fails after so many seconds, or for another reason.
    """
    deadline = time.monotonic() + (TELL_SECONDS if seconds is None else seconds)
    pause = 0.1
    while True:
        try:
            return action()
        except failures as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def on_network_file_system(storage_url: str, mounts: str | None = None) -> str | None:
    """A warning where an SQLite file lies on a network file system, whose locks SQLite cannot rely on; else None.

    `mounts` is the text of /proc/mounts.
    """
    path = sqlite_path(storage_url)
    if path is None:
        return None
    kind = file_system(path, os.fsdecode(Path("/proc/mounts").read_bytes()) if mounts is None else mounts)
    if not kind.startswith(NETWORK_FILE_SYSTEMS):
        return None
    return (
        f"{path} lies on a network file system ({kind}): SQLite's locks are not safe there; "
        "use a local disk or a database server with --storage"
    )


def file_system(path: Path, mounts: str) -> str:
    """The kind of file system that a path lies on: that of the longest mount point above it."""
    here = path.absolute()
    best, kind = -1, "unknown"
    for line in mounts.split("\n"):
        if len(fields := line.split(" ")) < 3:
            continue
        point, found = fields[1:3]
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)  # a blank is written \040
        if here.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found
    return kind


def sqlite_path(storage_url: str) -> Path | None:
    """The file of an SQLite URL, behind all links; None for other databases.

    Raises:
        StorageError: not a URL, or none of a file.
    """
    if (path := file.real_path(storage_url)) is not None:
        return path
    try:
        sqlalchemy.make_url(storage_url)
    except SQLAlchemyError as error:
        raise StorageError(f"the storage is not an SQLAlchemy URL, e.g. {DEFAULT_URL}") from error
    return None
