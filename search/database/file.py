"""An SQLite file as the database: where it really lies, connections to it, what lies beside it.

No path is ever pasted into a URL: `%20`, `?` and `#` are ordinary characters of a file's name.
"""

from __future__ import annotations

import os
import re
import sqlite3
from functools import partial
from pathlib import Path

from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy.pool import QueuePool

from search.errors import StorageError

URL = re.compile(r"sqlite(\+\w+)?://(/(?P<path>.*))?", re.DOTALL)
COMMON = "optuna.db"  # the name of the default database, whose networks lie in `artifacts`
MAGIC = b"SQLite format 3\0"  # SQLite's file format, section 1.3
BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database, after its name
READ_ONLY = "is read-only here: copy it to where you may write, or name another with --storage"


def real_path(storage_url: str) -> Path | None:
    """The file of an SQLite URL, behind links the one that they lead to, so that all its names are one; else None.

    Raises:
        StorageError: the URL names no file.
    """
    if not (found := URL.match(storage_url)):
        return None
    if found["path"] in (None, "", ":memory:"):
        raise StorageError("a study needs a database that outlives the process, e.g. sqlite:///studies/optuna.db")
    if options := re.search(r"\?[a-z_]+=.*", found["path"]):
        raise StorageError(f"the options {options[0]!r} of a URL of SQLite are not supported: leave them out")
    try:
        here, real = os.path.join(os.getcwd(), found["path"]), os.path.realpath(found["path"])
    except OSError as error:
        raise StorageError(f"the working directory is gone ({error.strerror}): go to one that exists") from error
    return Path(found["path"] if here == real else real)


def is_read_only(path: Path) -> bool:
    """Whether a database that exists cannot be written: SQLite also writes beside it."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def connect(path: Path, seconds: float, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection, for one thread at a time, that waits so long for a lock.

    SQLite reads a database in WAL mode by way of files beside it. Where those cannot be made and nobody else has made
    them, nobody writes, and the database is read as it lies there.

    Raises:
        StorageError: part of it lies in a log that cannot be read without writing.
    """
    where: Path | str = path
    if read_only:
        log, index = (path.with_name(path.name + end) for end in BESIDE[:2])
        if is_read_only(path) and log.exists() and not index.exists():
            raise StorageError(f"{path} cannot be read without writing: copy it and {log} to where you may write")
        nobody_writes = is_read_only(path) and not log.exists()
        where = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if nobody_writes else ''}"
    return sqlite3.connect(where, uri=read_only, timeout=seconds, check_same_thread=False)


def opened(path: Path, seconds: float, *, create: bool, read_only: bool = False) -> RDBStorage:
    """The file as a storage of Optuna's; its tables are made where there are none and `create` says so.

    Raises:
        StorageError: it is another program's.
    """
    connection = connect(path, seconds, read_only=read_only)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        connection.close()
    ours = {*models.BaseModel.metadata.tables, "alembic_version"}
    if (tables or not create) and not tables & ours:
        raise StorageError(f"{path} holds no studies: name another with --storage")
    options = {"creator": partial(connect, path, seconds, read_only=read_only), "poolclass": QueuePool}
    made = "alembic_version" in tables  # the last of them
    return RDBStorage(
        "sqlite://",  # of the dialect alone
        engine_kwargs=options,
        skip_compatibility_check=True,
        skip_table_creation=made or not create,
    )


def networks(path: Path) -> Path:
    """The folder of all networks of a database's studies; no two databases share one."""
    own, before = _own(path), _before(path)
    return before if not own.exists() and before.is_dir() and not rivals(path) else own


def adopt(path: Path) -> None:
    """Gives the folder of networks the name that it has today.

    Until 0.1 it was named without the suffix of the database, and x.db shared it with x.sqlite3. Then nobody can tell
    whose a network is: it stays where it is, for the doctor to point out.
    """
    found = networks(path)
    if found != _own(path):
        found.rename(_own(path))


def disputed(path: Path) -> Path | None:
    """The folder of networks that was shared with another database; None where there is none."""
    before = _before(path)
    return before if before != _own(path) and before.is_dir() and rivals(path) else None


def rivals(path: Path) -> list[str]:
    """Names of the other databases that may have put networks into the folder of today's or yesterday's name."""
    before, found = _before(path), []
    for other in sorted(path.parent.iterdir()):
        alike = other.stem == path.stem and other.name not in (path.name, COMMON)
        if alike and _is_database(other) and not (_own(other) != before and _own(other).exists()):
            found.append(other.name)
    return found


def _own(path: Path) -> Path:
    return path.parent / ("artifacts" if path.name == COMMON else f"artifacts-{path.name}")


def _before(path: Path) -> Path:
    return path.parent / ("artifacts" if path.name == COMMON else f"artifacts-{path.stem}")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
