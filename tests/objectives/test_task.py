"""Laws of tasks and seeds."""

from __future__ import annotations

import json

import pytest

from objectives.task import DataSpec, Seeds, Task


def test_a_task_survives_json() -> None:
    task = Task(DataSpec("folder:x", n_train=9, channels=3, flip=False, seed=4), "thin", stem_stride=2)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_trials_repeats_and_roles_share_no_seed() -> None:
    places = [(study, trial, repeat) for study in (0, 1) for trial in range(20) for repeat in range(3)]
    drawn = [Seeds.of(*place) for place in places]
    values = [value for seeds in drawn for value in (seeds.init, seeds.order, seeds.augmentation)]
    assert len(set(values)) == len(values) == 360
    assert drawn == [Seeds.of(*place) for place in places]


@pytest.mark.parametrize("trial", range(5))
def test_a_seed_leaves_room_to_add_an_epoch(trial: int) -> None:
    seeds = Seeds.of(2**32, trial)
    assert all(0 <= seed + 100_000 < 2**63 for seed in (seeds.init, seeds.order, seeds.augmentation))
