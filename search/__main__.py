"""Every command of the program: python -m search NAME, or frontrunner NAME; without a name, what there is."""

from __future__ import annotations

import sys
from importlib import import_module

from search.host.streams import guarded

USAGE = 2
COMMANDS = {  # name: (module, what it does)
    "run": ("search.run", "run or resume a study: the Pareto front of training time against accuracy"),
    "studies": ("search.commands.studies", "list, show, rename, delete studies; disk space"),
    "doctor": ("search.commands.doctor", "look for what is wrong around a study, and mend it"),
    "dashboard": ("search.commands.dashboard", "show studies in a browser"),
}


@guarded
def main(arguments: list[str] | None = None) -> int:
    """Runs the command that the first word names with the others; its exit code, 2 where there is no such command."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print("usage: frontrunner NAME ...   (each has --help)\n")
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:<11}{what}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return USAGE
    code: int = import_module(COMMANDS[name][0]).main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
