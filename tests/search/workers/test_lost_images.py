"""Images that are streamed from the cache, and lost while a worker trains on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from objectives.data.dataset import load
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task
from search.commands.exits import DATA, OK, exit_code
from search.workers.process import WorkerProcess
from search.workers.seam import preparation
from tests.objectives.data.images import make_folder


def cut_off(pixels: Path) -> None:
    os.truncate(pixels, 1000)


@pytest.mark.parametrize(("harm", "code"), [(cut_off, DATA), (Path.unlink, OK)], ids=["cut off", "removed"])
def test_images_that_are_lost_end_a_training_in_one_line_and_are_decoded_again(
    harm: Callable[[Path], None],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = DataSpec(f"folder:{make_folder(tmp_path / 'data', [200, 200])}", size=8, streamed=True)

    def trained() -> int:
        with closing(WorkerProcess(preparation(Task(spec, "small"), "cpu"), fresh=True)) as worker:
            for report in worker.reports(Pipeline(batch_size=16, epochs=3, width=0.5), Seeds.of(0, 0)):
                if report.epoch == 1:
                    (pixels,) = (tmp_path / "cache" / "frontrunner" / "images").glob("*/pixels.npy")
                    harm(pixels)
        return OK

    assert exit_code(trained, "") == code
    said = capsys.readouterr().err
    assert said.count("\n") == (code != OK)
    assert said.startswith("error: images cannot be read from " if code != OK else "")
    again = load(spec, torch.device("cpu"))
    assert len(again.whole.train.x[:]) == 400
