"""No interruption is lost, whatever Python was at when it came."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.search.place import PATIENCE

PROGRAM = """
import signal, sys, threading, time, weakref
from search.host import interruptions

class Cleared:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Named:
    pass

def leave(_):
    signal.raise_signal(signal.SIGTERM)

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
        ("Cleared(); time.sleep(60)", ["ends in order"]),  # and nobody looks
        ("a = Named(); b = weakref.ref(a, leave); del a; time.sleep(60)", ["ends in order"]),
        ("signal.raise_signal(signal.SIGINT)", ["ends in order"]),
        ("pass", ["goes on", "is lost"]),
    ],
)
def test_an_interruption_that_python_drops_comes_again_or_is_found_by_the_next_look(how: str, said: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(how=how)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert (done.stdout.splitlines(), done.stderr) == (said, "")


PUT_OFF = """
import signal, sys, threading, time
from contextlib import nullcontext
from search.host import interruptions

def work():
    with interruptions.put_off():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)  # Python handles it in the main thread meanwhile
        print("whole", flush=True)

interruptions.end_quietly()
try:
    with {order}:
        {run}
        time.sleep(0.2)
        interruptions.check()
        print("goes on", flush=True)
except KeyboardInterrupt:
    print("ends in order", flush=True)
    sys.exit(7)
"""


@pytest.mark.parametrize("run", ["work()", "thread = threading.Thread(target=work); thread.start(); thread.join()"])
@pytest.mark.parametrize(
    ("order", "code", "said"),
    [("nullcontext()", 130, ["whole"]), ("interruptions.ended_in_order()", 7, ["whole", "ends in order"])],
    ids=["at once", "in order"],
)
def test_what_puts_interruptions_off_is_done_whole_and_none_is_lost(
    run: str, order: str, code: int, said: list[str]
) -> None:
    program = PUT_OFF.format(order=order, run=run)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (code, said, "")
