"""Networks for other programs tell what the export tells, whatever became of them in training."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.export import ExportedModel, export, load_model
from objectives.inference.calibration import Calibration
from objectives.inference.interchange import ONNX, TORCHSCRIPT, WITHIN, as_onnx, as_torchscript, check
from tests.objectives.strategies import cases

STRATEGIES = ["PruneTrain", "Net2Net", "Whitening", "HaarStem", "LowRank", "S3Pool", "StochasticPooling", "WeightNorm"]


@pytest.fixture(scope="module", params=[*STRATEGIES, "imagenet18"])
def model(request: pytest.FixtureRequest, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """A network of each of these strategies, and one with a pooling behind its stem, mirrored and calibrated."""
    ground = cases.LARGE if request.param == cases.LARGE.task.family else cases.RESIDUAL
    strategies = [cases.CASES[name].active for name in STRATEGIES if name == request.param]
    _, trained = cases.finish(ground.using(*strategies), digits, ground.task)
    place: Path = tmp_path_factory.mktemp("export") / "model"
    export(replace(trained, mirrored=True), digits, place, {})
    return replace(load_model(place), calibration=Calibration(1.7, 10))


@pytest.mark.filterwarnings("ignore:.torch.jit.load:DeprecationWarning")
def test_torchscript_takes_pixels_and_tells_the_same(model: ExportedModel, digits: Dataset) -> None:
    content = as_torchscript(model, digits.val.x[:8])
    again = torch.jit.load(io.BytesIO(content))
    for x in (digits.val.x[8:30], digits.val.x[:1], digits.val.x[:7].contiguous()):
        torch.testing.assert_close(again(x), model.probabilities(x), rtol=0, atol=WITHIN[TORCHSCRIPT])


def test_onnx_takes_pixels_and_tells_the_same(model: ExportedModel, digits: Dataset) -> None:
    session = onnxruntime.InferenceSession(as_onnx(model, digits.val.x[:8]), providers=["CPUExecutionProvider"])
    for x in (digits.val.x[8:30], digits.val.x[:1]):
        found = torch.from_numpy(session.run(None, {"images": x.contiguous().numpy()})[0])
        torch.testing.assert_close(found, model.probabilities(x), rtol=0, atol=WITHIN[ONNX])


@pytest.mark.parametrize("difference", [2e-5, float("nan")])
def test_what_tells_otherwise_is_refused(difference: float) -> None:
    expected: Tensor = torch.full((2, 2), 0.5)
    with pytest.raises(ValueError, match=r"model\.torchscript\.pt computes otherwise than the network"):
        check(TORCHSCRIPT, expected + difference, expected)
    assert check(ONNX, expected + 2e-5, expected) == pytest.approx(2e-5, rel=0.1)
