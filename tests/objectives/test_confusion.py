"""What an exported network takes for what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from objectives.confusion import MOST_MISTAKES, Looker
from objectives.errors import DataError
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(DataSpec("digits", n_train=300), "small")


@pytest.fixture(scope="module")
def exported(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, tuple[int, ...]]:
    """(folder, accuracy, images of each class told rightly) of a network that has learned something."""
    objective = TrainingObjective(task, "cpu")
    *_, last = objective.reports(Pipeline(epochs=2, flip=False, crop=False), Seeds(0, 1, 2))
    folder = tmp_path_factory.mktemp("export") / "network"
    objective.export(folder, {})
    return folder, last.accuracy, last.right


def test_what_is_seen_of_a_network_is_what_its_training_told(
    task: Task, exported: tuple[Path, float, tuple[int, ...]]
) -> None:
    folder, accuracy, right = exported
    seen = Looker(task.data).look(folder)
    n = sum(map(sum, seen.counts))
    assert tuple(row[i] for i, row in enumerate(seen.counts)) == right
    assert sum(right) / n == pytest.approx(accuracy)
    wrong = n - sum(right)
    assert len(seen.mistakes) == min(wrong, MOST_MISTAKES) > 0
    assert all(truth != answer for _, truth, answer, _ in seen.mistakes)
    assert all(picture.startswith(b"\xff\xd8") for picture, *_ in seen.mistakes)
    surest = [probability for *_, probability in seen.mistakes]
    assert surest == sorted(surest, reverse=True)


def test_a_network_of_other_images_is_refused(task: Task, exported: tuple[Path, float, tuple[int, ...]]) -> None:
    folder, *_ = exported
    with pytest.raises(DataError, match="was trained on other images"):
        Looker(replace(task.data, n_train=200)).look(folder)
