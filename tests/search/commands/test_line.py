"""A command line that cannot be meant is refused in one line, before anything is loaded or made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.commands.parsers import COMMANDS
from search.host import called
from search.study import spec
from search.views.display import STARTING
from tests.search.place import Done

Command = Callable[[str], Done]
TEXTS = ("--as", "--data", "--data-root", "--labels", "--storage", "--cluster")
EMPTY = "it is empty: give it a value, or leave it out"
RUN = "run --study tiny.toml --device cpu"
LONG = "9" * 5000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("record", "the following arguments are required: --study"),
        ("plan images", "the following arguments are required: --minutes"),
        (f"{RUN} --minutes 0", "is not a positive number"),
        (f"{RUN} --minutes 5 --n-trials 9", "not allowed with argument --minutes"),
        ("studies", "no command is named: one of list, files, show, rename, delete, disk, clean"),
        ("studies lst", "argument command: invalid choice: 'lst'"),
        ("doctor --study x --fxi", "unrecognized arguments: --fxi; did you mean --fix?"),
        ("best --studdy x", "unrecognized arguments: --studdy; did you mean --study?"),
        ("confirm --seeds=3 --qqqq", "unrecognized arguments: --qqqq ("),
        ("confirm", "the following arguments are required: --study"),
        ("confirm --study x --seeds 21", "argument --seeds: '21' is not a whole number from 1 to 20"),
        ("best --study x --min-accuracy 93", "'93' is not a number from 0 to 1: 93% is 0.93"),
        ("best --study x --within nan", "'nan' is not a number from 0 to 100"),
        ("best --study x --min-accuracy 0.9 --under-seconds 3", "not allowed with argument"),
        ("completion fish", "invalid choice: 'fish'"),
        ("dashboard --study x --port 65536", "argument --port: '65536' is not a whole number from 0 to 65535"),
        ("run --study ''", f"argument --study/--study-name: {EMPTY}"),
        ("studies show ''", EMPTY),
        *(
            (f"{RUN} {flag}=", EMPTY)
            for flag in ("--as", "--data", "--data-root", "--labels", "--storage", "--cluster")
        ),
        ("run --study tiny.toml --device ''", f"argument --device/--devices: {EMPTY}"),
        (f"{RUN} --n-trials 1000001", "argument --n-trials: '1000001' is not a whole number from 1 to 1000000"),
        (f"{RUN} --add {LONG}", "...' is not a whole number from 1 to 1000000"),
        (f"{RUN} --add 0", "is not a whole number from 1"),
        (f"{RUN} --workers 100000000", "argument --workers: '100000000' is not a whole number"),
        (f"{RUN} --seed -1", "argument --seed: '-1' is not a whole number from 0"),
        (f"{RUN} --timeout inf", "is not a positive number"),
        (f"{RUN} --timeout 0", "is not a positive number"),
        ("data", "the following arguments are required: FOLDER"),
        ("data empty --size 3", "argument --size: '3' is not a whole number from 4 to 1024"),
        ("cache", "no command is named: one of show, clear"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(
    line: str, said: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        command(line)
    out, err = capsys.readouterr()
    assert (refused.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert said in err
    assert err.endswith(f"(see {called.command(line.split()[0])} --help)\n")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"{RUN} --data folder:", 2, "'folder:' names no folder"),
        (f"{RUN} --as x --in-process --data folder:/no/such", 3, "there is no folder /no/such"),
        (f"{RUN} --as x --in-process --data folder:empty", 3, "empty has no class folders"),
        ("data /no/such", 3, "there is no folder /no/such"),
        ("data empty", 3, "empty has no class folders"),
        ("data digits --labels x.csv", 2, "names the images of a folder"),
        ("data digits --html no/such/x.html", 2, "/no/such: make it, or name another file with --html"),
        (f"{RUN} --as -x", 2, "expected one argument"),
        ("run --study tiny.toml --device cpu:999999", 2, "at most --devices cpu:"),
        ("run --study tiny.toml --device cpu --workers 999999", 2, "at most --workers "),
        (f"{RUN} --storage sqlite:///tiny.toml/x/y.db", 4, "tiny.toml is no folder, but a file"),
        (f"{RUN} --storage sqlite:////proc", 4, "/proc is a folder: name a database in it"),
        ("studies list --storage sqlite:///tiny.toml/x.db", 4, "tiny.toml is no folder, but a file"),
        ("studies --storage sqlite:///x.db list --storage sqlite:///y.db", 4, "there is no database y.db"),
        ("studies --storage sqlite:///x.db list", 4, "there is no database x.db"),
    ],
)
def test_what_the_words_ask_for_and_cannot_be_is_one_line_and_leaves_nothing(
    line: str, code: int, said: str, command: Command, study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_file.with_name("empty").mkdir()
    try:
        done = command(line)
    except SystemExit as left:
        done = Done(int(left.code or 0), *capsys.readouterr())
    told = done.err.removeprefix(f"{STARTING}\n")  # said before, where only the worker can tell
    assert (done.code, done.out, told.count("\n")) == (code, "", 1), done.err
    assert said in told
    assert {path.name for path in study_file.parent.iterdir()} - {"run"} == {study_file.name, "empty"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_an_example_that_it_understands(name: str) -> None:
    parser = COMMANDS[name].parser()
    example = (parser.epilog or "").removeprefix(f"example: {called.command(name)} ")
    assert example != parser.epilog
    parser.parse_args(example.split())


def test_the_bounds_of_the_command_line_are_those_of_study_files(study_file: Path) -> None:
    from search.commands.line import MOST_SECONDS, MOST_TRIALS

    for key, most in (("n_trials", MOST_TRIALS), ("timeout", MOST_SECONDS)):
        spec.SearchSection.model_validate({"n_trials": 1} | {key: most})
        with pytest.raises(ValueError, match=key):
            spec.SearchSection.model_validate({"n_trials": 1} | {key: 2 * most})
