"""The database of studies: where it is, how it is opened, who may run a study in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from search.errors import StorageError
from search.spec import STUDIES

DEFAULT_URL = f"sqlite:///{STUDIES}/optuna.db"
BUSY_SECONDS = 60  # how long a writer waits for another one: a backup or a dashboard may hold the database


def url(flag: str | None, from_spec: str | None) -> str:
    """The storage URL in force: the command line, OPTUNA_STORAGE, the study file, the default."""
    return flag or os.environ.get("OPTUNA_STORAGE") or from_spec or DEFAULT_URL


def shown(storage_url: str) -> str:
    """The URL as it may be printed: without a password."""
    try:
        return sqlalchemy.make_url(storage_url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "(not a URL)"


def folder(storage_url: str) -> Path:
    """Where files that belong to the database lie: beside an SQLite file, in `studies` otherwise."""
    path = _sqlite_path(storage_url)
    return path.parent if path is not None else STUDIES


def artifacts(storage_url: str, study_name: str) -> Path:
    """The folder of a study's exported models; no two databases share one."""
    path = _sqlite_path(storage_url)
    digest = hashlib.sha256(shown(storage_url).encode()).hexdigest()[:6]
    database = "" if path is not None and path.name == "optuna.db" else f"-{path.stem if path is not None else digest}"
    return folder(storage_url) / f"artifacts{database}" / study_name


def open_storage(storage_url: str) -> RDBStorage:
    """The storage at the URL, created where there is none.

    Raises:
        StorageError: it cannot be opened, or is no database of Optuna's.
    """
    path = _sqlite_path(storage_url)
    try:
        if path is None:
            return RDBStorage(storage_url)
        # Two processes that create one file at the same moment: without the lock one of them dies in 4 of 6 starts.
        with _locked(path.with_name(path.name + ".lock"), wait=True):
            storage = RDBStorage(storage_url, engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}})
            with storage.engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))  # readers do not block the writer
        return storage
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError, ImportError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise StorageError(
            f"the storage {shown(storage_url)} cannot be used ({cause}): choose another with --storage"
        ) from error


@contextmanager
def held(study_name: str, storage_url: str) -> Iterator[None]:
    """Holds the right to run the study from this host until the block ends, or the process does.

    Raises:
        StorageError: another process of this host holds it.
    """
    path = folder(storage_url) / f"study-{study_name}.lock"
    with _locked(path, wait=False) as file:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[FileIO]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror}): choose another place with --storage"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace") or "another process"
            raise StorageError(
                f"{path.stem} is being run by process {holder}: wait for it, or end it with: kill {holder}"
            ) from None
        yield file


def _sqlite_path(storage_url: str) -> Path | None:
    """The file of an SQLite URL; None for other databases.

    Raises:
        StorageError: not a URL.
    """
    try:
        parsed = sqlalchemy.make_url(storage_url)
    except SQLAlchemyError as error:
        raise StorageError(f"the storage is not an SQLAlchemy URL, e.g. {DEFAULT_URL}") from error
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise StorageError(f"a study needs a database that outlives the process, e.g. {DEFAULT_URL}")
    return Path(parsed.database)
