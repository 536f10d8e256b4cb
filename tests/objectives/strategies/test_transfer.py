"""Laws of starts from a trained network, in training: what they begin with, are normalised by, cost, and export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.export import export, load_model
from objectives.networks.families import build as build_family
from objectives.networks.network import Network, build
from objectives.pipeline import Pipeline
from objectives.starts.start import read
from objectives.starts.state_dicts import name_of
from objectives.state import TrainState
from objectives.strategies.ema import Ema
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.net2net import Net2Net
from objectives.strategies.transfer import Transfer
from objectives.task import DataSpec, Task
from objectives.train import begun, deployed, starting_state
from tests.objectives.starts.made import exported
from tests.objectives.strategies.cases import SEEDS, TASK, finish, first_batch, same_weights, using

SLOW = {"lr": 0.01, "epochs": 2}


@pytest.fixture(scope="module")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a training on digits."""
    reports, trained = finish(using(epochs=8), digits)
    assert reports[-1].accuracy > 0.8
    folder = tmp_path_factory.mktemp("trained") / "net"
    about = {"study": "pets", "trial": 3, "family": TASK.family, "stem_stride": TASK.stem_stride}
    export(trained, digits, folder, about)
    return folder


def begin(pipeline: Pipeline, digits: Dataset, task: Task = TASK) -> TrainState:
    return begun(starting_state(pipeline, task, digits, SEEDS), *first_batch(digits))


def accuracy(network: Network, state: TrainState, digits: Dataset) -> float:
    with torch.no_grad():
        return float((network.eval()(state.normalise(digits.val.x)).argmax(1) == digits.val.y).double().mean())


def test_before_the_first_step_a_start_of_the_same_network_tells_its_very_logits(
    trained: Path, digits: Dataset
) -> None:
    state = begin(using(Transfer(str(trained)), **SLOW), digits)
    model = load_model(trained)
    x = digits.val.x
    assert torch.equal(deployed(state)(state.normalise(x)), model.logits(x))
    assert accuracy(state.trainee.model, state, digits) == model.about["accuracy"]


def test_it_brings_what_it_was_normalised_by_into_the_run_and_into_its_export(
    trained: Path, digits: Dataset, tmp_path: Path
) -> None:
    """Other images have other statistics; the network goes on with its own."""
    other = replace(digits, mean=(0.9,), std=(0.05,))
    pipeline = using(Transfer(str(trained)), **SLOW)
    state, model = begin(pipeline, other), load_model(trained)
    x = digits.val.x
    assert torch.equal(state.normalise(x), Normalisation(model, x.device)(x))
    reports, again = finish(pipeline, other)
    taken = read(str(trained))
    export(again, replace(other, mean=taken.mean, std=taken.std), tmp_path / "again", {})
    exported_again = load_model(tmp_path / "again")
    assert (exported_again.mean, exported_again.std) == (model.mean, model.std)
    assert exported_again.about["start"] == {
        "source": str(trained),
        "digest": taken.digest,
        "words": "trial 3 of study pets",
        "train_seconds": model.about["train_seconds"],
    }
    assert Pipeline.from_json(json.loads(json.dumps(exported_again.about["pipeline"]))) == pipeline  # type: ignore[arg-type]
    assert read(str(tmp_path / "again")).train_seconds == pytest.approx(
        reports[-1].train_seconds + model.about["train_seconds"]  # type: ignore[operator]
    )


def test_it_says_what_it_begins_from_and_what_that_took_and_charges_it_to_nobody(
    trained: Path, digits: Dataset
) -> None:
    events = begin(using(Transfer(str(trained)), width=1.0), digits).events
    took = load_model(trained).about["train_seconds"]
    assert events == (
        f"begins from trial 3 of study pets, its classifier too; it took {took:.3g} s to train, which are not charged; "
        "8[8]-16[16] to 16[16]-32[32]",
    )


def test_a_start_goes_on_where_it_was_and_a_new_run_does_not(trained: Path, digits: Dataset) -> None:
    (first, *_), _ = finish(using(Transfer(str(trained)), **SLOW), digits)
    (scratch, *_), _ = finish(using(**SLOW), digits)
    assert first.accuracy > 0.8 > scratch.accuracy


def test_the_same_start_under_the_same_seeds_is_the_same_run(trained: Path, digits: Dataset) -> None:
    pipeline = using(Transfer(str(trained)), Ema(0.5), width=0.75, **SLOW)
    one, other = (finish(pipeline, digits)[1] for _ in range(2))
    assert same_weights(one.model, other.model)


def test_net2net_begins_with_the_strongest_channels_and_grows_from_there(trained: Path, digits: Dataset) -> None:
    growing = using(Transfer(str(trained)), Net2Net(start_width=0.5, at=0.5, until=0.5), width=1.0, lr=0.01)
    reports, _ = finish(growing, digits)
    assert "8[8]-16[16] to 8[8]-16[16]" not in reports[0].events[0]
    assert reports[-1].architecture == "16[16]-32[32]"
    assert reports[-1].accuracy > 0.8


def test_a_start_with_other_weights_than_the_pipeline_names_is_refused(
    trained: Path, digits: Dataset, tmp_path: Path
) -> None:
    digest = read(str(trained)).digest
    assert finish(using(Transfer(str(trained), digest), **SLOW), digits)[0]
    changed = exported(tmp_path / "net", read(str(trained)).network, pixels=((0.0,), (1.0,)))
    network = read(str(changed)).network
    with torch.no_grad():
        network.head.bias.add_(1)  # type: ignore[union-attr,operator]
    exported(changed, network)
    with pytest.raises(ValueError, match="holds other weights than those that the pipeline starts from"):
        finish(using(Transfer(str(changed), digest), **SLOW), digits)


def test_what_would_undo_a_start_is_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match="Transfer cannot run with HaarStem: choose one"):
        using(HaarStem(), Transfer(str(trained)))


@pytest.mark.parametrize("family", ["thin", "fast", "lenet300"])
def test_a_start_of_another_shape_is_refused_in_one_line(family: str, trained: Path, digits: Dataset) -> None:
    task = replace(TASK, family=family, stem_stride=1)
    pipeline = using(Transfer(str(trained)), width=1.0)
    with pytest.raises(ValueError, match="trial 3 of study pets: no network can begin") as refused:
        finish(pipeline, digits, task)
    assert "\n" not in str(refused.value)


def test_a_start_that_is_not_there_is_refused_before_the_first_step(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        finish(using(Transfer(str(tmp_path / "none"))), digits)


def test_weights_of_others_begin_a_run_on_other_images_and_classes(digits: Dataset, tmp_path: Path) -> None:
    """In colour and of 1000 classes, on grey images of ten."""
    built = build_family("imagenet18", depth=1, width=0.125, in_channels=3, n_classes=1000, size=64)
    network = build(built).eval()
    tensors = {name_of(name): tensor.contiguous() for name, tensor in network.state_dict().items()}
    torch.save(tensors, tmp_path / "net.pth")
    task = Task(DataSpec("digits"), "imagenet18")
    reports, trained = finish(using(Transfer(str(tmp_path / "net.pth")), width=0.125, epochs=2), digits, task)
    assert reports[0].events == ("begins from net.pth, a new classifier; nobody knows how long it trained",)
    assert trained.model.architecture == replace(built, in_channels=1, n_classes=10)
