"""Laws of trainings on several splits of few images, side by side."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from objectives.data.dataset import Dataset, Images
from objectives.export import load_model
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Report
from objectives.repeated import train_on_splits
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.task import DataSpec, Seeds, Task
from objectives.train import Trained, train
from tests.objectives.strategies.cases import same_weights, untimed

TASK = Task(DataSpec("digits"), "small", stem_stride=2)
PIPELINE = Pipeline(batch_size=20, epochs=4, lr=0.2, schedule="one_cycle", crop=False, flip=False, width=0.5)
# It copies channels by lot: from the default generator, which all trainings share.
GROWING = replace(PIPELINE, strategies=(Net2Net(start_width=0.5, start_depth=1.0, at=0.3, until=0.3),))
SEEDS = Seeds(1, 2, 3)


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """180 digits in three splits; each third validates once."""
    thirds = [torch.arange(180) % 3 == part for part in range(3)]
    x, y = digits.train.x[:180], digits.train.y[:180]
    splits = [replace(digits, train=Images(x[~third], y[~third]), val=Images(x[third], y[third])) for third in thirds]
    return replace(splits[0], again=tuple(splits[1:]))


def finish(training: Generator[Report, None, Trained]) -> tuple[list[Report], Trained]:
    reports = []
    while True:
        try:
            reports.append(next(training))
        except StopIteration as end:
            return reports, end.value


def alone(pipeline: Pipeline, few: Dataset) -> list[tuple[list[Report], Trained]]:
    """What trainings on each split are, one after the other."""
    return [finish(train(pipeline, TASK, split, SEEDS.of_split(n))) for n, split in enumerate(few.splits)]


@pytest.mark.parametrize("pipeline", [PIPELINE, GROWING], ids=["plain", "growing"])
def test_a_training_beside_others_is_what_it_is_alone(pipeline: Pipeline, few: Dataset) -> None:
    reports, trained = finish(train_on_splits(pipeline, TASK, few, SEEDS))
    apart = alone(pipeline, few)
    assert same_weights(trained.model, apart[0][1].model)
    for epoch, report in enumerate(reports):
        each = [known[epoch] for known, _ in apart]
        assert report.accuracy == pytest.approx(fmean(one.accuracy for one in each))  # of thirds of the same size
        assert report.right == tuple(map(sum, zip(*(one.right for one in each), strict=True)))
        assert report.loss == fmean(one.loss for one in each)
        assert report.train_flops == fmean(one.train_flops for one in each)
        assert (report.events, report.architecture) == (each[0].events, each[0].architecture)
    assert trained.report == reports[-1]
    assert reports[-1].epoch == reports[-1].epochs == 4


def test_the_accuracies_are_those_of_all_images_of_each_class(few: Dataset) -> None:
    reports, _ = finish(train_on_splits(PIPELINE, TASK, few, SEEDS))
    counts = few.validated.bincount().tolist()
    assert sum(counts) == 180
    for report in reports:
        assert report.accuracy == sum(report.right) / 180
        assert report.balanced_accuracy == pytest.approx(
            fmean(r / n for r, n in zip(report.right, counts, strict=True))
        )
        assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_it_is_reproducible_and_leaves_the_default_generator_alone(few: Dataset) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    (reports, trained), (others, other) = (finish(train_on_splits(GROWING, TASK, few, SEEDS)) for _ in range(2))
    assert list(map(untimed, reports)) == list(map(untimed, others))
    assert same_weights(trained.model, other.model)
    assert torch.equal(torch.get_rng_state(), before)


def test_seconds_are_those_of_one_training_and_only_grow(few: Dataset) -> None:
    training = train_on_splits(PIPELINE, TASK, few, SEEDS)
    seconds = [0.0, *(report.train_seconds for report in training)]
    assert seconds == sorted(seconds)


def test_one_split_is_the_ordinary_training(digits: Dataset) -> None:
    (reports, trained), (others, other) = (
        finish(run(PIPELINE, TASK, digits, SEEDS)) for run in (train_on_splits, train)
    )
    assert list(map(untimed, reports)) == list(map(untimed, others))
    assert same_weights(trained.model, other.model)


def test_trainings_that_end_at_different_epochs_are_told_until_the_last_has_ended(few: Dataset) -> None:
    pipeline = replace(PIPELINE, epochs=12, lr=0.4, strategies=(Plateau(gain=0.3),))
    lengths = [len(reports) for reports, _ in alone(pipeline, few)]
    assert len(set(lengths)) > 1
    reports, _ = finish(train_on_splits(pipeline, TASK, few, SEEDS))
    assert [report.epoch for report in reports] == list(range(1, max(lengths) + 1))
    assert [report.epoch == report.epochs for report in reports] == [False] * (max(lengths) - 1) + [True]
    events = [event for report in reports for event in report.events]
    assert len(events) == len(set(events)) == 1


def test_one_that_diverges_is_a_divergence(few: Dataset) -> None:
    broken = replace(few.again[0], mean=(float("nan"),))
    reports = list(train_on_splits(PIPELINE, TASK, replace(few, again=(broken, few.again[1])), SEEDS))
    assert reports[0].diverged
    assert 0 < reports[0].accuracy < 1


def test_seeds_of_splits_differ_and_the_first_split_has_those_of_the_trial() -> None:
    seeds = [SEEDS.of_split(number) for number in range(5)]
    assert seeds[0] == SEEDS
    assert len({seed for each in seeds for seed in (each.init, each.order, each.augmentation)}) == 15


def test_a_folder_of_few_images_is_trained_on_whole_and_its_facts_say_so(tmp_path: Path, digits: Dataset) -> None:
    image = pytest.importorskip("PIL.Image")
    for n, (x, y) in enumerate(zip(digits.train.x[:90], digits.train.y[:90].tolist(), strict=True)):
        (tmp_path / "data" / str(y)).mkdir(parents=True, exist_ok=True)
        image.fromarray(x[0].numpy()).save(tmp_path / "data" / str(y) / f"{n}.png")
    objective = TrainingObjective(Task(DataSpec(f"folder:{tmp_path}/data", size=8), "small", stem_stride=2), "cpu")
    facts = objective.facts()
    data = facts["data"]
    assert isinstance(data, dict)
    assert (facts["n_splits"], data["n_train"], data["n_val"]) == (3, 60, 90)
    reports = list(objective.reports(PIPELINE, SEEDS))
    assert {round(90 * report.accuracy, 9) % 1 for report in reports} == {0}
    objective.export(tmp_path / "model", {})
    about = load_model(tmp_path / "model").about
    assert (about["accuracy"], about["train_seconds"]) == (reports[-1].accuracy, reports[-1].train_seconds)
