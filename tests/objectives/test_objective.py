"""Laws of `TrainingObjective`: facts for the identity of a study, number formats, exports, devices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objectives.data.dataset import load
from objectives.device.formats import FORMATS
from objectives.errors import DataError, DeviceError
from objectives.export import load_model
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task

TASK = Task(DataSpec("digits", n_train=200), "small", stem_stride=2)
PIPELINE = Pipeline(batch_size=50, epochs=2, crop=False, flip=False, width=0.5)
SEEDS = Seeds(1, 2, 3)


@pytest.fixture
def objective() -> TrainingObjective:
    """On the CPU, with 200 digits."""
    return TrainingObjective(TASK, "cpu")


def test_facts_are_plain_data_and_the_same_for_every_objective_on_the_task(objective: TrainingObjective) -> None:
    facts = objective.facts()
    assert json.loads(json.dumps(facts)) == facts == TrainingObjective(TASK, "cpu").facts()
    assert facts["data"]["n_train"] == 200  # type: ignore[index]
    labels = load(TASK.data, torch.device("cpu")).validated
    assert facts["data"]["largest_share"] == pytest.approx(int(labels.bincount().max()) / len(labels))  # type: ignore[index]
    assert facts["device"]["threads"] == 1  # type: ignore[index]


def test_training_leaves_the_facts_alone(objective: TrainingObjective) -> None:
    before = objective.facts()
    assert len(list(objective.reports(PIPELINE, SEEDS))) == 2
    assert objective.facts() == before


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"seed": 1}, {"content"}),
        ({"n_train": 190}, {"content"}),
        ({"size": 12}, {"split"}),
        ({"channels": 3}, {"split"}),
    ],
    ids=str,
)
def test_other_data_or_another_split_are_other_facts(
    objective: TrainingObjective, changed: dict[str, int], same: set[str]
) -> None:
    spec = replace(TASK.data, **changed)  # type: ignore[arg-type]
    found, before = (o.facts()["data"] for o in (TrainingObjective(replace(TASK, data=spec), "cpu"), objective))
    assert {key for key in ("content", "split") if found[key] == before[key]} == same  # type: ignore[index]
    assert found != before


def test_another_number_of_threads_is_another_device(objective: TrainingObjective) -> None:
    before = objective.facts()
    try:
        assert TrainingObjective(TASK, "cpu", threads=2).facts()["device"] != before["device"]
    finally:
        torch.set_num_threads(1)


def test_every_number_format_is_usable_or_has_a_reason_in_one_line(objective: TrainingObjective) -> None:
    reasons = objective.number_formats()
    assert set(reasons) == set(FORMATS)
    assert reasons["fp32"] is None
    assert reasons["tf32"] == "needs an NVIDIA GPU of the Ampere generation or later"
    for reason in reasons.values():
        assert reason is None or (reason and "\n" not in reason)


def test_a_hopeless_number_format_is_found_out_on_two_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int, int]] = []

    def step_seconds(objective: TrainingObjective, pipeline: Pipeline, side: int, *others: object) -> float:
        steps.append((pipeline.number_format, pipeline.batch_size, side))
        return 20.0 if pipeline.number_format == "fp16" else 1.0

    monkeypatch.setattr(TrainingObjective, "_step_seconds", step_seconds)
    large = replace(TASK, data=DataSpec("digits", size=48))
    assert TrainingObjective(large, "cpu").number_formats()["fp16"] == "20.0 times the step time of fp32 on this device"
    hopeless, others = ([step for step in steps if (step[0] == "fp16") == is_hopeless] for is_hopeless in (True, False))
    assert [(batch, side) for _, batch, side in hopeless] == [(2, 32)]
    assert {side for _, batch, side in others if batch > 2} == {48}


def test_probing_number_formats_leaves_trainings_as_they_were(objective: TrainingObjective) -> None:
    before = [report.accuracy for report in objective.reports(PIPELINE, SEEDS)]
    objective.number_formats()
    assert [report.accuracy for report in objective.reports(PIPELINE, SEEDS)] == before


def test_only_a_training_that_ran_to_its_end_is_exported(objective: TrainingObjective, tmp_path: Path) -> None:
    def refused() -> None:
        with pytest.raises(ValueError, match="nothing to export: the last training did not run to its end"):
            objective.export(tmp_path / "model", {})
        assert list(tmp_path.iterdir()) == []

    refused()
    stopped = objective.reports(PIPELINE, SEEDS)
    next(stopped)
    refused()
    stopped.close()
    refused()
    last = list(objective.reports(PIPELINE, SEEDS))[-1]
    objective.export(tmp_path / "model", {"trial": 3})
    loaded = load_model(tmp_path / "model")
    assert (loaded.about["trial"], loaded.about["accuracy"]) == (3, last.accuracy)
    assert loaded.classes == tuple("0123456789")
    (tmp_path / "model").rename(tmp_path.with_name(f"{tmp_path.name}-done"))
    next(objective.reports(PIPELINE, SEEDS))  # a training that is under way has replaced the last one
    refused()


def test_a_training_on_all_images_sees_those_that_validate_and_tells_no_accuracy(
    objective: TrainingObjective, tmp_path: Path
) -> None:
    data = load(TASK.data, torch.device("cpu"))
    n_steps = [int(report.train_flops) for report in objective.reports(PIPELINE, SEEDS)]
    whole = [int(report.train_flops) for report in objective.reports(PIPELINE, SEEDS, whole=True)]
    n, n_all = len(data.train.y), len(data.train.y) + len(data.val.y)
    assert [a * (n // 50) for a in whole] == [b * (n_all // 50) for b in n_steps]
    assert len(data.whole.train.y) == n_all
    assert torch.equal(data.whole.train.x[n:], data.val.x)
    objective.export(tmp_path / "whole", {"refit": {"accuracy": 0.9}})
    about = load_model(tmp_path / "whole").about
    assert (about["accuracy"], about["balanced_accuracy"], about["refit"]) == (None, None, {"accuracy": 0.9})
    list(objective.reports(PIPELINE, SEEDS))
    objective.export(tmp_path / "part", {})
    assert load_model(tmp_path / "part").about["accuracy"] is not None


def test_a_closed_objective_has_let_go_of_the_last_training(objective: TrainingObjective, tmp_path: Path) -> None:
    list(objective.reports(PIPELINE, SEEDS))
    objective.close()
    with pytest.raises(ValueError, match="nothing to export"):
        objective.export(tmp_path / "model", {})


@pytest.mark.parametrize("device", ["banana", "", "cpu:x", "cuda:99", "meta", "mps"])
def test_a_device_that_cannot_be_used_is_refused_in_one_short_line(device: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{device}' (cannot be used|is not supported)") as caught:
        TrainingObjective(TASK, device)
    assert "choose" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_unknown_data_are_refused() -> None:
    with pytest.raises(DataError, match="unknown data set 'imagenet'"):
        TrainingObjective(Task(DataSpec("imagenet"), "small"), "cpu")


def test_auto_is_a_device_that_works() -> None:
    assert len(list(TrainingObjective(TASK, "auto").reports(PIPELINE, SEEDS))) == 2


def test_test_time_flips_are_refused_where_a_mirror_image_may_have_another_label() -> None:
    with pytest.raises(DataError, match="test_time_flip = true, but a mirror image of digits may have another label"):
        TrainingObjective(replace(TASK, test_time_flip=True), "cpu")


def test_with_test_time_flips_accuracy_and_export_take_both_sides_of_an_image(tmp_path: Path) -> None:
    data = replace(TASK.data, flip=True)
    one, both = (TrainingObjective(replace(TASK, data=data, test_time_flip=flips), "cpu") for flips in (False, True))
    plain, mirrored = (list(objective.reports(PIPELINE, SEEDS)) for objective in (one, both))
    assert [report.loss for report in mirrored] == [report.loss for report in plain]  # training is not touched
    both.export(tmp_path / "model", {})
    one.export(tmp_path / "plain", {})
    model, same = load_model(tmp_path / "model"), load_model(tmp_path / "plain")
    assert (model.mirrored, same.mirrored) == (True, False)
    x = load(data, torch.device("cpu")).val
    expected = model.probabilities(x.x)
    torch.testing.assert_close(expected, model.probabilities(x.x.flip(3)))
    assert float((expected.argmax(1) == x.y).double().mean()) == mirrored[-1].accuracy
    assert not torch.allclose(expected, same.probabilities(x.x))
