"""Sizes: the real program over numbers of classes and images, sides, channels and batches ends in a front or a line."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import run
from search.views import figures

TOML = """
[data]
name = "folder:{folder}"
size = {side}
channels = {channels}

[network]
family = "{family}"
stem_stride = {stem_stride}

[space]
name = "everything"
epochs = [1, 1]
batch_size = [{least}, {most}]
depth = [1, 1]
width = [0.25, 0.5]
executors = ["eager"]

[search]
n_trials = {n_trials}
sampler = "random"
stopping = "none"
repeats = 0
confirm = 0
floor = 0.0
"""


@dataclass(frozen=True)
class Case:
    """A folder of images, and a study on it."""

    n_classes: int
    n_images: int
    side: int  # pixels
    channels: int = 1
    batch_size: tuple[int, int] = (16, 64)
    family: str = "small"
    stem_stride: int = 2
    n_trials: int = 9  # of which the first six are anchors

    def folder(self, path: Path) -> Path:
        """Noise, brighter in every class."""
        random = np.random.default_rng(0)
        for number in range(self.n_images):
            label = number % self.n_classes
            place = path / f"class{label:04}"
            place.mkdir(parents=True, exist_ok=True)
            shape = (self.side, self.side, 3)[: 2 if self.channels == 1 else 3]
            pixels = random.integers(0, 128, shape, np.uint8) + np.uint8(127 * label // self.n_classes)
            Image.fromarray(pixels).save(place / f"{number}.png")
        return path


TRAINS = [
    Case(2, 20, side=4, batch_size=(2, 64), n_trials=12),
    Case(3, 20, side=8, batch_size=(2, 512), family="thin"),
]
LONG = [
    Case(2, 20, side=4, channels=3, batch_size=(1, 2), stem_stride=1, n_trials=12),
    Case(10, 40, side=28, batch_size=(64, 512)),
    Case(100, 400, side=8, batch_size=(32, 512), n_trials=24),
    Case(1000, 5000, side=8, channels=3, batch_size=(256, 512), n_trials=12),
    Case(3, 60, side=48, channels=3, n_trials=24),
    Case(3, 40, side=96, batch_size=(8, 16), n_trials=24),
    Case(2, 40, side=128, channels=3, batch_size=(8, 16), n_trials=16),
    Case(2, 24, side=224, channels=3, batch_size=(1, 8), n_trials=16),
    Case(2, 20, side=5, family="fast", batch_size=(2, 8), n_trials=24),
]
REFUSED = [
    Case(2, 20, side=4, batch_size=(1, 2), family="thin"),
    Case(3, 20, side=8, batch_size=(1, 64), family="fast", stem_stride=1),
]


@pytest.fixture(autouse=True)
def restored_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory and caches of its own; the program's signal handlers are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FRONTRUNNER_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    monkeypatch.setattr(figures, "installed", lambda: False)  # figures take a second to load, and are not the point
    interruptions = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(interruption) for interruption in interruptions]
    yield
    for interruption, handler in zip(interruptions, before, strict=True):
        signal.signal(interruption, handler)


def run_study(case: Case, tmp_path: Path) -> int:
    """The exit code of the program, in this process, on the case."""
    values = vars(case) | {"least": case.batch_size[0], "most": case.batch_size[1]}
    (tmp_path / "studies").mkdir()
    text = TOML.format(folder=case.folder(tmp_path / "images"), **values)
    (tmp_path / "studies" / "sizes.toml").write_text(text)
    return run.main(["--study", "sizes", "--device", "cpu", "--in-process", "--json", "--quiet"])


@pytest.mark.parametrize("case", [*TRAINS, *(pytest.param(case, marks=pytest.mark.long) for case in LONG)], ids=str)
def test_every_size_trains(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_study(case, tmp_path) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["front"]
    ended = set(result["trials"]["by_reason"])
    assert ended <= {"complete", "diverged"}, ended
    assert result["trials"]["complete"] >= 6


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_a_size_that_cannot_train_is_refused_in_one_line_before_the_first_trial(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_study(case, tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"[space] batch_size = [1, {case.batch_size[1]}]: batches of one image of {case.side} pixels" in line
    assert "take larger batches or larger images" in line
