"""A network that was trained on a folder of small pictures, as a study exports it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task

CLASSES = ("=cmd()", "Füchse", "c")  # what a class may be called


def picture(label: int, seed: int, side: int = 12) -> Image.Image:
    """A noisy picture in which one colour prevails."""
    noise = np.random.default_rng(100 * label + seed).integers(0, 140, (side, side + 3, 3), np.uint8)
    noise[..., label] += 80
    return Image.fromarray(noise)


@pytest.fixture(scope="session")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes, with a test split."""
    place = tmp_path_factory.mktemp("birds")
    for split, n in (("train", 30), ("test", 8)):
        for label, name in enumerate(CLASSES):
            (place / split / name).mkdir(parents=True)
            for seed in range(n):
                picture(label, seed + 50 * (split == "test")).save(place / split / name / f"{seed:02}.png")
    return place


@pytest.fixture(scope="session")
def objective(birds: Path) -> TrainingObjective:
    """What trains on it, at a size that none of the pictures has."""
    task = Task(DataSpec(f"folder:{birds}", size=16, n_train=60), "small", stem_stride=2)
    return TrainingObjective(task, "cpu")


@pytest.fixture(scope="session")
def model(objective: TrainingObjective, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its network."""
    pipeline = Pipeline(batch_size=10, epochs=4, lr=0.4, crop=False, flip=False, width=0.5)
    list(objective.reports(pipeline, Seeds(1, 2, 3)))
    place = tmp_path_factory.mktemp("studies") / "trial-00004"
    objective.export(place, {"study": "birds", "trial": 4})
    return place
