"""Files that command lines name to be written: nothing is replaced but what is of the same kind; all say it alike."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from search.commands.networks.predict import TABLE
from search.commands.outputs import PAGE, Kind
from search.commands.parsers import COMMANDS
from search.views.predictions import Table
from search.views.report import offline
from tests.objectives.data.images import make_folder
from tests.search.place import REPOSITORY, Done

Command = Callable[[str], Done]
FLAGS = ("--output", "--html")
# Of each command that writes a file: what names it, before there is anything to work on, and what it writes.
WRITERS: dict[str, tuple[str, Kind]] = {
    "ablate": ("ablate --study none --trial 1 -o", PAGE),
    "compare": ("compare none other -o", PAGE),
    "data": ("data none --html", PAGE),
    "predict": ("predict --model none --images none -o", TABLE),
    "report": ("report --study none -o", PAGE),
}
BY_NAME = {
    "ablate": ("none-trial-1.html", "ablate --study none --trial 1"),
    "report": ("none.html", "report --study none"),
}
THERE = {
    "database": b"SQLite format 3\0" + bytes(84),
    "study file": b'[data]\nname = "digits"\n',
    "image": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "labels": b"file,label\na.png,ant\n",
    "network": b'{"format": 6}',
    "page of others": b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>mine</title>\n',
    "page cut off": PAGE.beginnings[0][:-1],
    "table that was added to": TABLE.beginnings[0][:-1] + b",notes\n",
}
COMMAND_AND_KIND = pytest.mark.parametrize(("line", "kind"), WRITERS.values(), ids=WRITERS)


def refused(done: Done, said: str, code: int = 2) -> bool:
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
    assert said in done.err
    return True


def test_every_command_that_writes_a_file_is_held_to_these_laws() -> None:
    writers = {
        name
        for name, command in COMMANDS.items()
        for action in command.parser()._actions
        if {*action.option_strings} & {*FLAGS} and str(action.metavar).startswith("FILE")
    }
    assert writers == {*WRITERS}


@COMMAND_AND_KIND
@pytest.mark.parametrize("what", [*THERE, "another kind"])
def test_what_is_of_another_kind_stays_and_is_told_before_the_work(
    what: str, line: str, kind: Kind, tmp_path: Path, command: Command
) -> None:
    other = PAGE if kind is TABLE else TABLE
    content = other.beginnings[0] if what == "another kind" else THERE[what]
    (tmp_path / "it").write_bytes(content)
    (tmp_path / "link").symlink_to("it")
    flag = line.split()[-1]
    for name in ("it", "link", f"{tmp_path}/it"):
        assert refused(
            command(f"{line} {name}"), f"error: {flag} {name} is there already, and is no {kind.words}: name an"
        )
    assert (tmp_path / "it").read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"it", "link"}


@COMMAND_AND_KIND
def test_what_a_command_wrote_is_no_obstacle(line: str, kind: Kind, tmp_path: Path, command: Command) -> None:
    for beginning in kind.beginnings:
        (tmp_path / "it").write_bytes(beginning + b"more")
        assert "there already" not in command(f"{line} it").err
        assert (tmp_path / "it").read_bytes() == beginning + b"more"  # there is nothing to work on


@pytest.mark.parametrize(("name", "line"), BY_NAME.values(), ids=BY_NAME)
def test_a_file_that_nobody_named_replaces_nothing_else_either(
    name: str, line: str, tmp_path: Path, command: Command
) -> None:
    (tmp_path / name).write_text("mine")
    assert refused(command(line), f"{name} is there already")
    assert (tmp_path / name).read_text() == "mine"


@COMMAND_AND_KIND
def test_a_place_where_nothing_can_be_written_is_told_alike_by_all(
    line: str, kind: Kind, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("no/it")
    flag = line.split()[-1]
    assert refused(command(f"{line} folder"), f"{flag} folder is a folder: name a file in it, folder/{kind.example}")
    for name in ("no/it", "link"):
        said = f"there is no folder {tmp_path}/no: make it, or name another file with {flag}"
        assert refused(command(f"{line} {name}"), said)
    assert refused(command(f"{line} no/"), "there is no folder no/: make it")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert refused(command(f"{line} folder/it"), "error: folder/it cannot be used (Permission denied): mend that", 4)
    assert {path.name for path in tmp_path.rglob("*")} == {"folder", "link"}


def test_all_pages_and_tables_begin_as_what_may_be_replaced() -> None:
    pages = [path.read_bytes() for path in (REPOSITORY / "search" / "views").rglob("*.html")]
    policy = str(offline.trusted({})["policy"]).encode()
    whole = [page.replace(b"{{ policy }}", policy) for page in pages if page.startswith(b"<!doctype")]
    assert len(whole) >= 4
    assert all(page.startswith(PAGE.beginnings) for page in whole)
    for knows_truth, beginning in enumerate(TABLE.beginnings):
        Table(stream := io.StringIO(), knows_truth=bool(knows_truth))
        assert stream.getvalue().encode() == beginning


def test_a_page_is_written_into_an_empty_file_anew_through_a_link_and_into_a_pipe(
    tmp_path: Path, command: Command
) -> None:
    make_folder(tmp_path / "data", [5, 7])
    (tmp_path / "link.html").symlink_to("page.html")
    (tmp_path / "page.html").touch()
    assert command("data data --html page.html").code == 0
    first = (tmp_path / "page.html").read_bytes()
    make_folder(tmp_path / "data", [6], ["another"])
    assert command("data data --html link.html").code == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").read_bytes() not in (first, b"")
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert command("data data --html pipe").code == 0
    reader.join(timeout=60)
    assert read == [(tmp_path / "page.html").read_bytes()]
    assert (tmp_path / "pipe").is_fifo()
