"""Laws of MorphNet's arithmetic: costs beside the counter, gradients beside differences, widths beside budgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from objectives.networks import flops
from objectives.networks.architecture import Architecture, Stage, build
from objectives.networks.resnet import ResNet
from objectives.strategies.methods.morphing import Of, cost_of, gammas, regulariser, resized, strengths, widest

ARCHITECTURES = {
    "small": build("small", depth=2, width=1.0, in_channels=1, n_classes=10),
    "thin, Haar stem": replace(build("thin", depth=1, width=1.0, in_channels=3, n_classes=7), stem="haar"),
    "fast": build("fast", depth=1, width=0.25, in_channels=3, n_classes=10),
    "pruned": Architecture(3, 4, (Stage(5, (3, 0)), Stage(7, (0, 2))), stem_stride=2, stem_kernel=5),
}
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())


def network(architecture: Architecture) -> ResNet:
    """In double precision, with scales between 0.1 and 1.1."""
    torch.manual_seed(0)
    model = ResNet(architecture).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and name.endswith(".weight"):
                parameter.uniform_(0.1, 1.1).mul_(torch.randn_like(parameter).sign())
    return model


@each_architecture
@pytest.mark.parametrize("size", [8, 15])
def test_the_cost_is_the_flops_that_are_counted_and_the_parameters_that_layers_have(
    architecture: Architecture, size: int
) -> None:
    sizes = architecture.axis_sizes()
    assert cost_of(architecture, size, "flops").at(sizes) == flops.count(architecture, size)[0]
    weights = sum(p.numel() for p in ResNet(architecture).parameters() if p.dim() > 1)
    assert cost_of(architecture, size, "size").at(sizes) == weights


@each_architecture
@pytest.mark.parametrize("of", ["flops", "size"])
def test_the_cost_of_other_widths_is_that_of_the_network_with_them(architecture: Architecture, of: Of) -> None:
    cost = cost_of(architecture, 8, of)
    sizes = {axis: max(1, n * (2 + i % 3) // 4) for i, (axis, n) in enumerate(architecture.axis_sizes().items())}
    sizes[next(axis for axis in sizes if "." in axis)] = 0  # a branch that is gone
    after = resized(architecture, sizes)
    assert cost.at(sizes) == cost_of(after, 8, of).at(after.axis_sizes())


@each_architecture
def test_a_stage_shares_its_channels_between_all_its_scales(architecture: Architecture) -> None:
    model, axes = network(architecture), tuple(architecture.axis_sizes())
    names = gammas(model, axes)
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert sorted(name for tied in names for name in tied) == sorted(norms)
    for axis, tied, found in zip(axes, names, strengths(model, names), strict=True):
        assert len(found) == architecture.axis_sizes()[axis]
        assert torch.equal(found, torch.stack([model.get_parameter(name).abs() for name in tied]).max(0).values)


@each_architecture
@pytest.mark.parametrize("of", ["flops", "size"])
def test_the_gradient_agrees_with_finite_differences(architecture: Architecture, of: Of) -> None:
    """With scales on both sides of the threshold, so that the number of alive channels matters."""
    model = network(architecture)
    cost = cost_of(architecture, 8, of)
    cost = replace(cost, pairs=cost.pairs.double(), single=cost.single.double())
    names, threshold, step = gammas(model, cost.axes), 0.5, 1e-6
    whole = cost.at(architecture.axis_sizes())

    def value() -> torch.Tensor:
        return regulariser(strengths(model, names), cost, threshold) / whole

    value().backward()  # type: ignore[no-untyped-call]
    for name in (name for tied in names for name in tied):
        scale = model.get_parameter(name)
        for channel in range(0, len(scale), 5):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    scale[channel] += sign * step
                    ends.append(float(value()))
                    scale[channel] -= sign * step
            difference = (ends[0] - ends[1]) / (2 * step)
            assert scale.grad is not None
            assert float(scale.grad[channel]) == pytest.approx(difference, abs=1e-7)


def test_with_scales_of_one_the_regulariser_is_twice_the_cost_of_layers_between_two_axes() -> None:
    architecture = ARCHITECTURES["small"]
    cost = cost_of(architecture, 8, "flops")
    ones = [torch.ones(n) for n in architecture.axis_sizes().values()]
    sizes = architecture.axis_sizes()
    ends = float(cost.single @ torch.tensor([float(sizes[axis]) for axis in cost.axes]))
    assert float(regulariser(ones, cost, 0.5)) == pytest.approx(2 * cost.at(sizes) - ends)


@each_architecture
@pytest.mark.parametrize("budget", [0.3, 1.0, 2.5])
def test_omega_meets_its_budget_within_one_channel(architecture: Architecture, budget: float) -> None:
    cost = cost_of(architecture, 8, "flops")
    alive = {axis: -(-n // 2) for axis, n in architecture.axis_sizes().items()}
    allowed = budget * cost.at(architecture.axis_sizes())
    omega, sizes = widest(alive, cost, allowed)
    if any(n > 1 for n in sizes.values()):
        assert cost.at(sizes) <= allowed
    steps = [(sizes[axis] + 0.5) / n for axis, n in alive.items()]  # where each axis gets its next channel
    assert omega <= min(steps) + 1e-2
    more = {axis: n + (step == min(steps)) for (axis, n), step in zip(sizes.items(), steps, strict=True)}
    assert cost.at(more) > allowed


def test_what_is_gone_stays_gone_and_the_rest_keeps_a_channel() -> None:
    architecture = ARCHITECTURES["small"]
    alive = {axis: n if "." not in axis else 0 for axis, n in architecture.axis_sizes().items()}
    _, sizes = widest(alive, cost_of(architecture, 8, "flops"), 1.0)
    assert {axis: n for axis, n in sizes.items() if "." in axis} == dict.fromkeys((a for a in alive if "." in a), 0)
    assert [n for axis, n in sizes.items() if "." not in axis] == [1, 1]
    assert resized(architecture, sizes).stages == (Stage(1, ()), Stage(1, (0,)))
