"""What a large folder of images costs: data card, cache, a run that is killed in the middle, and the peaks of memory.

    python -m benchmarks.data SOURCE INTO

Makes N small JPEG files in INTO/images, copies with noise of those in SOURCE (a folder of classes), and a cache beside
them. Every step is a process of its own, which says how long it took and what it and the largest of its children had in
memory at their peaks, pages of mapped files included. Nothing outside of INTO is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from objectives.data.cache import shards
from objectives.data.cache.kept import DECODING
from objectives.data.card import examine
from objectives.data.reading import keep
from objectives.task import DataSpec

N, NOISE, QUALITY = 100_000, 8, 90  # files, grey levels at most, of JPEG
AT_ONCE = 500  # files that a process makes


def make(source: Path, into: Path, n: int) -> None:
    """Writes the files; copies differ by their noise."""
    found = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: (path.name, path.parent))
    pairs = [
        (path, into / path.parent.name / f"{number:06}.jpg") for number, path in enumerate(islice(cycle(found), n))
    ]
    for place in {copy.parent for _, copy in pairs}:
        place.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(_copy, *zip(*pairs, strict=True), chunksize=AT_ONCE))


def _copy(path: Path, copy: Path) -> None:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    noise = np.random.default_rng(int(copy.stem)).integers(-NOISE, NOISE + 1, pixels.shape)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(copy, quality=QUALITY)


def step(name: str, folder: Path) -> dict[str, object]:
    """Does one step and says what it took."""
    spec, began, found = DataSpec(f"folder:{folder}", size=32), time.perf_counter(), ""
    decoded: list[tuple[int, int]] = []
    child = 0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal child
        if what == DECODING:
            child = max(child, *map(_peak, _children()), 0)
            decoded.append((done, total))
            if name == "killed" and 2 * done > total:
                os.kill(os.getpid(), signal.SIGKILL)

    if name in ("killed", "resumed", "fresh", "again", "one changed"):
        keep(spec, progress)
    elif name == "load":
        import torch

        from objectives.data.dataset import load

        data = load(spec, torch.device("cpu"))
        found = f"{len(data.train.y)} + {len(data.val.y)} images"
    else:
        card = examine(DataSpec(f"folder:{folder}"), decode=name == "card", progress=progress)
        found = f"{card.n_train} images, suggested {card.suggested_size}, {len(card.warnings)} warnings"
    n_decoded = decoded[-1][0] - decoded[0][0] if decoded else 0
    peaks = [_peak(os.getpid()), child]
    return {"seconds": time.perf_counter() - began, "peaks": peaks, "decoded": n_decoded, "found": found}


def _children() -> list[int]:
    return [int(pid) for tasks in Path("/proc/self/task").iterdir() for pid in (tasks / "children").read_text().split()]


def _peak(pid: int) -> int:
    """Kilobytes at the peak of a process; not `getrusage`, which counts for a child what its parent had at the fork."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def rows(folder: Path, cache: Path) -> Iterator[list[str]]:
    """A row of the table for each step."""
    for name in ("heads", "killed", "resumed", "again", "one changed", "heads again", "load", "card", "fresh"):
        if name == "one changed":
            first = next(folder.rglob("*.jpg"))
            first.write_bytes(next(path for path in folder.rglob("*.jpg") if path != first).read_bytes() + b"\0")
        if name == "fresh":
            shutil.rmtree(cache / "frontrunner")
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.data", "--step", name, str(folder), str(folder.parent)],
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            capture_output=True,
            text=True,
        )
        if done.returncode == -signal.SIGKILL:
            tables = [shards.table(part) for part in (cache / "frontrunner" / "images").glob("*-part-*")]
            kept = sum(len(table[0]) for table in tables if table is not None)
            yield [name, f"{time.perf_counter() - began:.1f}", str(kept), "", "", "SIGKILL; decoded: what is kept"]
            continue
        if done.returncode:
            raise RuntimeError(done.stderr)
        said = json.loads(done.stdout)
        own, child = (f"{peak / 1e3:.0f}" if peak else "" for peak in said["peaks"])
        yield [name, f"{said['seconds']:.1f}", str(said["decoded"]), own, child, said["found"]]


def main() -> int:
    """Makes the folder and prints the table."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.data", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("source", type=Path, help="a folder of classes of images")
    p.add_argument("into", type=Path, help="where the folder and the cache are made")
    p.add_argument("--n", type=int, default=N, help="files")
    p.add_argument("--step", help=argparse.SUPPRESS)
    options = p.parse_args()
    if options.step:
        print(json.dumps(step(options.step, options.source)))
        return 0
    folder = options.into / "images"
    make(options.source, folder, options.n)
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    print(
        f"{date.today()}, {platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} core(s), ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f}, {options.n} files, {n_bytes / 1e6:.0f} MB\n")
    print("| step | seconds | decoded | peak, MB | largest child, MB | found |\n|---|---|---|---|---|---|")
    for row in rows(folder, options.into / "cache"):
        print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
