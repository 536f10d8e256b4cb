"""No interruption is lost, whatever Python was at when it came."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.search.place import PATIENCE

PROGRAM = """
import signal, sys, threading
from search.host import interruptions

class Cleared:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

interruptions.end_quietly()
try:
    with interruptions.ended_in_order():
        interruptions.check()
        {how}
        print("goes on", flush=True)
        interruptions.check()
        print("is lost", flush=True)
except KeyboardInterrupt:
    print("ends in order", flush=True)
interruptions.check()
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("Cleared()", ["goes on", "ends in order"]),  # Python drops what is raised there
        ("signal.raise_signal(signal.SIGINT)", ["ends in order"]),
        ("pass", ["goes on", "is lost"]),
    ],
)
def test_an_interruption_that_python_drops_is_found_by_the_next_look(how: str, said: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(how=how)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.splitlines() == said
