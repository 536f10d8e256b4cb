"""What tests of reductions share: a tiny trained network, exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectives.data.dataset import Dataset
from objectives.export import ExportedModel, export, load_model
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task
from objectives.train import train

PIPELINE = Pipeline(batch_size=50, lr=0.2, epochs=8, schedule="one_cycle", crop=False, flip=False, width=0.5)


@pytest.fixture(scope="session")
def base_folder(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a residual network of 8 and 16 channels that tells about nine in ten digits."""
    training = train(PIPELINE, Task(DataSpec("digits"), "small", stem_stride=2), digits, Seeds(1, 2, 3))
    while True:
        try:
            next(training)
        except StopIteration as end:
            folder = tmp_path_factory.mktemp("base") / "model"
            export(end.value, digits, folder, {})
            return folder


@pytest.fixture
def base(base_folder: Path) -> ExportedModel:
    """That network."""
    return load_model(base_folder)
