"""Laws of the reference workload: it reads the device and leaves everything else as it was."""

from __future__ import annotations

import json

import pytest
import torch

from objectives.device.reference import WARM_UP_STEPS, read
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Reading
from objectives.task import DataSpec, Seeds, Task

CPU = torch.device("cpu")


def test_a_reading_is_plain_data() -> None:
    for reading in (Reading(0.002), Reading(0.002, 3, ("heat", "power brake"))):
        assert Reading.from_json(json.loads(json.dumps(reading.to_json()))) == reading


def test_a_step_takes_a_few_milliseconds_and_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    reading = read(CPU, WARM_UP_STEPS + 5)
    assert 1e-4 < reading.step_seconds < 0.1
    assert (reading.n_foreign, reading.throttled) == (0, ())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_reading_leaves_trainings_as_they_were() -> None:
    objective = TrainingObjective(Task(DataSpec("digits", n_train=200), "small"), "cpu")
    pipeline, seeds = Pipeline(batch_size=32, epochs=2, number_format="bf16"), Seeds.of(0, 0)
    before = [(report.accuracy, report.loss) for report in objective.reports(pipeline, seeds)]
    objective.reference(7)
    assert [(report.accuracy, report.loss) for report in objective.reports(pipeline, seeds)] == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_read_with_device_time() -> None:
    reading = read(torch.device("cuda"), 20)
    assert 1e-5 < reading.step_seconds < 0.1
