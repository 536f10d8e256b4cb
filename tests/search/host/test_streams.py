"""Standard streams as a process inherits them, in a program of a few lines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.search.place import PATIENCE

REPOSITORY = Path(__file__).parents[3]
PROGRAM = """
import sys
from search.host.streams import guarded

@guarded
def main():
    for _ in range({times}):
        print({text!r})
        print({error!r}, file=sys.stderr)
    return {code}

sys.exit(main())
"""


def started(
    text: str = "text",
    error: str = "",
    code: int = 0,
    times: int = 1,
    redirected: str = "",
    before: str = "",
    **environment: str,
) -> subprocess.Popen[bytes]:
    """The program, with streams that a shell redirects."""
    program = PROGRAM.format(text=text, error=error, code=code, times=times)
    return subprocess.Popen(
        ["sh", "-c", f'{before}exec "$@" {redirected}', "sh", sys.executable, "-W", "error", "-c", program],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (">&-", 0, b"error\n"),
        (">&- 2>&-", 0, b""),
        ("<&- >&- 2>&-", 0, b""),
        ("2>&-", 0, b""),
        ("2>/dev/full", 0, b""),
        (">/dev/full 2>/dev/null", 4, b""),
        (">/dev/full", 4, b"error\nerror: standard output takes no result (No space left on device): mend that\n"),
        ("| :", 0, b"error\n"),
    ],
)
def test_what_cannot_be_written_is_dropped_and_a_lost_result_is_said(redirected: str, code: int, said: bytes) -> None:
    with started(error="error", redirected=redirected) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (code, said)


def test_a_reader_that_leaves_changes_nothing_about_the_verdict() -> None:
    with started(code=1, times=100_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read().strip() == b""
        assert process.wait(timeout=PATIENCE) == 1


def test_a_pipe_that_does_not_wait_gets_everything() -> None:
    """Another program that has the same terminal may have made it so."""
    hasty = f"{sys.executable} -c 'import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, os.O_WRONLY | os.O_NONBLOCK)'; "
    with started(text="x" * 99, times=5000, before=hasty) as process:
        assert process.stdout is not None
        time.sleep(0.2)  # until the pipe is full
        assert len(process.stdout.read()) == 5000 * 100
        assert process.wait(timeout=PATIENCE) == 0


@pytest.mark.parametrize(
    ("encoding", "text", "read"),
    [
        ("utf-8", "M\u00fcll \u2500 \udcfc", "M\u00fcll \u2500 \\xfc".encode()),
        ("latin-1", "M\u00fcll \u2500 \udcfc", b"M\xfcll \\u2500 \\xfc"),
        ("ascii", "M\u00fcll \u2500 \udcfc", b"M\\xfcll \\u2500 \\xfc"),
        ("ascii:strict", "\U0001f600", b"\\U0001f600"),
        ("ascii", "31 \u00b19", b"31 +-9"),
        ("latin-1", "31 \u00b19", b"31 \xb19"),
    ],
)
def test_what_an_encoding_lacks_is_shown_readably(encoding: str, text: str, read: bytes) -> None:
    with started(text, text, PYTHONIOENCODING=encoding) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out.rstrip(), err.rstrip()) == (0, read, read)


def test_no_file_gets_the_number_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    """A database with the number of the standard output would be printed into."""
    program = PROGRAM.format(text="", error="", code=0, times=0).replace(
        "return", f"f = open({str(tmp_path / 'file')!r}, 'w'); print(f.fileno(), file=f); return"
    )
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    subprocess.run(closed, cwd=REPOSITORY, check=True, timeout=PATIENCE)
    assert int((tmp_path / "file").read_text()) > 2
