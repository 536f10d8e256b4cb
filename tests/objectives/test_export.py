"""Laws of exports: what is loaded is what was trained, and damage is never loaded."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objectives import __version__
from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.export import FORMAT, export, load_model
from objectives.host.durable import SUMS, write_folder
from objectives.inference.calibration import NONE, Calibration, calibrated
from objectives.inference.folder import DESCRIPTION, WEIGHTS
from objectives.networks.architecture import Architecture, Stage
from objectives.networks.resnet import ResNet
from objectives.pipeline import Pipeline, Report
from objectives.strategies.ema import Ema
from objectives.task import DataSpec, Seeds, Task
from objectives.train import Trained, train
from tests.objectives.strategies import cases

CPU = torch.device("cpu")
PIPELINE = Pipeline(batch_size=50, epochs=2, crop=False, flip=False, width=0.5, strategies=(Ema(0.5),))
PRUNED = Architecture(1, 10, (Stage(5, (3, 1)), Stage(7, (0, 2)), Stage(3, (0,))), stem_stride=2)
ABOUT = {"study": "frösche & co", "trial": 7}


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> Trained:
    """The result of a short training."""
    training = train(PIPELINE, Task(DataSpec("digits"), "small", stem_stride=2), digits, Seeds(1, 2, 3))
    while True:
        try:
            next(training)
        except StopIteration as end:
            result: Trained = end.value
            return result


@pytest.fixture(scope="module")
def pruned(trained: Trained, digits: Dataset) -> Trained:
    """A network of odd widths and blocks without interior, with statistics of its own."""
    torch.manual_seed(5)
    model = ResNet(PRUNED)
    model(Normalisation(digits, CPU)(digits.train.x))
    return replace(trained, model=model.eval())


@pytest.fixture
def folder(trained: Trained, digits: Dataset, tmp_path: Path) -> Path:
    """An export."""
    export(trained, digits, tmp_path / "model", ABOUT)
    return tmp_path / "model"


@pytest.mark.parametrize("which", ["trained", "pruned"])
def test_what_is_loaded_computes_the_same_logits_bit_for_bit(
    which: str, digits: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    original: Trained = request.getfixturevalue(which)
    export(original, digits, tmp_path / "model", ABOUT)
    loaded = load_model(tmp_path / "model")
    x = Normalisation(digits, CPU)(digits.val.x)
    assert torch.equal(loaded.network(x), original.model(x))
    assert loaded.network.architecture == original.model.architecture
    assert not loaded.network.training
    assert torch.equal(load_model(str(tmp_path / "model")).network(x), loaded.network(x))


def test_probabilities_of_raw_images_are_those_of_the_trained_network(
    folder: Path, trained: Trained, digits: Dataset
) -> None:
    model = load_model(folder)
    found = model.probabilities(digits.val.x)
    expected = trained.model(Normalisation(digits, CPU)(digits.val.x)) / model.calibration.temperature
    assert torch.equal(found, expected.softmax(1))
    torch.testing.assert_close(found.sum(1), torch.ones(len(found)))
    assert not found.requires_grad
    accuracy = (found.argmax(1) == digits.val.y).double().mean().item()
    assert accuracy == pytest.approx(trained.report.accuracy, abs=1 / 300)


@pytest.mark.parametrize("name", ["PruneTrain", "Net2Net", "Whitening", "S3Pool", "StochasticPooling"])
def test_what_an_export_tells_is_what_its_training_told_bit_for_bit(name: str, digits: Dataset, tmp_path: Path) -> None:
    _, original = cases.finish(cases.using(cases.CASES[name].active), digits)
    export(original, digits, tmp_path / "model", ABOUT)
    loaded = load_model(tmp_path / "model")
    logits = original.model(Normalisation(digits, CPU)(digits.val.x))
    assert torch.equal(loaded.logits(digits.val.x), logits)
    contiguous = digits.val.x.clone(memory_format=torch.contiguous_format)  # as a user has them
    assert torch.equal(loaded.logits(contiguous), logits)
    right = digits.val.y[loaded.probabilities(digits.val.x).argmax(1) == digits.val.y]
    assert tuple(right.bincount(minlength=10).tolist()) == original.report.right


def test_probabilities_are_calibrated_on_the_images_that_validate(
    folder: Path, trained: Trained, digits: Dataset
) -> None:
    model = load_model(folder)
    assert model.calibration == calibrated(model.logits(digits.val.x), digits.val.y)
    assert model.calibration.n_images == len(digits.val.y)
    assert model.calibration != NONE


def test_exports_of_before_and_of_all_images_have_the_temperature_that_they_are_given(
    folder: Path, trained: Trained, digits: Dataset
) -> None:
    twin = {"temperature": 2.0, "n_images": 0, "source": "that of trial 7"}
    for given, expected in (({}, NONE), ({"calibration": twin}, Calibration(**twin))):  # type: ignore[arg-type]
        export(trained, digits, folder, given, is_measured=False)
        assert load_model(folder).calibration == expected
    export(trained, digits, folder, {"calibration": twin})  # it is measured, and nothing given replaces that
    assert load_model(folder).calibration.n_images == len(digits.val.y)
    described = json.loads((folder / DESCRIPTION).read_text())
    del described["calibration"]
    write_folder(folder, {WEIGHTS: (folder / WEIGHTS).read_bytes(), DESCRIPTION: json.dumps(described).encode()})
    assert load_model(folder).calibration.temperature == 1.0


@pytest.mark.parametrize(
    "shape", [(2, 1, 8, 9), (2, 1, 9, 9), (2, 3, 8, 8), (1, 8, 8)], ids=lambda shape: "x".join(map(str, shape))
)
def test_images_of_another_shape_or_type_are_refused_with_the_right_one(folder: Path, shape: tuple[int, ...]) -> None:
    model = load_model(folder)
    for images in (torch.zeros(shape, dtype=torch.uint8), torch.zeros(2, 1, 8, 8)):
        with pytest.raises(ValueError, match=r"this model takes \[n, 1, 8, 8\] uint8"):
            model.probabilities(images)


def test_the_description_says_where_the_network_comes_from(folder: Path, trained: Trained, digits: Dataset) -> None:
    loaded = load_model(folder)
    assert Pipeline.from_json(loaded.about["pipeline"]) == PIPELINE  # type: ignore[arg-type]
    assert {key: loaded.about[key] for key in ABOUT} == ABOUT
    assert loaded.about["train_seconds"] == trained.report.train_seconds
    assert loaded.about["accuracy"] == trained.report.accuracy
    assert loaded.about["versions"] == {"frontrunner": __version__, "torch": torch.__version__}
    assert (loaded.classes, loaded.mean, loaded.std) == (digits.classes, digits.mean, digits.std)
    assert loaded.about["data"] == {"content": digits.content_hash, "split": digits.split_hash, "flip": False}
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, DESCRIPTION, SUMS}


# --- damage -----------------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lengthen, empty, Path.unlink])
@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_damaged_or_missing_file_is_refused_by_name_in_one_line(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(folder / name)
    expected = "is not an exported model: .*" if damage is Path.unlink else "is damaged: "
    with pytest.raises(ValueError, match=f"{name}.*{expected}|{expected}.*{name}") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no sums", b"\xff\xfe", b"00  model.json\n", None])
def test_damaged_or_missing_checksums_are_refused_in_one_line(folder: Path, content: bytes | None) -> None:
    if content is None:
        (folder / SUMS).unlink()
    else:
        (folder / SUMS).write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged|is not an exported model") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, SUMS])
def test_a_file_of_another_export_is_refused(folder: Path, name: str, pruned: Trained, digits: Dataset) -> None:
    other = folder.with_name("other")
    export(pruned, digits, other, ABOUT)
    shutil.copy(other / name, folder / name)
    with pytest.raises(ValueError, match="is damaged: its SHA-256 is not the one in SHA256SUMS"):
        load_model(folder)


def test_checksums_are_those_that_sha256sum_checks(folder: Path) -> None:
    lines = (folder / SUMS).read_text().splitlines()
    assert lines == [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}" for n in (DESCRIPTION, WEIGHTS)]


@pytest.mark.parametrize("newer", [FORMAT + 1, "2.0", None])
def test_a_newer_format_is_refused_with_the_way_out(folder: Path, newer: object) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    content = json.dumps({**description, "format": newer}).encode()
    old_sum, new_sum = (hashlib.sha256(c).hexdigest() for c in ((folder / DESCRIPTION).read_bytes(), content))
    (folder / DESCRIPTION).write_bytes(content)
    (folder / SUMS).write_text((folder / SUMS).read_text().replace(old_sum, new_sum))
    with pytest.raises(ValueError, match=f"export format {newer!r}, this version reads {FORMAT}: update frontrunner"):
        load_model(folder)


@pytest.mark.parametrize(
    ("place", "lacks"),
    [
        ("nowhere", "there is no such folder"),
        ("file", "it is a file"),
        (".", "it has no model.json and no weights.safetensors and no SHA256SUMS"),
    ],
)
def test_what_is_no_export_is_refused_in_one_line_that_says_what_is_missing(
    tmp_path: Path, place: str, lacks: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not an exported model") as caught:
        load_model(tmp_path / place)
    holds = "an export holds model.json, weights.safetensors and SHA256SUMS"
    assert str(caught.value) == f"{tmp_path / place} is not an exported model: {lacks}; {holds}"


class Trap:
    """Pickled, it makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_place_of_the_weights_is_never_opened_though_its_checksum_is_right(folder: Path) -> None:
    evil = pickle.dumps(Trap(folder / "sprung"))
    old_sum, new_sum = (hashlib.sha256(c).hexdigest() for c in ((folder / WEIGHTS).read_bytes(), evil))
    (folder / SUMS).write_text((folder / SUMS).read_text().replace(old_sum, new_sum))
    (folder / WEIGHTS).write_bytes(evil)
    with pytest.raises(ValueError, match=rf"{WEIGHTS} holds no weights") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "sprung").exists()


# --- replacing --------------------------------------------------------------------------------------------------------


def test_an_export_replaces_an_older_one_whole(folder: Path, pruned: Trained, digits: Dataset) -> None:
    (folder / "left over").touch()
    export(pruned, digits, folder, {"trial": 8})
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, DESCRIPTION, SUMS}
    loaded = load_model(folder)
    assert loaded.network.architecture == PRUNED
    assert loaded.about["trial"] == 8
    assert "study" not in loaded.about
    assert list(folder.parent.iterdir()) == [folder]


def test_an_export_that_fails_leaves_nothing_new_and_the_older_one_whole(
    folder: Path, pruned: Trained, trained: Trained, digits: Dataset
) -> None:
    for target in (folder, folder.with_name("new")):
        with pytest.raises(TypeError):
            export(pruned, digits, target, {"when": object()})  # no JSON
    assert list(folder.parent.iterdir()) == [folder]
    assert load_model(folder).network.architecture == trained.model.architecture


def test_parents_of_an_export_are_made(tmp_path: Path, trained: Trained, digits: Dataset) -> None:
    export(trained, digits, tmp_path / "a" / "b", ABOUT)
    assert load_model(tmp_path / "a" / "b").about["trial"] == 7


def test_the_report_of_the_training_is_final(trained: Trained) -> None:
    assert isinstance(trained.report, Report)
    assert trained.report.epoch == trained.report.epochs == PIPELINE.epochs
