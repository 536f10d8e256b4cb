"""Whether data fit into the memory that is free, told before anything is decoded."""

from __future__ import annotations

from contextlib import suppress
from math import isqrt
from pathlib import Path

from objectives.errors import DataError

SHARE = 0.8  # of the free memory that images may take: networks and what they compute need some, too
STEP = 4  # pixels: the sizes that are proposed are multiples of it
LEAST = 4  # pixels: the smallest size
_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = (  # (limit, use, what says how much of the use is a cache of files) of a control group, versions 2 and 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def check_fits(n: int, size: int, channels: int, free: int | None, memory: str = "memory") -> None:
    """Checks that so many images fit into so many free bytes of a memory; None: nobody knows.

    Raises:
        DataError: they do not; it names the largest size that does.
    """
    needed = n * size * size * channels
    if free is None or needed <= SHARE * free:
        return
    side = isqrt(int(SHARE * free) // (n * channels)) // STEP * STEP
    ways = f"the largest size that fits is {side} (size = {side} under [data]), or" if side >= LEAST else "choose a"
    what = f"{n} images of {size}x{size} with {channels} channel{'s' if channels > 1 else ''} take {_words(needed)}"
    raise DataError(f"{what}, and of {memory} {_words(free)} are free: {ways} part of the images with --n-train")


def free_on_host(limits: Path = _CGROUPS) -> int | None:
    """Bytes of memory that this process may still take: of the machine, or of its control group where that is less."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for limit, use, cached in _LIMITS:
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            most = int((limits / limit).read_text())
            statistics = (limits / limit).with_name("memory.stat").read_text().split()
            caches = int(statistics[statistics.index(cached) + 1])
            found.append(max(0, most - int((limits / use).read_text()) + caches))
    return min(found, default=None)


def _words(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
