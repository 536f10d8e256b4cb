"""Laws of a training step: the order of strategies, and what is added to the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.device.executors import Eager, Segment
from objectives.device.formats import FORMATS, LossScaler
from objectives.networks.architecture import Architecture, Stage
from objectives.networks.families import build as family_of
from objectives.networks.network import build
from objectives.networks.resnet import Convolution, ResNet
from objectives.networks.sequential import Dense
from objectives.networks.trainee import Trainee
from objectives.state import Step
from objectives.strategies.base import Multiply, Strategy


@dataclass(frozen=True)
class Times(Strategy):
    """Multiplies the images, then adds to the output of every convolution, by `factor`."""

    factor: float

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.factor, y

    def convolution(self, layer: Convolution, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: compute(x) * self.factor


@dataclass(frozen=True)
class Plus(Strategy):
    """Adds to the images, and to the output of every convolution."""

    amount: float

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.amount, y

    def convolution(self, layer: Convolution, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: compute(x) + self.amount


@dataclass(frozen=True)
class Halved(Strategy):
    """Halves every product."""

    def product(self, layer: Convolution | Dense, multiply: Multiply) -> Multiply:
        return lambda x, weight: multiply(x, weight) / 2


@dataclass(frozen=True)
class Pull(Strategy):
    """Pulls every parameter towards -infinity: the gradient of the penalty is `strength` everywhere."""

    strength: float

    def penalty(self, trainee: Trainee) -> Tensor:
        return self.strength * torch.stack([p.sum() for p in trainee.model.parameters()]).sum()


@dataclass(frozen=True)
class Shorten(Strategy):
    """Multiplies every gradient."""

    factor: float

    def gradients(self, trainee: Trainee, step: Step) -> None:
        for parameter in trainee.model.parameters():
            parameter.grad.mul_(self.factor)


@dataclass(frozen=True)
class Bend(Strategy):
    """Adds to every gradient."""

    amount: float

    def gradients(self, trainee: Trainee, step: Step) -> None:
        for parameter in trainee.model.parameters():
            parameter.grad.add_(self.amount)


@dataclass(frozen=True)
class Watch(Strategy):
    """Remembers the gradients and what it is told of the step."""

    seen: list[Tensor] = field(default_factory=list, compare=False)
    taken: list[float] = field(default_factory=list, compare=False)

    def gradients(self, trainee: Trainee, step: Step) -> None:
        self.seen[:] = [parameter.grad.clone() for parameter in trainee.model.parameters()]
        self.taken.append(float(step.taken))


@dataclass(frozen=True)
class Weigh(Strategy):
    """Scales the weight of every convolution where it is multiplied, then adds to what comes out."""

    factor: float
    amount: float

    def product(self, layer: Convolution, multiply: Multiply) -> Multiply:
        return lambda x, weight: multiply(x, weight * self.factor) + self.amount


def trainee() -> Trainee:
    torch.manual_seed(0)
    model = ResNet(Architecture(1, 3, (Stage(2, (2,)), Stage(3, (2,))))).double()
    return Trainee(model, torch.optim.SGD(model.parameters(), lr=0.1, fused=True), {}, {})


def step(subject: Trainee, *strategies: Strategy, label_smoothing: float = 0.0) -> Step:
    x = torch.linspace(-1, 1, 4 * 16, dtype=torch.float64).sin().view(4, 1, 4, 4)
    segment = Segment(subject, strategies, FORMATS["fp32"], None, label_smoothing)
    return Eager(segment).step(x, torch.tensor([0, 1, 2, 1]))


def test_strategies_change_the_batch_from_left_to_right() -> None:
    plain = step(trainee()).x
    torch.testing.assert_close(step(trainee(), Times(2.0), Plus(1.0)).x, plain * 2 + 1)
    torch.testing.assert_close(step(trainee(), Plus(1.0), Times(2.0)).x, (plain + 1) * 2)


def test_the_last_strategy_wraps_a_convolution_outermost() -> None:
    subject = trainee()
    step(subject, Times(2.0), Plus(1.0))
    layer = subject.model.convolutions()[-1]
    x = torch.randn(2, layer.in_channels, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, None, layer.stride, layer.padding) * 2 + 1)
    assert all(convolution.compute is not None for convolution in subject.model.convolutions())


@pytest.mark.parametrize("family", ["lenet5", "lenet300", "small"])
def test_products_of_all_layers_but_the_classifier_are_wrapped_in_training_only(family: str) -> None:
    torch.manual_seed(0)
    model = build(family_of(family, depth=1, width=0.5, in_channels=1, n_classes=3, size=12)).double()
    subject = Trainee(model, torch.optim.SGD(model.parameters(), lr=0.0), {}, {})
    x = torch.randn(4, 1, 12, 12, dtype=torch.float64)
    plain, evaluated = model(x), model.eval()(x)
    Eager(Segment(subject, (Halved(), Halved()), FORMATS["fp32"], None, 0.0)).step(x, torch.tensor([0, 1, 2, 1]))
    layers = model.multiplying()
    assert all(layer.multiply is not None for layer in layers)
    assert not any(layer is model.head for layer in layers)
    n_weights = {tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight") and p.dim() > 1}
    assert {tuple(layer.weight.shape) for layer in layers} | {tuple(model.head.weight.shape)} == n_weights
    for layer in layers:
        rest = (6, 6) if isinstance(layer, Convolution) else (*layer.weight.shape[2:], 1)
        read = torch.randn(2, layer.weight.shape[1], *rest, dtype=torch.float64)
        assert torch.equal(layer(read), layer.multiplied(read, layer.weight) / 4)
    assert torch.equal(model.eval()(x), evaluated) or family == "small"  # whose running statistics have moved
    model.train().unwrap()
    assert torch.equal(model(x), plain)


def test_a_later_segment_forgets_the_wraps_of_an_earlier_one() -> None:
    subject = trainee()
    step(subject, Times(2.0))
    step(subject)
    assert [layer.compute for layer in subject.model.convolutions()] == [None] * 6


def test_penalties_add_to_the_gradient_and_not_to_the_reported_loss() -> None:
    plain, pulled = trainee(), trainee()
    plain_step, pulled_step = step(plain), step(pulled, Pull(0.5), Pull(0.25))
    assert torch.equal(plain_step.loss, pulled_step.loss)
    for free, pulled_down in zip(plain.model.parameters(), pulled.model.parameters(), strict=True):
        torch.testing.assert_close(pulled_down, free - 0.1 * 0.75, rtol=1e-12, atol=1e-12)
        assert pulled_down.grad is None


def test_the_loss_is_the_smoothed_cross_entropy_of_the_training_network() -> None:
    subject, twin = trainee(), trainee()
    found = step(subject, label_smoothing=0.3)
    log_probabilities = twin.model.train()(found.x).log_softmax(1)
    target = 0.7 * F.one_hot(found.y, 3) + 0.1
    expected = -(target * log_probabilities).sum(1).mean()
    torch.testing.assert_close(found.loss.double(), expected.detach(), rtol=1e-6, atol=1e-6)


def test_gradients_of_loss_and_penalties_are_changed_from_left_to_right_before_the_optimizer_steps() -> None:
    plain, watch = trainee(), Watch()
    before = [parameter.detach().clone() for parameter in plain.model.parameters()]
    step(plain, Pull(0.5), watch)
    for bends, expected in (
        ((Shorten(2.0), Bend(1.0)), lambda g: 2 * g + 1),
        ((Bend(1.0), Shorten(2.0)), lambda g: 2 * (g + 1)),
    ):
        subject = trainee()
        done = step(subject, Pull(0.5), *bends)
        assert done.taken == 1
        for parameter, start, gradient in zip(subject.model.parameters(), before, watch.seen, strict=True):
            torch.testing.assert_close(parameter.detach(), start - 0.1 * expected(gradient), rtol=1e-12, atol=1e-12)


def test_gradients_of_fp16_are_seen_unscaled_and_of_a_step_that_is_not_taken_they_move_nothing() -> None:
    exact, half = Watch(), Watch()
    subjects = [replace(trainee(), model=trainee().model.float()) for _ in range(2)]
    x, y = torch.linspace(-1, 1, 4 * 16).sin().view(4, 1, 4, 4), torch.tensor([0, 1, 2, 1])
    for subject, watch, scaler in zip(subjects, (exact, half), (None, LossScaler("cpu", 2.0**10)), strict=True):
        optimizer = torch.optim.SGD(subject.model.parameters(), lr=0.1, fused=True)
        subject = replace(subject, optimizer=optimizer)
        running = Eager(Segment(subject, (watch, Shorten(0.5)), FORMATS["fp16" if scaler else "fp32"], scaler, 0.0))
        running.step(x, y)
    for one, other in zip(exact.seen, half.seen, strict=True):
        torch.testing.assert_close(other, one, rtol=0.05, atol=2e-3)
    before = [parameter.detach().clone() for parameter in subject.model.parameters()]
    running.step(x * 1e6, y)
    assert half.taken == [1, 0]
    assert all(map(torch.equal, subject.model.parameters(), before))


def test_the_last_strategy_wraps_a_product_outermost_in_training_only() -> None:
    subject = trainee()
    step(subject, Weigh(2.0, 1.0), Weigh(3.0, 0.5), Times(2.0))
    layer = subject.model.convolutions()[-1]
    x = torch.randn(2, layer.in_channels, 4, 4, dtype=torch.float64)
    plain = F.conv2d(x, layer.weight, None, layer.stride, layer.padding)
    torch.testing.assert_close(layer.train()(x), (6 * plain + 1.5) * 2)
    torch.testing.assert_close(layer.eval()(x), plain)
    step(subject)
    assert all(convolution.multiply is None for convolution in subject.model.convolutions())
