"""The laws of ColumnRowSampling."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from objectives.data.dataset import Dataset
from objectives.networks import flops
from objectives.networks.architecture import HEAD, Architecture
from objectives.networks.families import build
from objectives.networks.network import build as network_of
from objectives.networks.plain import AnyArchitecture
from objectives.networks.resnet import Convolution
from objectives.networks.sequential import Dense
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.column_row_sampling import ColumnRowSampling
from tests.objectives.strategies.cases import (
    PLAIN_GROUNDS,
    RESIDUAL,
    Ground,
    begin,
    executor,
    finish,
    first_batch,
    using,
)

LAYERS: dict[str, tuple[Convolution | Dense, tuple[int, ...]]] = {  # with the shape of what it reads
    "convolution": (Convolution(12, 5, 3), (3, 12, 6, 6)),
    "convolution of stride 2": (Convolution(12, 5, 3, 2), (3, 12, 6, 6)),
    "of series": (Convolution(12, 5, 3, dims=1), (3, 12, 1, 9)),
    "dense": (Dense(12, 5), (3, 12)),
    "dense behind convolutions": (Dense(12, 5, 4), (3, 12, 2, 2)),
}
each_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS.keys())
LEAST = ColumnRowSampling(share=0.4, least=1)  # 5 of 12 channels


def operands(layer: Convolution | Dense, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x and weight in double precision; the channels of x differ in size up to ten times, in no order."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x *= torch.linspace(0.3, 3, 12)[torch.randperm(12, generator=generator)].view(1, -1, *[1] * (len(shape) - 2))
    weight = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), weight.requires_grad_()


def multiplied(layer: Convolution | Dense, x: Tensor, weight: Tensor) -> Tensor:
    """What the layer makes of them, without its bias."""
    found = layer.double().multiplied(x, weight)
    return found - layer.bias if isinstance(layer, Dense) else found


# --- the largest ------------------------------------------------------------------------------------------------------


@each_layer
def test_the_largest_channels_are_taken_in_their_order_and_all_others_left_out(
    layer: Convolution | Dense, shape: tuple[int, ...]
) -> None:
    x, weight = operands(layer, shape)
    seen: list[Tensor] = []

    def watched(some: Tensor, of_weight: Tensor) -> Tensor:
        seen.extend((some, of_weight))
        return multiplied(layer, some, of_weight)

    found = LEAST.product(layer, watched)(x, weight)
    dims = [dim for dim in range(x.dim()) if dim != 1], [dim for dim in range(weight.dim()) if dim != 1]
    size = x.detach().square().sum(dims[0]).sqrt() * weight.detach().square().sum(dims[1]).sqrt()
    chosen = sorted(size.argsort(descending=True)[:5].tolist())
    assert chosen != list(range(5))
    assert torch.equal(seen[0], x[:, chosen])
    assert torch.equal(seen[1], weight[:, chosen])
    is_chosen = torch.zeros(12, dtype=torch.float64)
    is_chosen[chosen] = 1
    masked = x * is_chosen.view(1, -1, *[1] * (x.dim() - 2))
    torch.testing.assert_close(found, multiplied(layer, masked, weight))
    gradients = torch.autograd.grad(found.sin().sum(), (x, weight))
    for gradient in gradients:
        assert gradient.transpose(0, 1).flatten(1).any(1).double().equal(is_chosen)


def test_what_is_taken_of_channels_last_is_in_channels_last() -> None:
    layer = Convolution(12, 5, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 12, 4, 4).contiguous(memory_format=torch.channels_last)

    def watched(some: Tensor, weight: Tensor) -> Tensor:
        assert some.is_contiguous(memory_format=torch.channels_last)
        assert weight.is_contiguous(memory_format=torch.channels_last)
        return layer.multiplied(some, weight)

    LEAST.product(layer, watched)(x, layer.weight)


# --- drawn ------------------------------------------------------------------------------------------------------------


@each_layer
def test_the_expectation_of_drawn_channels_is_the_exact_product(
    layer: Convolution | Dense, shape: tuple[int, ...]
) -> None:
    """So are those of both gradients, for a fixed gradient of the output: by a z-test of each of them on its mean."""
    x, weight = operands(layer, shape)
    strategy = ColumnRowSampling(share=0.4, least=1, choice="drawn")
    sampled = strategy.product(layer, lambda x, weight: multiplied(layer, x, weight))
    exact = multiplied(layer, x, weight)
    back = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def results(of: Tensor) -> Tensor:
        gradients = torch.autograd.grad(of, (x, weight), back)
        return torch.cat([part.detach().flatten() for part in (of, *gradients)])

    torch.manual_seed(0)
    draws = torch.stack([results(sampled(x, weight)) for _ in range(500)])
    z = (draws.mean(0) - results(exact)) / (draws.std(0) / 500**0.5)
    assert z.abs().max() < 4.5
    assert draws.std(0).min() > 0


def test_drawn_channels_come_in_their_order_and_large_ones_more_often() -> None:
    layer, shape = LAYERS["dense"]
    x, _ = operands(layer, shape)
    even = torch.ones(5, 12, dtype=torch.float64)
    size = x.detach().norm(dim=0)
    counts = torch.zeros(12)

    def watched(some: Tensor, of_weight: Tensor) -> Tensor:
        channels = [(x.detach()[0] == value).nonzero().item() for value in some.detach()[0]]
        assert channels == sorted(channels)
        counts.index_add_(0, torch.tensor(channels), torch.ones(len(channels)))
        return some

    torch.manual_seed(0)
    for _ in range(300):
        ColumnRowSampling(share=0.4, least=1, choice="drawn").product(layer, watched)(x, even)
    assert counts[size.argmax()] > 3 * counts[size.argmin()] > 0


# --- what stays exact -------------------------------------------------------------------------------------------------


@each_layer
@pytest.mark.parametrize("strategy", [ColumnRowSampling(share=1.0), ColumnRowSampling(share=0.1, least=12)], ids=repr)
def test_all_channels_are_the_product_itself(
    strategy: Strategy, layer: Convolution | Dense, shape: tuple[int, ...]
) -> None:
    multiply = layer.multiplied
    assert strategy.product(layer, multiply) is multiply


@pytest.mark.parametrize("family", ["thin", "fast", "lenet300", "lenet5"])
def test_projections_the_classifier_and_what_reads_few_channels_stay_exact(family: str) -> None:
    model = network_of(build(family, depth=1, width=1.0, in_channels=1, n_classes=10, size=28))
    strategy = ColumnRowSampling(share=0.5, least=10)
    for layer in model.multiplying():
        multiply = layer.multiplied
        is_exact = strategy.product(layer, multiply) is multiply
        assert is_exact == (layer.weight.shape[1] <= 10 or layer.weight.shape[2:] == (1, 1))
    assert not any(layer is model.head for layer in model.multiplying())


def test_what_it_does_is_known_before_the_run() -> None:
    for strategy, family, width, reason in (
        (ColumnRowSampling(), "thin", 1.0, None),
        (ColumnRowSampling(least=64), "thin", 1.0, "no layer reads more than 64 channels"),
        (ColumnRowSampling(least=63), "thin", 1.0, None),
        (ColumnRowSampling(least=784), "lenet300", 1.0, "no layer reads more than 784 channels"),
        (ColumnRowSampling(share=1.0), "thin", 1.0, "its share is all channels"),
    ):
        full = build(family, depth=1, width=width, in_channels=1, n_classes=10, size=28)
        assert strategy.idle(Outline(full, 28, 1)) == reason


# --- within a run -----------------------------------------------------------------------------------------------------


def by_hand(architecture: AnyArchitecture, size: int, strategy: ColumnRowSampling) -> float:
    """FLOPs of a training step per image: three passes over every layer, but two over the one that reads the image."""
    total = 0.0
    for number, layer in enumerate(architecture.layers(size)):
        taken = min(layer.n_in, max(strategy.least, round(strategy.share * layer.n_in)))
        is_sampled = layer.writes != HEAD and (layer.kernel > 1 or layer.is_dense)
        total += (2 if number == 0 else 3) * layer.flops * (taken / layer.n_in if is_sampled else 1)
    if isinstance(architecture, Architecture):  # whose head is none of its layers
        total += 3 * 2 * architecture.stages[-1].width * architecture.n_classes
    return total


@pytest.mark.parametrize(
    ("ground", "choice"),
    [(RESIDUAL, "largest"), (PLAIN_GROUNDS["vgg"], "drawn"), (PLAIN_GROUNDS["lenet300"], "largest")],
    ids=["small-largest", "vgg-drawn", "lenet300-largest"],
)
def test_flops_are_those_of_the_channels_taken_until_all_are(ground: Ground, choice: str, digits: Dataset) -> None:
    strategy = ColumnRowSampling(share=0.5, least=4, until=0.5, choice=choice)  # type: ignore[arg-type]
    reports, trained = finish(ground.using(strategy), digits, ground.task)
    architecture = trained.model.architecture
    some, whole = by_hand(architecture, 8, strategy), by_hand(architecture, 8, replace(strategy, share=1.0))
    assert whole == flops.count(architecture, 8)[1]
    assert some < 0.75 * whole
    spent = [500 * (min(n, 2) * some + max(0, n - 2) * whole) for n in (1, 2, 3, 4)]
    assert [report.train_flops for report in reports] == pytest.approx(spent)
    assert [report.inference_flops for report in reports] == [flops.count(architecture, 8)[0]] * 4


def test_a_step_multiplies_as_little_as_is_counted(digits: Dataset) -> None:
    strategy = ColumnRowSampling(share=0.5, least=4)
    running = executor(begin(using(strategy), digits))
    x, y = first_batch(digits)
    with FlopCounterMode(display=False) as counter:
        running.step(x, y)
    assert counter.get_total_flops() == len(y) * by_hand(running.segment.trainee.model.architecture, 8, strategy)


@pytest.mark.parametrize(("until", "epochs", "exact"), [(0.5, 4, 2), (0.8, 2, 1), (1.0, 2, None), (0.5, 1, None)])
def test_layers_read_all_channels_from_their_share_of_the_run_on(
    until: float, epochs: int, exact: int | None, digits: Dataset
) -> None:
    reports, _ = finish(using(ColumnRowSampling(least=4, until=until), epochs=epochs), digits)
    said = [bool(report.events) for report in reports]
    assert said == [epoch == exact for epoch in range(1, epochs + 1)]
    assert [report.settled for report in reports] == [exact is None or epoch > exact for epoch in range(1, epochs + 1)]


def test_evaluation_is_exact(digits: Dataset) -> None:
    state = begin(using(ColumnRowSampling(share=0.1, least=1, until=1.0)), digits)
    running, model, x = executor(state), state.trainee.model, first_batch(digits)[0]
    sampled = model(x)
    exact = model.eval()(x)
    model.unwrap()
    assert torch.equal(model(x), exact)
    assert not torch.equal(model.train()(x), sampled)
    assert running.segment.trainee.model is model


@pytest.mark.parametrize(
    "parameters", [{"share": 0.0}, {"share": 1.1}, {"least": 0}, {"until": 0.0}, {"until": 1.1}, {"choice": "best"}]
)
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]|largest or drawn"):
        ColumnRowSampling(**parameters)  # type: ignore[arg-type]
