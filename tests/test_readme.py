"""What is written down is true: commands on pages are commands, links lead to files, tests of promises are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from search.commands.parsers import COMMANDS

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
README = PAGES[0].read_text()
SHOWN = re.findall(
    r"^ {4}(?:\$ )?(?:\S+ -- )?(?:frontrunner|python -m search\.?) ?(\w[^#\n\\]*)",
    "\n".join(page.read_text() for page in PAGES),
    re.MULTILINE,
)


def test_the_readme_shows_every_command() -> None:
    named = {*re.findall(r"`frontrunner (\w+)", README), *(line.split()[0] for line in SHOWN)}
    assert named <= set(COMMANDS) | {"NAME"}
    assert set(COMMANDS) <= {*named, *re.findall(r"frontrunner (\w+)", README)}


@pytest.mark.parametrize("line", sorted({*map(str.strip, SHOWN)}))
def test_a_command_that_the_readme_shows_is_understood(line: str) -> None:
    name, *words = shlex.split(line)
    if words == ["--help"]:
        assert name in COMMANDS
        return
    COMMANDS[name].parser().parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link}
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_test_that_a_promise_names_is_there() -> None:
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    written, there = (REPOSITORY / "tests" / "README.md").read_text(), {*re.findall(r"def (test_\w+)", sources)}
    assert {*re.findall(r"`(test_\w+)", written)} - there == set()
    files = {*re.findall(r"`([\w/]+/test_\w+\.py)`", written)}
    assert files
    assert [name for name in files if not (REPOSITORY / "tests" / name).is_file()] == []
