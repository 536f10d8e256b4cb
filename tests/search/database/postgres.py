"""A PostgreSQL server of its own for a test: made from Debian's package in a temporary folder, ended with it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.search.place import PATIENCE

PASSWORD = "canary"  # never to be printed


class NotInstalled(Exception):
    """There is no server to be started here; says what is missing."""


class Server:
    """A server in a folder, on loopback, with durable commits unless `durable` says otherwise."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._folder, self._data, self._programs = folder, folder / "data", programs()
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        word = folder / "password"
        word.write_text(PASSWORD)
        if not os.getuid():
            shutil.chown(folder, owner())
            shutil.chown(word, owner())
        self._call("initdb", "-N", "-D", str(self._data), "-U", "u", "-A", "scram-sha-256", f"--pwfile={word}")
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": folder}
        settings |= {"shared_buffers": "32MB", "fsync": "on" if durable else "off"}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [*_as_owner(), "--pdeathsig", "INT", str(self._programs / "postgres"), "-D", str(self._data)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + PATIENCE
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it: SIGINT ends all sessions in order, SIGQUIT at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=PATIENCE)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"d{secrets.token_hex(4)}"
        self.say(f"CREATE DATABASE {name}")
        return f"postgresql://u:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def say(self, statement: str, database: str = "postgres") -> str:
        """What the server answers to a statement."""
        words = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "u", "-d", database, "-Atc", statement)
        return self._call("psql", "-X", *words, PGPASSWORD=PASSWORD)

    def _call(self, program: str, *words: str, **environment: str) -> str:
        command = [*_as_owner(), str(self._programs / program), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self._folder, env=os.environ | environment
        )
        assert not done.returncode, done.stderr
        return done.stdout


@contextmanager
def running(*, durable: bool = True) -> Iterator[Server]:
    """A server that runs until the block ends, or this process does.

    Raises:
        NotInstalled: it cannot.
    """
    programs()
    with tempfile.TemporaryDirectory(prefix="frontrunner-postgres-") as folder:
        server = Server(Path(folder), durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def programs() -> Path:
    """Where the programs of the server are.

    Raises:
        NotInstalled: they are not, or there is nobody to run them as.
    """
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))]
    if (found := shutil.which("initdb")) is not None:
        places.insert(0, Path(found).resolve().parent)
    for place in places:
        if all((place / name).exists() for name in ("initdb", "postgres", "psql", "pg_isready")):
            break
    else:
        raise NotInstalled("PostgreSQL is not installed: apt-get install postgresql")
    if shutil.which("setpriv") is None:
        raise NotInstalled("setpriv (util-linux) is not installed")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise NotInstalled("psycopg is not installed: pip install -c constraints.txt -e '.[postgres]'") from error
    return place


def owner() -> str:
    """Who runs the server where root would: it refuses root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _as_owner() -> list[str]:
    if os.getuid():
        return ["setpriv"]
    group = str(pwd.getpwnam(owner()).pw_gid)
    return ["setpriv", "--reuid", owner(), "--regid", group, "--clear-groups"]
