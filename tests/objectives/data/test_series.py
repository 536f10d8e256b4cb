"""Laws of series: what a file of them holds is what is trained, exported and told; what it may not hold is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from objectives.confusion import Looker
from objectives.data.augment import Normalisation
from objectives.data.dataset import load
from objectives.data.held_out import load_test
from objectives.errors import DataError
from objectives.export import export, load_model
from objectives.inference.copying import copied
from objectives.inference.interchange import TORCHSCRIPT
from objectives.inference.judging import judged
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task
from objectives.train import train

CPU = torch.device("cpu")
QUICK = Pipeline(batch_size=16, lr=0.05, epochs=3, width=0.25)


def waves(n: int = 120, length: int = 20, channels: int = 2) -> dict[str, Any]:
    """Two classes of waves, told apart by their frequency; the values lie far from 0."""
    random = np.random.default_rng(0)
    y = np.arange(n) % 2
    phase, steps = random.uniform(0, 6, (n, channels, 1)), np.arange(length)
    x = 1000 + 50 * np.sin(steps * (0.4 + 0.8 * y[:, None, None]) + phase)
    return {"x": x, "y": np.array(["slow", "fast"])[y]}


def written(folder: Path, arrays: Mapping[str, Any]) -> DataSpec:
    np.savez(folder / "waves.npz", **arrays)
    return DataSpec(f"series:{folder / 'waves.npz'}")


def test_series_are_split_and_normalised_and_their_test_split_stays_apart(tmp_path: Path) -> None:
    arrays = waves()
    spec = written(tmp_path, {**arrays, "x_test": arrays["x"][:10] + 1, "y_test": arrays["y"][:10]})
    data = load(spec, CPU)
    assert (data.size, data.channels, data.classes, data.flip, data.is_series) == (20, 2, ("fast", "slow"), False, True)
    assert data.train.x.dtype == torch.float32
    assert data.train.x.shape[1:] == (2, 1, 20)
    kept = data.train.x.clone()
    normal = Normalisation(data, CPU)(data.train.x)
    assert torch.equal(data.train.x, kept)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)
    test = load_test(spec, data)
    assert test is not None
    torch.testing.assert_close(test.images.x[:, :, 0], torch.tensor(arrays["x"][:10] + 1).float())
    assert load_test(written(tmp_path, arrays), data) is None
    assert load(written(tmp_path, {**arrays, "y": arrays["y"][::-1]}), CPU).content_hash != data.content_hash


def test_a_network_learns_series_and_is_exported_judged_and_copied_as_one_of_images_is(tmp_path: Path) -> None:
    spec = written(tmp_path, waves())
    data = load(spec, CPU)
    training = train(QUICK, Task(spec, "cnn1d"), data, Seeds(0, 1, 2))
    try:
        while True:
            next(training)
    except StopIteration as ended:
        trained = ended.value
    export(trained, data, tmp_path / "model", {})
    model = load_model(tmp_path / "model")
    assert model.about["input"]["length"] == 20  # type: ignore[index]
    found = model.logits(data.val.x[:, :, 0]).softmax(1)
    expected = trained.model(Normalisation(data, CPU)(data.val.x)).softmax(1)
    torch.testing.assert_close(found, expected)
    labelled = judged(model, spec, "validation", lambda *done: None)
    assert labelled.accuracy == pytest.approx(trained.report.accuracy)
    assert sum(map(sum, Looker(spec).look(tmp_path / "model").counts)) == labelled.n == len(data.val.y)
    made = copied(tmp_path / "model", tmp_path / "copy", spec, [TORCHSCRIPT])
    assert (made.n_checked, made.made_up) == (64, None)
    with pytest.raises(DataError, match="digits holds images, the network takes series"):
        judged(model, DataSpec("digits"), None, lambda *done: None)
    with pytest.raises(DataError, match="2 channels of length 30, the network takes 2 of length 20"):
        judged(model, written(tmp_path, waves(length=30)), None, lambda *done: None)
    for wrong in (data.val.x, data.val.x[:, :1, 0], data.val.x[:, :, 0, :9], data.val.x[:, :, 0].to(torch.uint8)):
        with pytest.raises(ValueError, match="this model takes"):
            model.probabilities(wrong)


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"y": None}, "has no array 'y'"),
    "two dimensions": ({"x": np.zeros((120, 20))}, "x is .120, 20. float64: it must be"),
    "text": ({"x": np.full((120, 2, 20), "a")}, "real numbers"),
    "objects": ({"x": np.full((120, 2, 20), None)}, "is no archive of NumPy"),
    "not a number": ({"x": np.full((120, 2, 20), np.nan)}, "120 series of x hold what is no finite number"),
    "too large for float32": ({"x": np.full((120, 2, 20), 1e300)}, "no finite number"),
    "other counts": ({"y": np.zeros(7, int)}, "7 labels"),
    "fractions as labels": ({"y": np.zeros(120)}, "whole numbers or text"),
    "one class": ({"y": np.zeros(120, int)}, "only 1 class"),
    "unknown classes": ({"classes": np.array(["fast", "other"])}, "none of its 2 classes"),
    "a class twice": ({"classes": np.array(["fast", "fast"])}, "names, each once"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_series_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    changes, message = DAMAGED[case]
    arrays = {name: array for name, array in (waves() | changes).items() if array is not None}
    with pytest.raises(DataError, match=message) as refused:
        load(written(tmp_path, arrays), CPU)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off", b"\x93NUMPY"])
def test_a_file_that_is_missing_or_damaged_is_refused_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "waves.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"waves\.npz") as refused:
        load(DataSpec(f"series:{path}"), CPU)
    assert "\n" not in str(refused.value)


def test_series_too_short_for_the_network_are_refused_in_one_line(tmp_path: Path) -> None:
    spec = written(tmp_path, waves(length=15))
    with pytest.raises(DataError, match="series of length 15 are too small for the family cnn1d: it needs 16 at least"):
        TrainingObjective(Task(spec, "cnn1d"), "cpu")
