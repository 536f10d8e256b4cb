"""One program: its commands, their help, completion, and all of it outside the clone."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

from objectives import __version__
from search.__main__ import main
from search.commands.completion import script
from search.commands.parsers import COMMANDS

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("frontrunner", "search", "spaces", "objectives")
LOADED = """
import contextlib, io, sys
before = set(sys.modules)
from search.__main__ import main
with contextlib.redirect_stdout(io.StringIO()) as said:
    for words in {words}:
        with contextlib.suppress(SystemExit):
            main(words)
assert said.getvalue().count('usage: ') == {n_usages}, said.getvalue()
print(*(name for name in set(sys.modules) - before))
"""


def test_help_loads_nothing_but_the_standard_library() -> None:
    helps = [[name, "--help"] for name in COMMANDS] + [["studies", "show", "--help"], ["help", "run"], []]
    words = [*helps, ["--version"], ["completion", "bash"]]
    code = LOADED.format(words=words, n_usages=len(helps))
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"search", "objectives"}
    assert [name for name in done.stdout.split() if name.startswith("objectives")] == ["objectives"]  # its version


def test_without_a_word_every_command_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert [line for line in lines if line.split()[:1] == [name]] == [f"  {name:<12}{command.what}"]
    assert max(map(len, lines)) <= 100


def test_every_command_is_reached_through_one_door() -> None:
    modules = {path.stem for path in (REPOSITORY / "search" / "commands").rglob("*.py")}
    assert {command.module.rpartition(".")[2] for command in COMMANDS.values()} - {"run"} <= modules
    for path in (REPOSITORY / "search" / "commands").rglob("*.py"):
        assert "__main__" not in path.read_text()


@pytest.mark.parametrize(
    ("called", "name", "said"),
    [
        ("/usr/bin/frontrunner", "run", "frontrunner run"),
        ("/usr/bin/frontrunner", "doctor", "frontrunner doctor"),
        ("/x/search/__main__.py", "run", "python -m search run"),
        ("/x/search/__main__.py", "studies", "python -m search studies"),
        ("/x/search/run.py", "run", "python -m search.run"),
    ],
)
def test_usage_names_the_program_as_it_was_called(
    called: str, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert COMMANDS[name].parser().format_usage().startswith(f"usage: {said} [-h]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stduies", "list"], "there is no command 'stduies'; did you mean 'studies'?"),
        (
            ["xyz"],
            f"there is no command 'xyz'; known are {', '.join(sorted(COMMANDS))}",
        ),
        (["digits_pareto"], "to run the study, python -m search run --study digits_pareto"),
        (["--study", "x"], "there is no command '--study': a command comes first: python -m search run --study ..."),
        (["help", "dotcor"], "did you mean 'doctor'?"),
    ],
)
def test_an_unknown_command_is_one_line_with_the_way_out(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_the_version_is_said_and_is_the_one_to_cite(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"frontrunner {__version__}\n"
    assert f"\nversion: {__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()


BUILT_IN = [
    "cifar_pareto",
    "digits_pareto",
    "digits_reduce",
    "fashion_pareto",
    "fashion_reduce",
    "fashion_structure",
    "formats_accuracy",
]
COMPLETED = {  # what stands before the cursor, its words as bash takes them apart -> what is offered
    "frontrunner st": ["studies"],
    "frontrunner help doc": ["doctor"],
    "frontrunner studies sh": ["show"],
    "frontrunner studies show d": ["digits_pareto", "digits_reduce"],
    "frontrunner run --sam": ["--sampler"],
    "frontrunner run --sampler ": ["pareto", "tpe", "nsga2", "gp", "random"],
    "frontrunner run --sampler = n": ["nsga2"],
    "frontrunner run --sampler =": ["pareto", "tpe", "nsga2", "gp", "random"],
    "frontrunner run --study ": [*BUILT_IN, "mine", "other.toml", "data", "studies"],
    "frontrunner run -q --study mi": ["mine"],
    "frontrunner run --study = dig": ["digits_pareto", "digits_reduce"],
    "frontrunner run --study studies/": ["studies/mine.toml"],
    "frontrunner run --n-trials ": [],
    "frontrunner run --data fo": ["folder:"],
    "frontrunner run --data folder :": ["data", "studies"],
    "frontrunner run --data = folder : da": ["data"],
    "frontrunner run --data-root data/t": ["data/two words"],
    "frontrunner doctor --f": ["--fix"],
    "frontrunner doctor --study mine --": ["--help", "--study", "--storage", "--fix"],
    "frontrunner completion b": ["bash"],
    "frontrunner data da": ["data"],
    "frontrunner data fash": ["fashion_mnist"],
    "frontrunner cache ": ["show", "clear", "--help"],
    "frontrunner cache clear --o": ["--older-than"],
}
TRY = 'COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _frontrunner; printf "%s\\n" "${COMPREPLY[@]}" --end--;'


def test_bash_completes_commands_flags_studies_and_folders(tmp_path: Path) -> None:
    (tmp_path / "data" / "two words").mkdir(parents=True)
    (tmp_path / "studies").mkdir()
    for name in ("studies/mine.toml", "other.toml", "other.txt"):
        (tmp_path / name).touch()
    tries = [f"try {typed}" + (" ''" if typed.endswith(" ") else "") for typed in COMPLETED]
    code = "\n".join([script(), f"try() {{ {TRY} }}", "complete -p frontrunner", *tries])
    done = subprocess.run(["bash", "--norc", "-uc", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    registered, *offered = re.split(r"--end--\n|(?<=frontrunner\n)", done.stdout)
    assert registered == "complete -F _frontrunner frontrunner\n"
    assert {
        typed: sorted(filter(None, each.split("\n"))) for typed, each in zip(COMPLETED, offered[:-1], strict=True)
    } == {typed: sorted(each) for typed, each in COMPLETED.items()}


def test_every_room_and_every_study_is_in_the_wheel() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = find_namespace_packages(str(REPOSITORY), **settings["packages"]["find"])
    rooms = {path.parent.relative_to(REPOSITORY) for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py")}
    assert {name for name in found if "__pycache__" not in name} == {".".join(room.parts) for room in rooms} | {
        "studies"
    }
    beside = {
        path for room in rooms for path in (REPOSITORY / room).iterdir() if path.suffix in (".html", ".css", ".js")
    }
    data = settings["package-data"].items()
    assert settings["package-data"]["studies"] == ["*.toml"]
    assert beside == {
        path
        for room, ends in data
        for end in ends
        for path in (REPOSITORY / room.replace(".", "/")).glob(end)
        if room != "studies"
    }
    assert all((REPOSITORY / room / "__init__.py").exists() for room in rooms)
