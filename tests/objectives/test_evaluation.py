"""Laws of evaluation: it takes no more memory than a training step, and what is no number counts for nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset, Images
from objectives.device.formats import FORMATS
from objectives.evaluation import ENOUGH, UNNOTICED, Evaluation, evaluate, images_at_once
from objectives.export import export
from objectives.networks.architecture import build
from objectives.networks.resnet import ResNet
from objectives.state import TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.swa import Swa
from objectives.task import DataSpec, Task
from tests.objectives.strategies.cases import finish, using

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Breaks(Strategy):
    """Puts a value into one tensor at the boundary after an epoch, or into the network that is deployed in the end."""

    where: Literal["weight", "buffer", "deployed weight", "deployed buffer", "shadow"]
    value: float
    after: int = 3

    def between_epochs(self, state: TrainState) -> TrainState:
        if state.epoch == self.after and "deployed" not in self.where:
            if self.where == "shadow":
                (shadow,) = state.trainee.shadows.values()
                shadow.tensors["stem.1.weight"][0] = self.value
            else:
                _break(state.trainee.model, self.where, self.value)
        return state

    def deployed(self, model: ResNet, state: TrainState) -> ResNet:
        if state.epoch == state.ends and "deployed" in self.where:
            _break(model, self.where.removeprefix("deployed "), self.value)
        return model


@torch.no_grad()
def _break(model: ResNet, where: str, value: float) -> None:
    model.state_dict()["stem.1.weight" if where == "weight" else "stem.1.running_var"][0] = value


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("where", ["weight", "buffer", "deployed weight", "deployed buffer"])
def test_a_network_that_is_no_longer_finite_is_diverged(where: str, value: float, digits: Dataset) -> None:
    """Weights that the last step makes NaN are in no loss: only the network that is deployed shows them."""
    reports, _ = finish(using(Breaks(where, value)), digits)  # type: ignore[arg-type]
    assert [report.diverged for report in reports] == [False, False, False, True]


@pytest.mark.parametrize("keeper", [Ema(0.5), Lookahead(), Swa(start=0.5, images=50)], ids=lambda s: type(s).__name__)
def test_an_average_that_is_no_longer_finite_is_diverged(keeper: Strategy, digits: Dataset) -> None:
    reports, _ = finish(using(keeper, Breaks("shadow", math.nan)), digits)
    assert reports[-1].diverged
    assert not any(report.diverged for report in reports[:-1])


def test_a_network_that_is_no_longer_finite_is_diverged_though_its_average_is_deployed(digits: Dataset) -> None:
    """The average has statistics of its own."""
    reports, _ = finish(using(Swa(start=0.5, images=50), Breaks("buffer", math.nan, after=2)), digits)
    assert [report.diverged for report in reports] == [False, False, True, True]


def evaluation_of(model: ResNet, digits: Dataset, labels: torch.Tensor | None = None) -> Evaluation:
    images = digits.val if labels is None else Images(digits.val.x, labels)
    return evaluate(model.eval(), images, Normalisation(digits, CPU), FORMATS["fp32"], batch_size=50)


@pytest.fixture
def model(digits: Dataset) -> ResNet:
    """Untrained, for digits."""
    torch.manual_seed(0)
    return ResNet(build("small", depth=1, width=0.5, in_channels=1, n_classes=10))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_logits_that_are_no_numbers_are_never_right(value: float, model: ResNet, digits: Dataset) -> None:
    """The argmax of NaN is class 0: on images of that class alone, such a network had an accuracy of 100 %."""
    zeros = torch.zeros_like(digits.val.y)
    with torch.no_grad():
        model.head.bias[0] = 1e3
    assert evaluation_of(model, digits, zeros).accuracy == 1
    with torch.no_grad():
        model.head.bias[0] = value
    found = evaluation_of(model, digits, zeros)
    assert (found.accuracy, found.balanced_accuracy, found.is_finite) == (0, 0, False)


def test_weights_too_large_to_be_squared_are_finite_numbers(model: ResNet, digits: Dataset) -> None:
    with torch.no_grad():
        model.stem[1].running_var[0] = 1e30  # type: ignore[index, union-attr]
    assert evaluation_of(model, digits).is_finite


def test_finite_weights_whose_logits_overflow_are_diverged(model: ResNet, digits: Dataset) -> None:
    with torch.no_grad():
        model.head.weight.fill_(3e38)
    assert not evaluation_of(model, digits).is_finite


def test_a_network_that_is_not_finite_is_not_exported(
    digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, trained = finish(using(Breaks("deployed weight", math.nan)), digits)
    with pytest.raises(ValueError, match="not all of its numbers are finite"):
        export(trained, digits, tmp_path_factory.mktemp("exports") / "model", {})


@pytest.mark.parametrize("family", ["small", "thin", "wide", "fast"])
@pytest.mark.parametrize("size", [4, 8, 28, 32, 96, 224])
@pytest.mark.parametrize("batch_size", [1, 8, 128, 4096])
def test_batches_of_evaluation_hold_so_many_bytes_and_no_more_than_a_training_step(
    family: str, size: int, batch_size: int
) -> None:
    """Bytes as counted by hand: a step keeps what convolutions put out and what follows them; a pass holds five."""
    network = build(family, depth=1, width=1.0, in_channels=3, n_classes=10)
    n = images_at_once(network, size, batch_size)
    step = 2 * 4 * network.activations(size) * batch_size
    taken = n * 5 * 4 * max(layer.outputs for layer in network.layers(size))
    assert n >= 1
    assert n == 1 or taken <= min(max(step, UNNOTICED), ENOUGH)


@pytest.mark.parametrize("batch_size", [1, 500])
def test_accuracies_do_not_depend_on_how_many_images_are_evaluated_at_once(
    batch_size: int, model: ResNet, digits: Dataset
) -> None:
    large = replace(
        digits.val, x=digits.val.x.repeat_interleave(6, 2).repeat_interleave(6, 3)[:60], y=digits.val.y[:60]
    )
    assert images_at_once(model.architecture, 48, 1) < len(large.y)
    found, expected = (
        evaluate(model.eval(), large, Normalisation(digits, CPU), FORMATS["fp32"], batch_size=size)
        for size in (batch_size, 10_000)
    )
    assert (found.accuracy, found.balanced_accuracy) == (expected.accuracy, expected.balanced_accuracy)


def test_evaluation_of_large_images_takes_no_more_memory_than_training_on_them(digits: Dataset) -> None:
    """In batches of 1000 images it took 440 MB here, and 3.7 GiB in the wide family at 224 pixels."""
    x = digits.val.x.repeat_interleave(12, 2).repeat_interleave(12, 3)
    val = Images(x[:150].contiguous(memory_format=torch.channels_last), digits.val.y[:150])
    few = replace(digits, train=Images(val.x[:8], val.y[:8]), val=val)
    (report,), _ = finish(using(batch_size=4, epochs=1), few, Task(DataSpec("digits"), "small"))
    assert 0 < report.eval_peak_memory < report.peak_memory + (50 << 20)
