"""Laws of images that are fetched as they are used: the numbers are those of images that memory holds, bit for bit."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from objectives.data import streaming
from objectives.data.augment import Augmentation, Batches, Normalisation
from objectives.data.cache import stored
from objectives.data.cache.stored import Stored, converted, piecewise
from objectives.data.dataset import Dataset, Images, load
from objectives.data.held_out import load_test
from objectives.data.streaming import READERS, Streamed
from objectives.errors import DataError
from objectives.task import DataSpec
from tests.objectives.data import test_augment
from tests.objectives.data.images import CPU, grey, make_folder
from tests.objectives.data.test_augment import EVERYTHING, PLAIN, SEEDS

pytestmark = pytest.mark.usefixtures("cache")

AUGMENTATIONS = [
    PLAIN,
    Augmentation(padding=1),
    Augmentation(flip=True),
    Augmentation(padding=1, flip=True, alternating=True),
    Augmentation(cutout=2),
    EVERYTHING,
]


def numbered(n: int, channels: int = 1) -> Dataset:
    """Images that lie in memory as data sets do."""
    data = test_augment.numbered(n, channels)
    x = data.train.x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)
    return replace(data, train=Images(x, data.train.y))


def in_file(images: Images, path: Path) -> Images:
    """The same images, streamed from a file."""
    np.save(path, images.x.permute(0, 2, 3, 1).numpy())  # type: ignore[union-attr]
    return Images(Streamed(Stored.at(path)), images.y)


def in_memory(images: Images, _: Path) -> Images:
    return images.on(CPU, streamed=True)


each_place = pytest.mark.parametrize("place", [in_memory, in_file])
Place = Callable[[Images, Path], Images]


def readers() -> list[threading.Thread]:
    """The threads that fetch images."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(READERS)]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal and lie alike, so that what is computed with them is equal, too."""
    return torch.equal(one, other) and one.stride() == other.stride()


@each_place
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 6, 99])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=str)
def test_batches_are_those_of_images_that_memory_holds(
    augmentation: Augmentation, batch_size: int, channels: int, place: Place, tmp_path: Path
) -> None:
    held = numbered(20, channels)
    streamed = replace(held, train=place(held.train, tmp_path / "x.npy"))
    normalise = Normalisation(held, CPU)
    one, other = (Batches(data.train, batch_size, augmentation, normalise, SEEDS) for data in (held, streamed))
    assert (one.shape, one.n_steps) == (other.shape, other.n_steps)
    assert all(map(same, one.first(), other.first()))
    for number in (0, 1, 5):
        for mine, theirs in zip(one.epoch(number), other.epoch(number), strict=True):
            assert all(map(same, mine, theirs))


@each_place
def test_parts_of_images_are_those_of_images_that_memory_holds(place: Place, tmp_path: Path) -> None:
    held = numbered(40, 3).train
    streamed = place(held, tmp_path / "x.npy")
    chosen, others = torch.tensor([3, 3, 39, 0, 7]), torch.tensor([5, 1])
    for one, other in (
        (held, streamed),
        (held.part(chosen), streamed.part(chosen)),
        (held.part(chosen).part(others[1:]), streamed.part(chosen).part(others[1:])),
        (held.part(others).joined(held.part(chosen)), streamed.part(others).joined(streamed.part(chosen))),
        (held.joined(numbered(9, 3).train), streamed.joined(in_memory(numbered(9, 3).train, tmp_path))),
    ):
        assert one.x.shape == other.x.shape
        assert len(one.x) == len(other.x)
        assert torch.equal(one.y, other.y)
        assert torch.equal(one.x[:], other.x[:])  # type: ignore[index]
        for mine, theirs in zip(one.piecewise(3), other.piecewise(3), strict=True):
            assert all(map(same, mine, theirs))


@each_place
def test_an_epoch_that_is_left_early_leaves_no_thread(place: Place, tmp_path: Path) -> None:
    data = numbered(40)
    batches = Batches(place(data.train, tmp_path / "x.npy"), 4, EVERYTHING, Normalisation(data, CPU), SEEDS)
    running = batches.epoch(0)
    assert len(list(islice(running, 2))) == 2
    assert readers()
    running.close()  # type: ignore[attr-defined]
    assert not readers()
    for _ in batches.epoch(0):
        assert readers()
        break
    assert not readers()
    assert len(list(batches.epoch(0))) == 10
    assert not readers()


def test_an_error_between_two_batches_leaves_no_thread() -> None:
    def train() -> None:
        for _ in Batches(in_memory(data.train, Path()), 4, PLAIN, Normalisation(data, CPU), SEEDS).epoch(0):
            raise MemoryError

    data = numbered(40)
    with pytest.raises(MemoryError):
        train()
    assert not readers()


def test_no_more_is_fetched_ahead_than_a_few_batches_of_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []

    class Counted(Streamed):
        def _fetched(self, rows: np.ndarray) -> torch.Tensor:
            fetched.append(len(rows))
            return super()._fetched(rows)

    def begun(n_bytes: int) -> int:
        """Batches that are fetched when the first is there."""
        monkeypatch.setattr(streaming, "AHEAD", n_bytes)
        fetched.clear()
        images = Counted(np.zeros((40, 4, 4, 3), np.uint8))
        running = images.ahead(torch.arange(40).split(4))
        next(running)
        time.sleep(0.1)
        n = len(fetched)
        running.close()  # type: ignore[attr-defined]
        return n

    batch = 4 * 4 * 4 * 3
    assert begun(0) == begun(batch) == 2  # the one in use, and one ahead
    assert begun(3 * batch) == 4
    assert begun(10**9) == 1 + streaming.MOST_AHEAD


# --- data sets --------------------------------------------------------------------------------------------------------


def colourful(path: Path, counts: tuple[int, ...] = (24, 30)) -> Path:
    """A folder of images in colour, with copies in both classes, and a class of one image."""
    folder = make_folder(path, [*counts, 1])
    for number, place in enumerate(sorted(folder.iterdir())):
        (place / "colour.ppm").write_bytes(b"P6 4 4 255\n" + bytes(range(number, 48 + number)))
        (place / "again.pgm").write_bytes(grey(0))
    (folder / "class002" / "again.pgm").unlink()
    (folder / "class002" / "colour.ppm").unlink()
    return folder


SPECS: dict[str, Callable[[Path], DataSpec]] = {
    "digits": lambda _: DataSpec("digits", n_train=200),
    "digits, larger and in colour": lambda _: DataSpec("digits", n_train=200, size=12, channels=3),
    "folder": lambda path: DataSpec(f"folder:{colourful(path, (200, 300))}", size=4, drop_small_classes=True),
    "folder, split three times": lambda path: DataSpec(f"folder:{colourful(path)}", size=8, drop_small_classes=True),
    "folder in grey": lambda path: DataSpec(
        f"folder:{colourful(path)}", size=8, channels=1, n_train=12, drop_small_classes=True
    ),
}


NOTHING = Images(torch.empty(0), torch.empty(0))


def untold(data: Dataset) -> Dataset:
    """A data set without its images, and without how they are held."""
    about = "\n".join(data.about.splitlines()[:3])
    return replace(data, train=NOTHING, val=NOTHING, again=(), about=about)


@pytest.mark.parametrize("name", SPECS)
def test_a_data_set_is_the_same_whether_memory_holds_it_or_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPECS[name](tmp_path / "data")
    held = load(replace(spec, streamed=False), CPU)
    monkeypatch.setattr(stored, "AT_ONCE", 100)  # bytes: a part of an image at a time
    streamed = load(replace(spec, streamed=True), CPU)
    assert (held.is_streamed, streamed.is_streamed) == (False, True)
    assert untold(held) == untold(streamed)
    for one, other in zip((*held.splits, held.whole), (*streamed.splits, streamed.whole), strict=True):
        assert (one.mean, one.std) == (other.mean, other.std)
        for mine, theirs in ((one.train, other.train), (one.val, other.val)):
            assert isinstance(mine.x, torch.Tensor)
            assert same(mine.x, theirs.x[:])
            assert torch.equal(mine.y, theirs.y)


def test_what_is_free_decides_and_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSpec(f"folder:{make_folder(tmp_path / 'data', [10, 10])}", size=64)
    monkeypatch.setattr("objectives.data.dataset.free_on_host", lambda: 50_000)
    found = load(spec, CPU)
    assert found.is_streamed
    *_, line = found.about.splitlines()
    assert line == (
        "images are streamed as they are used: 20 images of 64x64 with 1 channel take 0.1 MB, 4 times that now and "
        "then, and of memory 0.1 MB are free (it would hold them at size = 20)"
    )
    assert not load(replace(spec, size=20), CPU).is_streamed
    assert load(replace(spec, size=24), CPU).is_streamed
    assert not load(replace(spec, size=24, streamed=False), CPU).is_streamed
    assert "the study began so" in load(replace(spec, size=20, streamed=True), CPU).about


def test_images_with_a_name_that_memory_does_not_hold_at_another_size_are_streamed_from_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec("digits", n_train=200, size=24)
    held = load(spec, CPU)
    monkeypatch.setattr("objectives.data.dataset.free_on_host", lambda: 100_000)
    for _ in range(2):
        streamed = load(spec, CPU)
        assert streamed.is_streamed
        assert streamed.content_hash == held.content_hash
        assert torch.equal(streamed.train.x[:], held.train.x[:])
    assert len(list((cache / "images").glob("24-*"))) == 1
    monkeypatch.setattr("objectives.data.cache.scaled.cache_home", lambda: None)
    with pytest.raises(DataError, match=r"1500 images of 24x24 .* the largest size that fits is \d+ \(size = \d+"):
        load(spec, CPU)


@pytest.mark.parametrize("test_channels", ["grey", "colour"])
def test_a_test_split_is_the_same_whether_memory_holds_the_data_or_not(tmp_path: Path, test_channels: str) -> None:
    folder = tmp_path / "data"
    make_folder(folder / "train", [10, 10])
    make_folder(folder / "test", [5, 5])
    if test_channels == "colour":
        (folder / "test" / "class000" / "colour.ppm").write_bytes(b"P6 4 4 255\n" + bytes(range(48)))
    spec = DataSpec(f"folder:{folder}", size=8)
    held, streamed = (load_test(spec, load(replace(spec, streamed=each), CPU)) for each in (False, True))
    assert held is not None
    assert streamed is not None
    assert held.warnings == streamed.warnings
    assert any("training or validation images as well: 10 of" in line for line in held.warnings)
    assert torch.equal(held.images.x[:], streamed.images.x[:])


def test_a_test_split_is_streamed_where_the_data_are() -> None:
    """Also one that the memory of the host holds: that of a GPU may not."""
    spec = DataSpec("digits")
    held, streamed = (load_test(spec, load(replace(spec, streamed=each), CPU)) for each in (False, True))
    assert held is not None
    assert streamed is not None
    assert isinstance(held.images.x, torch.Tensor)
    assert isinstance(streamed.images.x, Streamed)
    assert torch.equal(held.images.x, streamed.images.x[:])


# --- files ------------------------------------------------------------------------------------------------------------


def kept_in(path: Path, n: int = 12, channels: int = 3) -> tuple[np.ndarray, Stored]:
    array = np.random.default_rng(n).integers(0, 256, (n, 4, 5, channels), np.uint8)
    np.save(path, array)
    return array, Stored.at(path)


@pytest.mark.parametrize("chosen", [[], [0], [11], [0, 1, 2], [5, 5, 4], [2, 3, 4, 9, 10, 0, 1], list(range(12))])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("asked", [1, 3])
def test_what_is_read_of_a_file_is_what_lies_there(
    chosen: list[int], channels: int, asked: int, tmp_path: Path
) -> None:
    array, found = kept_in(tmp_path / "x.npy", channels=channels)
    found, some = stored.with_channels(found, asked), np.array(chosen, np.int64)
    expected = converted(array, asked)
    assert found.shape == expected.shape
    assert np.array_equal(found[some], expected[some])
    assert np.array_equal(stored.part(found, some)[:], expected[some])
    assert np.array_equal(np.concatenate(list(piecewise(found))), expected)


def test_a_file_that_is_removed_is_read_on(tmp_path: Path) -> None:
    array, found = kept_in(tmp_path / "x.npy")
    (tmp_path / "x.npy").unlink()
    assert np.array_equal(found[:], array)


def test_a_child_reads_what_its_parent_has_open_though_it_is_removed(tmp_path: Path) -> None:
    array, found = kept_in(tmp_path / "x.npy")
    (tmp_path / "x.npy").unlink()
    make, words = found.file.__reduce__()
    code = (
        "import ast, sys, numpy; from objectives.data.cache.stored import File;"
        "print(File(*ast.literal_eval(sys.argv[1])).read(numpy.arange(12)).sum())"
    )
    done = subprocess.run([sys.executable, "-c", code, repr(words)], capture_output=True, text=True, check=True)
    assert make is type(found.file)
    assert int(done.stdout) == array.sum()


@each_place
def test_streamed_images_go_to_another_process(place: Place, tmp_path: Path) -> None:
    images = place(numbered(20, 3).train, tmp_path / "x.npy")
    there = ForkingPickler.loads(ForkingPickler.dumps(images))
    assert torch.equal(there.x[:], images.x[:])


def test_a_file_that_is_cut_off_is_told_in_one_line(tmp_path: Path) -> None:
    _, found = kept_in(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", 300)
    assert len(found[:2]) == 2
    with pytest.raises(DataError, match=r"^images cannot be read from .*/x.npy \(it was cut off\): look at .*$"):
        found[:]


def test_a_page_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = kept_in(tmp_path / "x.npy")

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", failing)
    data = numbered(12)
    images = Images(Streamed(found), data.train.y)
    batches = Batches(images, 4, EVERYTHING, Normalisation(replace(data, mean=(0.0,) * 3, std=(1.0,) * 3), CPU), SEEDS)
    with pytest.raises(DataError, match=r"^images cannot be read from .*/x.npy \(Input/output error\): look at .*$"):
        list(batches.epoch(0))
    assert not readers()


def test_files_that_nobody_reads_any_more_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        _, found = kept_in(tmp_path / "x.npy")
        assert len(os.listdir("/proc/self/fd")) == before + 1
        del found
    assert len(os.listdir("/proc/self/fd")) == before


# --- memory -----------------------------------------------------------------------------------------------------------

# The limit is the kernel's on what a process may take for itself (RLIMIT_DATA: heap, anonymous maps, stacks; not what
# the kernel keeps of files, which it takes back when it is short). It is set once everything is imported and warm.
SCRIPT = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.strategies.balanced_sampling import BalancedSampling
from objectives.strategies.data_fraction import DataFraction
from objectives.task import DataSpec, Seeds, Task

folder, size, n_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PLAIN = Pipeline(batch_size=16, epochs=2, width=0.25, crop=True, flip=True)
warm = TrainingObjective(Task(DataSpec("digits", n_train=64, size=size, channels=3), "thin", stem_stride=2), "cpu")
list(warm.reports(PLAIN, Seeds(0, 0, 0)))
del warm
taken = 1024 * int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (taken + n_bytes,) * 2)
task = Task(DataSpec(f"folder:{folder}", size=size), "thin", stem_stride=2)
objective = TrainingObjective(task, "cpu")
for strategies in ((), (DataFraction(start=0.5, until=0.5),), (BalancedSampling(),)):
    pipeline = replace(PLAIN, strategies=strategies)
    reports = list(objective.reports(pipeline, Seeds(1, 2, 3), whole=not strategies))
print(objective.facts()["data"].get("streamed"), len(reports), objective.facts()["about"].splitlines()[-1])
"""


@pytest.mark.long
def test_data_of_twice_the_memory_that_is_allowed_are_trained_on(tmp_path: Path) -> None:
    size, n = 96, 4000
    allowed = n * size * size * 3 // 2
    random = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "data" / f"class{label}").mkdir(parents=True)
    head = b"P6 %d %d 255\n" % (size, size)
    for number in range(n):
        pixels = random.integers(0, 256, size * size * 3, np.uint8).tobytes()
        label = min(2, number % 5)
        (tmp_path / "data" / f"class{label}" / f"{number}.ppm").write_bytes(head + pixels)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / "data"), str(size), str(allowed)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"True 2 images are streamed as they are used: 4000 images of 96x96", done.stdout)
