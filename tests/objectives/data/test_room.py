"""What memory does not hold is told with the largest size that it would hold; of what cannot be streamed, refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.data.room import COPIES, LEAST, SHARE, STEP, check_fits, free_on_host, holds, told
from objectives.errors import DataError


@given(st.integers(1, 10**7), st.integers(4, 1024), st.sampled_from([1, 3]), st.integers(0, 10**12))
def test_the_size_that_is_named_fits_and_the_next_one_does_not(n: int, size: int, channels: int, free: int) -> None:
    is_held = COPIES * n * size * size * channels <= SHARE * free
    assert holds(n * size * size * channels, free) == is_held
    assert (told(n, size, channels, free) is None) == is_held
    if is_held:
        check_fits(n, size, channels, free)
        return
    with pytest.raises(DataError) as refused:
        check_fits(n, size, channels, free)
    said, line = str(refused.value), str(told(n, size, channels, free))
    assert "\n" not in said + line
    assert ("size = " in said) == ("size = " in line)
    if "size = " in said:
        side = int(said.partition("size = ")[2].split()[0])
        check_fits(n, side, channels, free)
        assert f"it would hold them at size = {side})" in line
    else:
        side = LEAST - STEP
    with pytest.raises(DataError):
        check_fits(n, side + STEP, channels, free)


def test_where_nobody_knows_what_is_free_nothing_is_refused() -> None:
    check_fits(10**9, 1024, 3, None)
    assert told(10**9, 1024, 3, None) is None


STATISTICS = "anon 1\ninactive_file 1000\nactive_file 200000"  # the last: images that were read twice


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (
            {"memory.max": "9000000", "memory.current": "5000000", "memory.stat": STATISTICS},
            4_201_000,
        ),
        ({"memory.max": "max", "memory.current": "5000000", "memory.stat": STATISTICS}, None),
        (
            {
                "memory/memory.limit_in_bytes": "7000000",
                "memory/memory.usage_in_bytes": "5000000",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 500\ntotal_active_file 90000",
            },
            2_090_500,
        ),
    ],
)
def test_a_control_group_limits_what_is_free(files: dict[str, str], free: int | None, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    machine = free_on_host(tmp_path / "none")
    assert machine is not None
    found = free_on_host(tmp_path)
    assert found == free if free is not None else (found or 0) > 9_000_000


@pytest.mark.parametrize(("limit", "used"), [("RLIMIT_DATA", "VmData:"), ("RLIMIT_AS", "VmSize:")])
def test_a_limit_of_the_process_limits_what_is_free(limit: str, used: str) -> None:
    script = (
        "import resource; from pathlib import Path; from objectives.data.room import free_on_host\n"
        "words = Path('/proc/self/status').read_text().split()\n"
        f"taken = 1024 * int(words[words.index('{used}') + 1])\n"
        f"resource.setrlimit(resource.{limit}, (taken + 50_000_000,) * 2)\n"
        "print(free_on_host())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 40_000_000 < int(done.stdout) <= 50_000_000
