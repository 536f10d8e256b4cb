"""Several commands in one process: python -m tests.search.several 'studies list' ...; says the exit code of each."""

from __future__ import annotations

import shlex
import sys

from search.__main__ import main

if __name__ == "__main__":
    for line in sys.argv[1:]:
        print(f"[{main(shlex.split(line))}] {line}", flush=True)
