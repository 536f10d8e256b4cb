"""A training on streamed images is the training on images that memory holds, bit for bit, whatever a strategy does."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from objectives.data.cache.stored import Stored
from objectives.data.dataset import Dataset, Images
from objectives.data.streaming import MOST_AHEAD, READERS, Streamed
from objectives.export import load_model
from objectives.mirroring import mirrored, seen
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.strategies.balanced_sampling import BalancedSampling
from objectives.strategies.base import Strategy
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Seeds, Task
from tests.objectives.data.images import make_folder
from tests.objectives.strategies.cases import CASES, EMULATED, PLAIN, Case, finish, same_weights, untimed

pytestmark = pytest.mark.usefixtures("cache")

CPU = torch.device("cpu")
READ_IMAGES = (  # beside batches
    *("Adaptive", "BalancedSampling", "DataFraction", "FrozenStages", "LinearProbe", "PruneTrain", "Swa", "Whitening"),
)


@pytest.fixture(scope="session")
def streamed(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The digits in a file."""
    place = tmp_path_factory.mktemp("streamed")

    def stored(images: Images, name: str) -> Images:
        assert isinstance(images.x, torch.Tensor)
        np.save(place / name, images.x.permute(0, 2, 3, 1).numpy())
        return Images(Streamed(Stored.at(place / name)), images.y)

    return replace(digits, train=stored(digits.train, "train.npy"), val=stored(digits.val, "val.npy"))


def uneven(dataset: Dataset) -> Dataset:
    """The data set with fewer images of the first classes."""
    y = dataset.train.y
    kept = torch.cat([(y == label).nonzero().flatten()[: 10 + 4 * label] for label in range(10)]).sort().values
    return replace(dataset, train=dataset.train.part(kept))


def check_alike(pipeline: Pipeline, one: Dataset, other: Dataset, task: Task) -> None:
    mine, theirs = finish(pipeline, one, task), finish(pipeline, other, task)
    assert [untimed(report) for report in mine[0]] == [untimed(report) for report in theirs[0]]
    assert same_weights(mine[1].model, theirs[1].model)
    assert not [each for each in threading.enumerate() if each.name.startswith(READERS)]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in READ_IMAGES else pytest.mark.long) for n in CASES if n not in EMULATED]
)
def test_every_strategy_does_the_same(name: str, digits: Dataset, streamed: Dataset) -> None:
    case: Case = CASES[name]
    check_alike(case.using(case.active), digits, streamed, case.task)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 7},
        {"batch_size": 1000},
        {"crop": True, "flip": True},
        {"crop": True, "flip": True, "alternating_flip": True, "cutout": 0.25},
        {"cutout": 0.5, "number_format": "bf16"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "strategies", [(), (DataFraction(start=0.3, steps=2),), (BalancedSampling(0.5),)], ids=["plain", "fraction", "even"]
)
def test_whatever_is_augmented_or_chosen(
    settings: dict[str, object], strategies: tuple[Strategy, ...], digits: Dataset, streamed: Dataset
) -> None:
    pipeline = replace(PLAIN, epochs=3, strategies=strategies, **settings)  # type: ignore[arg-type]
    one, other = (replace(uneven(data), flip=True) for data in (digits, streamed))
    check_alike(pipeline, one, other, Task(DataSpec("digits"), "small", stem_stride=2, test_time_flip=True))


def test_on_all_images_and_on_every_split_it_is_the_same(tmp_path: Path) -> None:
    spec = DataSpec(f"folder:{make_folder(tmp_path / 'data', [40, 50])}", size=8)
    pipeline, seeds = Pipeline(batch_size=16, epochs=2, width=0.5), Seeds.of(0, 0)
    told, places = [], [tmp_path / "held", tmp_path / "streamed"]
    for place in places:
        task = Task(replace(spec, streamed=place == places[1]), "small")
        objective = TrainingObjective(task, "cpu")
        assert objective.facts()["data"].get("streamed", False) == task.data.streamed  # type: ignore[attr-defined]
        reports = [
            untimed(report) for whole in (False, True) for report in objective.reports(pipeline, seeds, whole=whole)
        ]
        list(objective.reports(pipeline, seeds))
        objective.export(place, {})
        told.append((reports, objective.test(place), load_model(place).calibration))
    assert told[0] == told[1]
    assert len(told[0][0]) == 4


def test_what_mirror_images_are_to_a_network_is_the_same(digits: Dataset, streamed: Dataset) -> None:
    task = Task(DataSpec("digits"), "small", stem_stride=2)
    one, other = (replace(mirrored(task, data, lambda *_: 1e-3, 1.0), seconds=0.0) for data in (digits, streamed))
    assert one == other
    model = finish(replace(PLAIN, epochs=1, strategies=(Whitening(),)), digits, task)[1].model
    assert seen(model, digits) == seen(model, streamed)


class Slow(Streamed):
    """Images that take the processor, or the disk, a while."""

    working, waiting = 0.0, 0.0  # seconds

    def _fetched(self, rows: np.ndarray) -> torch.Tensor:
        end = time.thread_time() + self.working
        while time.thread_time() < end:
            pass
        time.sleep(self.waiting)
        return super()._fetched(rows)


@pytest.mark.parametrize("kind", ["working", "waiting"])
def test_what_reading_takes_is_charged_as_a_device_works_and_is_on_the_wall(kind: str, digits: Dataset) -> None:
    assert isinstance(digits.train.x, torch.Tensor)
    slow = Slow(digits.train.x.permute(0, 2, 3, 1).numpy())
    setattr(slow, kind, 0.02)
    data = replace(digits, train=Images(slow, digits.train.y))
    one, other = (finish(replace(PLAIN, epochs=2), each)[0][-1] for each in (digits, data))
    n = 20  # batches
    assert other.train_seconds - one.train_seconds > 0.5 * n * 0.02 if kind == "working" else True
    assert other.train_seconds < one.train_seconds + 0.5 * n * 0.02 or kind == "working"
    assert other.wall_seconds > 0.02 * n / MOST_AHEAD
