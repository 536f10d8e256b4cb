"""Shows studies in a browser: frontrunner dashboard --study NAME. A copy is served, on this machine only.

First our own page of the study, as `frontrunner report` writes it; behind it optuna-dashboard, which has no login and
can delete studies: it never gets the database.
"""

from __future__ import annotations

import argparse
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
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from search.commands.exits import exit_code
from search.database import file, storage
from search.database.storage import Database
from search.errors import StorageError, UsageError
from search.study import opening

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
        host = _named(environ.get("HTTP_HOST", ""))
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refused("405 Method Not Allowed", "this is a read-only copy", start_response)
        if host not in (LOOPBACK, "localhost"):  # a page elsewhere whose name was made to point here
            return _refused("403 Forbidden", "served on this machine only", start_response)
        return application(environ, start_response)

    return guarded


def with_page(application: WSGIApplication, page: Callable[[], str]) -> WSGIApplication:
    """The application, with a page of ours where a browser begins."""

    def led(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") not in ("", "/"):
            return application(environ, start_response)
        try:
            text = page()
        except (StorageError, *opening.UNREADABLE, *storage.FAILURES) as error:
            return _refused("503 Service Unavailable", f"the page cannot be made now: {error}", start_response)
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")])
        return [text.encode("utf-8", "replace")]

    return led


def _page(study: optuna.Study, database: Database, behind: str) -> str:
    """The page of the study as it is now. Making it takes a second, of a thousand trials three."""
    from search.views.report.page import page

    return page(opening.seen(study.study_name, database), behind=behind)


def _named(host: str) -> str | None:
    """The name in a Host header, which has no port where that is the protocol's own."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def copy(source: Path, target: Path) -> None:
    """Copies a database as of one moment, whoever writes to it meanwhile."""
    with (
        closing(file.connect(source, 60, read_only=True)) as database,
        closing(sqlite3.connect(target, timeout=60)) as snapshot,
    ):
        database.backup(snapshot)


def copy_from_server(name: str, database: Database, target: Path) -> None:
    """Copies a study of a database server into an SQLite file."""
    with tempfile.TemporaryDirectory(prefix="frontrunner-dashboard-") as folder:
        path = Path(folder) / "copy.db"
        fresh = file.opened(path, 60, create=True)
        try:
            optuna.copy_study(from_study_name=name, from_storage=database.optuna, to_storage=fresh)
        finally:
            fresh.engine.dispose()
        copy(path, target)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of every request."""


def _serve(name: str, url: str, port: int) -> int:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = storage.open_storage(url, create=False)
    study = opening.loaded(name, database)  # also one that this version does not understand
    try:
        from optuna_dashboard import wsgi
    except ModuleNotFoundError as error:
        raise UsageError("optuna-dashboard is not installed: pip install optuna-dashboard") from error
    with _folder() as folder:
        path, snapshot = database.path, Path(folder) / "copy.db"
        renew = partial(copy_from_server, name, database, snapshot) if path is None else partial(copy, path, snapshot)
        renew()
        study_id = study._study_id if path is not None else 1  # the only one of its copy
        behind = f"/dashboard/studies/{study_id}"
        shown = with_page(wsgi(file.opened(snapshot, 60, create=False)), partial(_page, study, database, behind))
        application = read_only(shown)
        try:
            server = make_server(LOOPBACK, port, application, _Server, _Silent)
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} cannot be used ({error}): choose another with --port") from error
        with server:
            at = f"http://{LOOPBACK}:{server.server_port}"
            print(f"{at}/  (its front and what led there; Ctrl-C ends it)")
            print(f"{at}{behind}  (every trial: a read-only copy, renewed every {REFRESH:.0f} s)", flush=True)
            ended = threading.Event()
            threading.Thread(target=_renew, args=(renew, ended), daemon=True).start()
            try:
                server.serve_forever()
            finally:
                ended.set()
    return 0


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the copy."""
    try:
        return tempfile.TemporaryDirectory(prefix="frontrunner-dashboard-")
    except OSError as error:
        raise StorageError(
            f"there is no room for a copy ({error}): set TMPDIR to a folder that can be written"
        ) from error


def _renew(again: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(REFRESH):
        try:
            again()
        except (sqlite3.Error, *storage.FAILURES) as error:
            print(f"the copy could not be renewed: {type(error).__name__}", file=sys.stderr)


def _refused(status: str, why: str, start_response: StartResponse) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain")])
    return [why.encode("utf-8", "replace")]
