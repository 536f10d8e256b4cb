"""The commands that show data and the cache of their images: as a table, as JSON, as a page; whatever names say."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from objectives.data.card import examine
from objectives.task import DataSpec
from search.views import card as view
from tests.objectives.data.images import make_folder
from tests.search.place import Done

Command = Callable[[str], Done]
EVIL = "<img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder with markup wherever a stranger can put some; '/' is none of a name."""
    return make_folder(tmp_path / "data", [5, 7], [EVIL, "{{ 7 * 7 }}"])


def test_a_folder_is_shown_in_a_table(evil: Path, command: Command) -> None:
    done = command("data data")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "folder:data: 2 classes, 12 images to train"
    assert f"    5  41.7%  {EVIL}" in lines
    assert "  train at   4 pixels a side, in grey" in lines


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_card_fits_any_terminal_and_loses_nothing(width: int, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [3, 40], ["ant", "bee"])
    (folder / "ant" / "x.png").write_text("no image")
    card = replace(examine(DataSpec(f"folder:{folder}")), name="folder:data")
    lines = view.lines(card, width)
    assert max(map(len, lines)) <= width
    said = " ".join(" ".join(lines).split())
    assert all(warning in said for warning in card.warnings)
    assert "classes are uneven: ant has 3 images, bee 40" in said


@pytest.mark.parametrize("words", ["data", "folder:data", "./data"])
def test_a_folder_may_be_called_as_a_run_calls_it(words: str, evil: Path, command: Command) -> None:
    card = json.loads(command(f"data {words} --json").out)
    assert (card["n_train"], card["size"]) == (12, 4)


def test_data_that_a_run_would_refuse_are_shown_and_end_with_code_3(tmp_path: Path, command: Command) -> None:
    make_folder(tmp_path / "data", [5, 1])
    done = command("data data")
    assert done.code == 3
    assert "2 classes, 6 images to train" in done.out
    assert re.fullmatch("error: 1 class with fewer than two images in data .*\n", done.err)
    make_folder(tmp_path / "single", [5])
    assert "1 class, 5 images to train" in command("data single").out


def test_a_page_needs_nothing_else_and_holds_no_markup_of_others(evil: Path, command: Command) -> None:
    assert command("data data --html page.html").code == 0
    page = (evil.parent / "page.html").read_text()
    assert html.escape(EVIL) in page
    assert "{{ 7 * 7 }}" in page
    assert set(re.findall(r"<img [^>]*?src=\"(.{11})", page)) == {"data:image/"}
    assert len(re.findall("<img ", page)) == 11  # five of one class, six of the other
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
def test_a_browser_shows_the_pictures_and_runs_nothing(evil: Path, command: Command) -> None:
    command("data data --html page.html")
    words = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--dump-dom", f"file://{evil.parent}/page.html"]
    dom = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
    assert html.escape(EVIL, quote=False) in dom
    assert len(re.findall("<img ", dom)) == 11


def test_of_many_classes_the_largest_and_the_smallest_are_shown(tmp_path: Path, command: Command) -> None:
    make_folder(tmp_path / "data", [2 + n % 5 for n in range(40)])
    lines = command("data data").out.splitlines()
    assert sum("%  class0" in line for line in lines) == view.MOST_CLASSES
    assert any(line.endswith("16 more classes") for line in lines)


def test_the_cache_is_shown_and_cleared(evil: Path, tmp_path: Path, command: Command) -> None:
    command("data data")
    shown = json.loads(command("cache show --json").out)
    assert {each["belongs_to"] for each in shown["entries"]} == {str(evil)}
    lines = command("cache show").out.splitlines()
    assert lines[0].split() == ["bytes", "images", "pixels", "last", "used", "what", "of"]
    assert len(lines) == len(shown["entries"]) + 2
    assert json.loads(command("cache clear --older-than 1 --json").out) == {"entries": [], "bytes": 0}
    assert " freed in " in command("cache clear").out
    assert json.loads(command("cache show --json").out) == {"entries": [], "bytes": 0}
    assert command("data data").code == 0
