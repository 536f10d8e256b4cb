"""Looks for what is wrong around a study: frontrunner doctor --study NAME; --fix mends what can be mended."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import sqlalchemy
from optuna.storages._rdb.models import BaseModel
from optuna.trial import TrialState

from objectives.host import durable
from objectives.words import counted, some
from search.commands.exits import exit_code
from search.database import disk, file, server, storage
from search.database.storage import Database
from search.errors import Foreign, StorageError
from search.host import devices
from search.host.called import command
from search.host.owner import Owner
from search.study import opening, records, recovery, results
from search.study.study import Study
from search.workers import template

LEAST_FREE = 500_000_000  # bytes
ZONES = timedelta(hours=26)  # from UTC-12 to UTC+14: times are stored as the clock on the wall said
TROUBLE = 1  # exit code: something is wrong and was not mended


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    what: str
    trouble: bool = False
    mend: Callable[[], object] | None = None  # what --fix does


def perform(options: argparse.Namespace) -> int:
    """Prints what it finds; 0 when all is well or mended, 1 when it is not, 2 usage, 4 storage."""
    url = storage.url(options.storage, None)
    return exit_code(lambda: _examine(options.study, url, fix=options.fix), url)


def findings(name: str, url: str) -> Iterator[Finding]:
    """What can be said about a study, its database, its device and this host.

    Raises:
        StorageError, UsageError: there is no such database or study.
    """
    yield from _integrity(url)
    database = storage.open_storage(url, create=False)
    if database.read_only:
        yield Finding("database", f"{database.path} {file.READ_ONLY}", trouble=True)
    try:
        study = opening.stored(name, database)
    except Foreign as foreign:
        yield Finding("study", f"{foreign}: nothing more can be said of it", trouble=True)
    else:
        if changed := opening.changes(study):
            yield Finding("study", f"cannot be gone on with by this version: {'; '.join(changed)}", trouble=True)
        if database.path is None:
            yield from _server(study)
        yield from _leases(study)
        yield from _files(study)
        yield from _clock(study)
    yield from _locks()
    yield from _processes()
    yield from _space(database)
    yield from _gpus()


def _examine(name: str, url: str, *, fix: bool) -> int:
    left = 0
    for finding in findings(name, url):
        mark = "ok  "
        if finding.trouble:
            mark = "MEND" if finding.mend is not None else "BAD "
            if finding.mend is not None and fix:
                finding.mend()
                mark = "done"
            left += mark != "done"
        print(f"{mark} {finding.subject:<10} {finding.what}")
    if left:
        print(f"{left} to see to" + ("" if fix else "; --fix does what is marked MEND"))
    return TROUBLE if left else 0


def _integrity(url: str) -> Iterator[Finding]:
    path = storage.sqlite_path(url)
    if path is None:
        return
    if storage.is_new(url):
        raise StorageError(f"there is no database {path}: name another with --storage")
    try:
        with closing(file.connect(path, 10, read_only=True)) as database:
            said = [row[0] for row in database.execute("PRAGMA integrity_check(5)")]
            have = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise StorageError(storage.failure(error, url)) from error
    lost = sorted(BaseModel.metadata.tables.keys() - have) if have else []
    if lost and said == ["ok"]:
        yield Finding("database", f"{path}: without its tables {some(lost)}: restore a copy", trouble=True)
    elif said != ["ok"]:
        way_out = f"sqlite3 {shlex.quote(str(path))} .recover | sqlite3 recovered.db"
        yield Finding("database", f"{path}: {'; '.join(said)}: restore a copy, or try: {way_out}", trouble=True)
    else:
        yield Finding("database", f"{path}: whole, {disk.words(disk.database_bytes(url))}")
    if (warning := storage.on_network_file_system(url)) is not None:
        yield Finding("database", warning, trouble=True)


def _server(study: Study) -> Iterator[Finding]:
    """What a client can tell of a server: that it answers, and that the study's trials can be read and are all there.

    Damaged pages are the server's to find: with checksums it does, without them nobody does.
    """
    numbers = [trial.number for trial in study.trials()]
    where = study.database.shown
    if numbers != list(range(len(numbers))):
        what = f"{where}: the numbers of the trials have gaps or come twice: restore a backup"
        yield Finding("database", what, trouble=True)
        return
    checked = "page checksums not known"
    if study.database.optuna.engine.name == server.BACKEND:
        with study.database.optuna.engine.connect() as connection:
            checksums = connection.execute(sqlalchemy.text("SHOW data_checksums")).scalar()
            n_bytes = connection.execute(sqlalchemy.text("SELECT pg_database_size(current_database())")).scalar()
        checked = f"page checksums {checksums}, {disk.words(n_bytes)}"
    yield Finding(
        "database", f"{where}: answers, {counted(len(numbers), 'trial')} read and numbered without a gap; {checked}"
    )


def _leases(study: Study) -> Iterator[Finding]:
    for path, result in results.kept(study.untold):
        what = f"the result of trial {result.trial} was never told: {path}"
        yield Finding("results", what, trouble=True, mend=partial(recovery.recover, study))
    running = [trial for trial in study.trials() if trial.state == TrialState.RUNNING]
    for trial in running:
        plain = trial.user_attrs.get(records.OWNER)
        owner = Owner.from_json(plain) if plain is not None else None
        if recovery.is_lost(study, trial):
            what = f"trial {trial.number} is RUNNING, but its process is gone: it would be failed and queued again"
            yield Finding("leases", what, trouble=True, mend=partial(recovery.recover, study))
        elif owner is not None:
            yield Finding("leases", f"trial {trial.number} is run by process {owner.pid} on {owner.host}")
    if not running:
        yield Finding("leases", "no trial is running")


def _files(study: Study) -> Iterator[Finding]:
    now, networks = study.snapshot(), study.networks
    if strays := networks.strays(now.kept):
        what = f"{counted(len(strays), 'folder')} that nothing names, e.g. {strays[0]}: would be removed"
        yield Finding("files", what, trouble=True, mend=study.collect)
    for point in now.front:
        folder = networks.of(point.trial)
        if damaged := durable.damaged(folder):
            what = f"{folder}: {', '.join(damaged)} damaged or missing; its trial has to be run again to have it back"
            yield Finding("files", what, trouble=True)
    if study.database.path is not None and (disputed := file.disputed(study.database.path)) is not None:
        others = ", ".join(file.rivals(study.database.path))
        what = f"{disputed} was shared with {others}: move what belongs to this study to {networks.folder}"
        yield Finding("files", what, trouble=True)
    yield Finding("files", f"{networks.folder}: {disk.words(disk.folder_bytes(networks.folder))}")


def _locks() -> Iterator[Finding]:
    held = devices.held_devices()
    for name, who in held.items():
        what = f"{name.replace('-', ':')} is held by process {who.get('pid')} for study {who.get('study')!r}"
        yield Finding("devices", what)
    if not held:
        yield Finding("devices", "none is held")


def _processes() -> Iterator[Finding]:
    for pid in template.strays():
        yield Finding("processes", f"{pid} trains for nobody: would be killed", trouble=True, mend=partial(_kill, pid))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _space(database: Database) -> Iterator[Finding]:
    free = disk.free_bytes(database.folder)
    what = f"{disk.words(free)} are free where {database.networks} is"
    if free < LEAST_FREE:
        what += f": {command('studies')}{database.option} disk says what takes the space"
        yield Finding("disk", what, trouble=True)
    else:
        yield Finding("disk", what)


def _gpus() -> Iterator[Finding]:
    if not devices.n_gpus():
        yield Finding("GPU", "there is none")
        return
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Finding("GPU", "nvidia-smi is not installed: its state is not known", trouble=True)
        return
    asked = [program, "--query-gpu=index,name,driver_version,temperature.gpu", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        yield Finding("GPU", "nvidia-smi does not answer: reset the GPU or reboot", trouble=True)
        return
    for line in (done.stdout or done.stderr).splitlines():
        yield Finding("GPU", line, trouble=done.returncode != 0)


def _clock(study: Study) -> Iterator[Finding]:
    times = [time for trial in study.trials() for time in (trial.datetime_start, trial.datetime_complete) if time]
    now = datetime.now()
    if times and max(times) > now + ZONES:
        what = f"the clock says {now:%F %T}, but a trial is of {max(times):%F %T}: set it; seconds are not affected"
        yield Finding("clock", what, trouble=True)
    else:
        yield Finding("clock", f"{now:%F %T}, no trial is of a later day")
