"""Whether data fit into the memory that is free: images that do not are streamed, and people are told which would."""

from __future__ import annotations

import resource
from contextlib import suppress
from math import isqrt
from pathlib import Path

from objectives.errors import DataError

SHARE = 0.8  # of the free memory that images may take: networks and what they compute need some, too
COPIES = 2  # how often memory holds images at times: a training on all of them, or on a choice, has those once more
STEP = 4  # pixels: the sizes that are proposed are multiples of it
LEAST = 4  # pixels: the smallest size
_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = (  # (limit, use, what the names of its parts begin with) of a control group, versions 2 and 1
    ("memory.max", "memory.current", ""),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_"),
)
_CACHES = ("active_file", "inactive_file")  # parts that are given up where others need them; active: was read twice
_OF_PROCESS = ((resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:"))  # `ulimit -d`, `ulimit -v`


def holds(n_bytes: int, free: int | None, copies: int = COPIES) -> bool:
    """Whether so many free bytes of a memory hold images of so many; None: nobody knows."""
    return free is None or copies * n_bytes <= SHARE * free


def told(
    n: int, size: int, channels: int, free: int | None, memory: str = "memory", copies: int = COPIES
) -> str | None:
    """What a user is told of images that are streamed, in a line; None: so many free bytes of a memory hold them."""
    if free is None or holds(n * size * size * channels, free, copies):
        return None
    side = _largest_held(n, channels, free, copies)
    held = f" (it would hold them at size = {side})" if side else ""
    return f"images are streamed as they are used: {_outgrown(n, size, channels, free, memory, copies)}{held}"


def check_fits(n: int, size: int, channels: int, free: int | None) -> None:
    """Checks that images fit which cannot be streamed.

    Raises:
        DataError: they do not; it names the largest size that does.
    """
    if free is None or holds(n * size * size * channels, free):
        return
    side = _largest_held(n, channels, free, COPIES)
    ways = f"the largest size that fits is {side} (size = {side} under [data]), or" if side else "choose a"
    why = _outgrown(n, size, channels, free, "memory", COPIES)
    raise DataError(f"{why}: {ways} part of the images with --n-train")


def free_on_host(limits: Path = _CGROUPS) -> int | None:
    """Bytes of memory that this process may still take.

    Of the machine, of its control group, or of its own limits, whichever is least.
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for limit, use, prefix in _LIMITS:
        with suppress(OSError, ValueError):  # no such file, or no limit: "max"
            most = int((limits / limit).read_text())
            statistics = (limits / limit).with_name("memory.stat").read_text().split()
            caches = sum(int(statistics[statistics.index(prefix + cache) + 1]) for cache in _CACHES)
            found.append(max(0, most - int((limits / use).read_text()) + caches))
    for kind, used in _OF_PROCESS:
        if (most := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY:
            with suppress(OSError, ValueError):
                words = Path("/proc/self/status").read_text().split()
                found.append(max(0, most - 1024 * int(words[words.index(used) + 1])))
    return min(found, default=None)


def _outgrown(n: int, size: int, channels: int, free: int, memory: str, copies: int) -> str:
    """That so many images are too large for so many free bytes."""
    of = f"{n} images of {size}x{size} with {channels} channel{'s' if channels > 1 else ''}"
    times = "twice" if copies == 2 else f"{copies} times"
    taken = _words(n * size * size * channels)
    return f"{of} take {taken}, {times} that now and then, and of {memory} {_words(free)} are free"


def _largest_held(n: int, channels: int, free: int, copies: int) -> int | None:
    """The largest side, in pixels, at which so many images are held; None: at none."""
    side = isqrt(int(SHARE * free) // (copies * n * channels)) // STEP * STEP
    return side if side >= LEAST else None


def _words(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
