"""What the command lines of all commands share: a mistake is one line, no word is empty, numbers have bounds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import NoReturn

USAGE = 2  # exit code
REQUIRED = "arguments are required"  # in what argparse says
COMMAND = "command"  # what a command of commands is told first
MOST_TRIALS, MOST_SECONDS = 10**6, 3e7  # as in study files


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, and where the rule stands."""

    def __init__(self, *words: object, **named: object) -> None:
        super().__init__(*words, **{"allow_abbrev": False} | named)  # type: ignore[arg-type]
        self.register("type", None, _given)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        self._words = [*(sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        from objectives.words import printable

        known = [*self._option_string_actions]
        if message.endswith(f"{REQUIRED}: {COMMAND}"):
            choices = next(each.choices for each in self._actions if each.dest == COMMAND)
            message = f"no command is named: one of {', '.join(choices or ())}"
        flags = [word.partition("=")[0] for word in self._words if word.startswith("--")]
        if unknown := [flag for flag in flags if flag not in known]:
            if REQUIRED in message:  # what is missing is most often what is misspelled
                message = f"unrecognized arguments: {unknown[0]}"
            if near := get_close_matches(unknown[0], known, 1):
                message += f"; did you mean {near[0]}?"
        print(printable(f"error: {message} (see {self.prog} --help)"), file=sys.stderr)
        sys.exit(USAGE)


def whole(most: int, least: int = 1) -> Callable[[str], int]:
    """What reads a whole number from `least` to `most`."""

    def read(text: str) -> int:
        digits = text.lstrip("0") or text[-1:]
        if not text.isdecimal() or len(digits) > len(str(most)) or not least <= int(digits) <= most:
            raise argparse.ArgumentTypeError(f"{_short(text)} is not a whole number from {least} to {most}")
        return int(digits)

    return read


def seconds(text: str) -> float:
    """A number of seconds above 0.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a positive number up to {MOST_SECONDS:g}")
    return found


def number(most: float, *, above: float | None = None) -> Callable[[str], float]:
    """What reads a number from 0, or above the given one, to `most`."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if not 0 <= found <= most or (above is not None and found <= above):
            least = f"above {above:g} and up" if above is not None else "from 0"
            hint = f": {found:g}% is {found / 100:g}" if most == 1 and 1 < found <= 100 else ""
            raise argparse.ArgumentTypeError(f"{_short(text)} is not a number {least} to {most:g}{hint}")
        return found

    return read


def _given(text: str) -> str:
    """A word that says something: an empty one is a variable of the shell that was not set."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give it a value, or leave it out")
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
