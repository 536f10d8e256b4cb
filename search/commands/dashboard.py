"""Shows studies in a browser: frontrunner dashboard --study NAME. A copy is served, on this machine only.

optuna-dashboard itself has no login and can delete studies: it never gets the database.
"""

from __future__ import annotations

import argparse
import signal
import socketserver
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import RDBStorage

from search.commands.exits import exit_code
from search.database import storage
from search.errors import UsageError
from search.study import opening
from search.study.study import Study

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK = "127.0.0.1"
REFRESH = 10.0  # seconds between two copies


def perform(options: argparse.Namespace) -> int:
    """Serves until it is interrupted."""
    url = storage.url(options.storage, None)
    return exit_code(lambda: _serve(options.study, url, options.port), url)


def read_only(application: WSGIApplication) -> WSGIApplication:
    """The application without what changes anything, and for browsers that asked for this machine by its own name."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").rpartition(":")[0]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refused("405 Method Not Allowed", "this is a read-only copy", start_response)
        if host not in (LOOPBACK, "localhost"):  # a page elsewhere whose name was made to point here
            return _refused("403 Forbidden", "served on this machine only", start_response)
        return application(environ, start_response)

    return guarded


def copy(source: Path, target: Path) -> None:
    """Copies a database as of one moment, whoever writes to it meanwhile."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as database,
        closing(sqlite3.connect(target, timeout=60)) as snapshot,
    ):
        database.backup(snapshot)


def copy_from_server(study: Study, target: Path) -> None:
    """Copies a study of a database server into an SQLite file."""
    with tempfile.TemporaryDirectory(prefix="frontrunner-dashboard-") as folder:
        fresh = RDBStorage(f"sqlite:///{folder}/copy.db")
        try:
            optuna.copy_study(from_study_name=study.name, from_storage=study.database.optuna, to_storage=fresh)
        finally:
            fresh.engine.dispose()
        copy(Path(folder) / "copy.db", target)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of every request."""


def _serve(name: str, url: str, port: int) -> int:
    path = storage.sqlite_path(url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = opening.stored(name, storage.open_storage(url, create=False))
    try:
        from optuna_dashboard import wsgi
    except ModuleNotFoundError as error:
        raise UsageError("optuna-dashboard is not installed: pip install optuna-dashboard") from error
    with tempfile.TemporaryDirectory(prefix="frontrunner-dashboard-") as folder:
        snapshot = Path(folder) / "copy.db"
        renew = partial(copy, path, snapshot) if path is not None else partial(copy_from_server, study, snapshot)
        renew()
        study_id = study.optuna._study_id if path is not None else 1  # the only one of its copy
        application = read_only(wsgi(f"sqlite:///{snapshot}"))
        try:
            server = make_server(LOOPBACK, port, application, _Server, _Silent)
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} cannot be used ({error}): choose another with --port") from error
        with server:
            at = f"http://{LOOPBACK}:{server.server_port}/dashboard/studies/{study_id}"
            print(f"{at}  (a read-only copy, renewed every {REFRESH:.0f} s; Ctrl-C ends it)", flush=True)
            ended = threading.Event()
            threading.Thread(target=_renew, args=(renew, ended), daemon=True).start()
            for interruption in (signal.SIGINT, signal.SIGTERM):  # a shell starts what is in the background without
                signal.signal(interruption, signal.default_int_handler)
            try:
                server.serve_forever()
            finally:
                ended.set()
    return 0


def _renew(again: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(REFRESH):
        try:
            again()
        except (sqlite3.Error, *storage.FAILURES) as error:
            print(f"the copy could not be renewed: {type(error).__name__}", file=sys.stderr)


def _refused(status: str, why: str, start_response: StartResponse) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain")])
    return [why.encode()]
