"""A PostgreSQL server as the database: its driver, connections that outlive a restart, locks among all its hosts."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from search.errors import StorageError
from search.host.locks import Held

BACKEND = "postgresql"
DRIVERS = ("psycopg", "psycopg2")  # the first one that is installed is used; the extra `postgres` has the first
EVERYTHING = ""  # the name of the lock for making tables; no study is named so
POOL_SIZE = 2  # connections that a process keeps: one that asks and tells, one that beats
SECONDS = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
# The server, too, looks whether a silent client still lives: a host without power would keep its lock for two hours.
KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
LOCK_TIMEOUT = "55P03"  # SQLSTATE
# It may pass: a server that stops, starts or recovers, a failover, a network that is away for a moment, a deadlock.
PASSING = (
    *("Connection refused", "No such file or directory", "is starting up", "shutting down", "in recovery mode"),
    *("not yet accepting connections", "terminating connection", "server closed the connection", "SSL SYSCALL"),
    *("too many clients", "connection slots are reserved", "connection is lost", "connection is closed"),
    *("timeout expired", "Connection reset", "Network is unreachable", "No route to host"),
    *("Broken pipe", "deadlock detected", "could not serialize", "connection already closed"),
    "Can't reconnect until invalid transaction",  # Optuna reads once more within a transaction that was lost
)


def with_driver(url: URL) -> URL:
    """The URL of a PostgreSQL server with a driver that is installed; other URLs as they are.

    Raises:
        StorageError: none is installed.
    """
    if url.drivername not in ("postgres", BACKEND):
        return url
    for driver in DRIVERS:
        if importlib.util.find_spec(driver) is not None:
            return url.set(drivername=f"{BACKEND}+{driver}")
    raise StorageError(
        f"{url.render_as_string(hide_password=True)} needs a driver of PostgreSQL, and none is installed: "
        "pip install -c constraints.txt -e '.[postgres]'"
    )


def engine_options(url: URL) -> dict[str, Any]:
    """What the engine of a server is made with; what the URL says itself, it may say."""
    about: Mapping[str, object] = {**SECONDS, "application_name": signature(), "options": KEEPALIVES}
    asked = {name: value for name, value in about.items() if name not in url.query}
    return {"connect_args": asked, "pool_pre_ping": True, "pool_size": POOL_SIZE}


def signature() -> str:
    """This process as the server lists it, in at most 63 bytes."""
    return f"frontrunner {os.getpid()} on {socket.gethostname()[:30]}"


def wait_to_connect(engine: Engine, patiently: Callable[[Callable[[], object], type[Exception]], object]) -> None:
    """Has connections made by `patiently(connect, error)`: a server that is away is waited for, as a locked file is."""

    def connect(dialect: Any, record: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> object:
        return patiently(lambda: dialect.connect(*arguments, **options), dialect.dbapi.Error)

    sqlalchemy.event.listen(engine, "do_connect", connect)


def is_passing(error: BaseException) -> bool:
    """Whether a failure of the server may pass."""
    chain = [each for each in (error, error.__cause__, error.__context__) if each is not None]
    if any(isinstance(each, sqlalchemy.exc.TimeoutError) for each in chain):  # every connection of the pool waits
        return True
    if any(isinstance(each, DBAPIError) and each.connection_invalidated for each in chain):
        return True
    said = " ".join(str(each.orig) if isinstance(each, DBAPIError) else str(each) for each in chain)
    return any(words in said for words in PASSING)


class Lock:
    """A lock among all processes that use a server, held by a connection; the server frees it when that ends.

    Who has it sends all that belongs to it through `connection`: when the server forgets the lock, that fails as well,
    so that nothing is done by two at once.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection, self._name = connection, name
        digest = hashlib.sha256(f"frontrunner {name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)
        self._session: object = None  # of the server that has the lock

    def take(self, seconds: float) -> None:
        """Waits for the lock; where it was lost with its connection, for another one.

        Raises:
            Held: somebody else had it for all of the time.
        """
        if self._session is self.connection.connection.dbapi_connection:
            return
        try:
            with self.connection.begin():
                self._run(f"SET LOCAL lock_timeout = {round(1000 * seconds)}")
                self._run("SELECT pg_advisory_lock(:key)", key=self._key)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", getattr(error.orig, "pgcode", None)) != LOCK_TIMEOUT:
                raise
            raise Held({"pid": self._holder()}) from error
        self._session = self.connection.connection.dbapi_connection

    def close(self) -> None:
        """Gives it back; a connection that cannot say so is given up, and the lock with it."""
        try:
            with self.connection.begin():
                self._run("SELECT pg_advisory_unlock(:key)", key=self._key)
        except BaseException as error:
            self.connection.invalidate()
            if not isinstance(error, SQLAlchemyError):
                raise

    def _holder(self) -> str:
        halves = {"high": (self._key >> 32) & 0xFFFFFFFF, "low": self._key & 0xFFFFFFFF}
        with self.connection.begin():
            found = self._run(
                "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' "
                "AND granted AND classid::bigint = :high AND objid::bigint = :low",
                **halves,
            )
        return str(found).removeprefix("frontrunner ") if found else "?"

    def _run(self, statement: str, **values: object) -> object:
        result = self.connection.execute(sqlalchemy.text(statement), values)
        return result.scalar() if result.returns_rows else None
