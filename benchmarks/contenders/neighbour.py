"""Neighbours on the core of a run, who work and rest in turn as on a machine that is shared."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from objectives.host.children import die_with_parent

MOST = 20.0  # seconds at a stretch


@contextmanager
def neighbours(n: int, core: int, seed: int) -> Iterator[None]:
    """So many processes on a core while the block lasts."""
    with ExitStack() as held:
        for each in range(n):
            command = [sys.executable, "-m", __name__, str(core), str(seed + each)]
            process = held.enter_context(subprocess.Popen(command, preexec_fn=die_with_parent))
            held.callback(process.kill)
        yield


def work_and_rest(chance: random.Random) -> None:
    """Works and rests in turn, each for up to `MOST` seconds, for ever."""
    while True:
        until = time.monotonic() + chance.uniform(0, MOST)
        while time.monotonic() < until:
            pass
        time.sleep(chance.uniform(0, MOST))


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    work_and_rest(random.Random(int(sys.argv[2])))
