"""A network of series is tested, copied and made smaller as one of images is; images are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from frontrunner import Model
from objectives.export import load_model
from objectives.inference.copying import copied
from objectives.inference.interchange import TORCHSCRIPT
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task
from tests.search.place import Done

Command = Callable[[str], Done]


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classes of series of two channels, with a test split, by the words that name them."""
    x, y = np.random.default_rng(0).normal(size=(120, 2, 16)), np.arange(120) % 2
    file = tmp_path_factory.mktemp("series") / "waves.npz"
    np.savez(file, x=x + y[:, None, None], y=y, x_test=x[:20], y_test=y[:20])
    return f"series:{file}"


@pytest.fixture(scope="module")
def series(waves: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that was trained on them."""
    objective = TrainingObjective(Task(DataSpec(waves), "cnn1d"), "cpu")
    list(
        objective.reports(Pipeline(batch_size=32, epochs=1, lr=0.1, crop=False, flip=False, width=0.5), Seeds(1, 2, 3))
    )
    place = tmp_path_factory.mktemp("studies") / "trial-00001"
    objective.export(place, {"study": "waves", "trial": 1})
    return place


@pytest.mark.parametrize(("split", "n"), [("test", 20), ("validation", 40), ("all", 140)])
def test_it_is_tested_on_every_split(split: str, n: int, series: Path, waves: str, command: Command) -> None:
    done = command(f"test --model {series} --data {waves} --split {split} --json")
    assert (done.code, json.loads(done.out)["n"]) == (0, n), done.err


def test_it_is_copied_and_made_smaller(series: Path, waves: str, command: Command, tmp_path: Path) -> None:
    done = copied(series, tmp_path / "copy", DataSpec(waves), [TORCHSCRIPT])
    assert (done.n_checked, done.made_up) == (64, None)
    gone = copied(series, tmp_path / "made-up", DataSpec("series:none.npz"))
    assert "none.npz" in (gone.made_up or "")
    made = command(f"reduce --model {series} --data {waves} -o small --epochs 0 --iterations 1 --device cpu -q")
    assert made.code == 0, made.err
    assert (tmp_path / "small" / "model.json").is_file()


def test_it_predicts_in_python(series: Path, waves: str) -> None:
    x = np.load(waves.removeprefix("series:"))["x_test"].astype(np.float32)
    found = Model.load(series, "cpu").predict(x)
    assert [each.source for each in found] == list(map(str, range(20)))
    assert Model.load(series, "cpu").predict(x[0]).labels == found.labels[:1]
    expected = load_model(series).probabilities(torch.from_numpy(x))
    assert [each.probabilities["1"] for each in found] == pytest.approx(expected[:, 1].tolist())
    with pytest.raises(ValueError, match=r"series are \[20, 16, 2\] torch.float32: this model takes \[n, 2, 16\]"):
        Model.load(series, "cpu").predict(x.transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("test --model {series} --data digits", 3, "digits holds images, the network takes series"),
        ("test --model {model} --data {waves}", 3, "holds series, the network takes images"),
        ("reduce --model {series} --data digits -o x --device cpu", 3, "digits holds images, the network takes"),
        ("reduce --model {model} --data {waves} -o x --device cpu", 3, "holds series, the network takes images"),
        ("predict --model {series} --images {birds} -o x.csv", 2, "takes series, and --images are images"),
        ("test --model {birds} --data digits", 3, "has no model.json: python -m search best --study NAME says where"),
        ("test --model no/such --data digits", 2, "best --study NAME says where"),
    ],
)
def test_what_does_not_fit_a_network_is_one_line(
    line: str, code: int, said: str, series: Path, model: Path, birds: Path, waves: str, command: Command
) -> None:
    done = command(line.format(series=series, model=model, birds=birds, waves=waves))
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert said in done.err
