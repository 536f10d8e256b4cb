"""Prints a script that completes commands with TAB. It is written from the parsers: a new flag is completed, too."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping

from search.commands.parsers import COMMANDS
from search.host.called import PROGRAM
from search.host.places import BUILT_IN, STUDIES

# What a value can be where it has no choices, by the metavar of its argument; all others are free.
VALUES = {
    "NAME": ["@studies"],  # of a study
    "OTHER": ["@studies"],
    "STUDY": ["@studies", "@files"],
    "DATA": ["digits", "fashion_mnist", "cifar10", "cifar100", "folder:", "series:"],
    "DIR": ["@folders"],
    "PATH": ["@folders"],
    "FOLDER": ["@folders", "digits", "fashion_mnist", "cifar10", "cifar100"],
    "DEVICE": ["auto", "cpu", "cuda"],
}

# frontrunner_words: what may stand in a command; frontrunner_values: what may follow one of its flags. Bash takes words
# apart at "=" and ":", so that a flag and its value, or folder: and its path, arrive as three.
SCRIPT = """\
declare -gA {program}_words=(
{words}
)
declare -gA {program}_values=(
{values}
)

_{program}() {{
    local IFS=$' \\t\\n' at=$COMP_CWORD command={program} current before offered= word file
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [[ -n ${{{program}_words["$command $word"]+is}} ]]; then command+=" $word"; fi
    done
    current=${{COMP_WORDS[at]}}
    if [[ $current == [=:] ]]; then current=; else (( at -= 1 )); fi  # at: the word that decides
    before=${{COMP_WORDS[at]}}
    if [[ $before == = ]]; then before=${{COMP_WORDS[at - 1]}}; fi
    if [[ $before == : ]]; then
        if [[ ${{COMP_WORDS[at - 1]}} == folder ]]; then offered=@folders; fi
    else
        offered=${{{program}_values["$command $before"]-${{{program}_words["$command"]}}}}
    fi
    COMPREPLY=()
    for word in $offered; do
        case $word in
            @folders)
                mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -d -- "$current")
                compopt -o filenames 2> /dev/null ;;
            @studies)
                for file in {built_in}/*.toml {studies}/*.toml; do
                    file=${{file##*/}} file=${{file%.toml}}
                    if [[ $file != '*' && $file == "$current"* ]]; then COMPREPLY+=("$file"); fi
                done ;;
            @files)
                mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(
                    compgen -f -X '!*.toml' -- "$current"
                    compgen -d -- "$current"
                )
                compopt -o filenames 2> /dev/null ;;
            "$current"*)
                COMPREPLY+=("$word")
                if [[ $word == *: ]]; then compopt -o nospace 2> /dev/null; fi ;;
        esac
    done
}}

complete -F _{program} {program}
"""


def perform(options: argparse.Namespace) -> int:
    """Prints the script of the shell that was asked for."""
    print(script(), end="")
    return 0


def script() -> str:
    """The script for bash."""
    words = {PROGRAM: [*COMMANDS, "help", "--help", "--version"]}
    values: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        for path, parser in _parsers(f"{PROGRAM} {name}", command.parser()):
            words[path] = []
            for action in parser._actions:  # argparse has no public way to ask
                offered = list(action.choices or VALUES.get(str(action.metavar), []))
                words[path] += [flag for flag in action.option_strings if flag.startswith("--")][:1]
                if not action.option_strings:
                    words[path] += offered
                elif action.nargs != 0:
                    values |= {f"{path} {flag}": offered for flag in action.option_strings}
    built_in = shlex.quote(str(BUILT_IN))
    tables = {"words": _table(words), "values": _table(values)}
    return SCRIPT.format(program=PROGRAM, built_in=built_in, studies=STUDIES, **tables)


def _parsers(path: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(words that lead to it, parser) of a parser and of those below it."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _parsers(f"{path} {name}", below)


def _table(rows: Mapping[str, list[str]]) -> str:
    return "\n".join(f"    [{shlex.quote(key)}]={shlex.quote(' '.join(row))}" for key, row in rows.items())
