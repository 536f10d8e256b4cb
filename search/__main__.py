"""Every command of the program: frontrunner NAME, or python -m search NAME; without a name, what there is."""

from __future__ import annotations

import sys

from search.host.interruptions import end_quietly

USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs the command that the first word names with the others; its exit code, 2 where there is no such command."""
    end_quietly()  # while all the rest is loaded
    from search.host.streams import guarded

    return guarded(_perform)(sys.argv[1:] if arguments is None else arguments)


def _perform(words: list[str]) -> int:
    from importlib import import_module

    from objectives import __version__
    from search.commands.parsers import COMMANDS
    from search.host.called import PROGRAM, program
    from search.host.rubbish import kept

    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help"]
    match words:
        case [] | ["-h" | "--help" | "help", *_]:
            print(f"usage: {program()} COMMAND ...   (each has --help)\n")
            for name, each in COMMANDS.items():
                print(f"  {name:<12}{each.what}")
            return 0
        case ["--version", *_]:
            print(f"{PROGRAM} {__version__}")
            return 0
        case [name, *rest] if name in COMMANDS:
            options = COMMANDS[name].parser().parse_args(rest)
            options.words = rest
            with kept():
                module = import_module(COMMANDS[name].module)
            code: int = module.perform(options)
            return code
    print(f"error: there is no command {words[0]!r}{_hint(words[0])}", file=sys.stderr)
    return USAGE


def _hint(word: str) -> str:
    """What was probably meant."""
    from search.commands.parsers import COMMANDS
    from search.host.called import program
    from search.host.places import study_files
    from spaces.restricted import suggestion

    if word.startswith("-"):
        return f": a command comes first: {program()} run {word} ..."
    if word in study_files():
        return f": to run the study, {program()} run --study {word}"
    return suggestion(word, COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
