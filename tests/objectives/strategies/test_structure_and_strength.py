"""The laws of StructureAndStrength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.data.dataset import Dataset, Images
from objectives.export import export, load_model
from objectives.networks.families import build
from objectives.networks.network import Network
from objectives.networks.network import build as network_of
from objectives.state import TrainState
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.net2net import Net2Net
from objectives.strategies.structure_and_strength import SHADOW, StructureAndStrength
from objectives.strategies.whitening import Whitening
from objectives.train import after_boundary, bound, starting_state
from tests.objectives.strategies.cases import (
    PLAIN_GROUNDS,
    SEEDS,
    TASK,
    begin,
    begin_in_double,
    finish,
    first_batch,
    same_weights,
    stepped,
    using,
)

FIXED = StructureAndStrength()
TAPS = 9  # of the kernels of these networks that have any structure


def boundary(state: TrainState, epoch: int) -> TrainState:
    return bound(after_boundary(replace(state, epoch=epoch, events=())))


def structures(state: TrainState) -> Mapping[str, Tensor]:
    return state.trainee.shadows[SHADOW].tensors


def off_structure(state: TrainState) -> float:
    """Length of what kernels have beside the line of their structure, as a share of theirs; the most of all layers."""
    found = []
    for name, structure in structures(state).items():
        weight, line = (t.detach().flatten(2) for t in (state.trainee.model.get_parameter(name), structure))
        line = F.normalize(line, dim=2)
        beside = weight - (weight * line).sum(2, keepdim=True) * line
        found.append(float(beside.norm() / weight.norm()))
    return max(found)


# --- structures -------------------------------------------------------------------------------------------------------


def test_structures_of_the_first_layer_are_the_principal_components_of_the_patches_that_it_reads(
    digits: Dataset,
) -> None:
    state = begin(using(FIXED), digits)
    x, _ = first_batch(digits)
    patches = np.lib.stride_tricks.sliding_window_view(x[:, 0].double().numpy(), (3, 3), (1, 2)).reshape(-1, TAPS)
    values, components = np.linalg.eigh(patches.T @ patches)
    assert np.diff(values).min() > 1e-6 * values.max()
    stem = F.normalize(structures(state)["stem.0.weight"].flatten(1).double(), dim=1)
    alike = (stem @ torch.from_numpy(components)).abs()  # [outputs, components]
    assert alike.argmax(1).tolist() == [(TAPS - 1 - output % TAPS) for output in range(len(stem))]
    torch.testing.assert_close(alike.amax(1), torch.ones(len(stem), dtype=torch.float64), rtol=0, atol=1e-5)


def test_a_layer_has_as_many_structures_as_taps_at_right_angles_and_sees_each_input_through_all(
    digits: Dataset,
) -> None:
    for name, structure in structures(begin(using(FIXED, width=1.0), digits)).items():
        lines = F.normalize(structure.flatten(2).double(), dim=2)
        for input_channel in range(lines.shape[1]):
            some = lines[:TAPS, input_channel]
            alike = (some @ some.T).abs() - torch.eye(len(some), dtype=torch.float64)
            assert alike.max() < 1e-4, name
        flat = lines.flatten(0, 1)
        crossed = (flat @ flat.T).abs()
        assert ((crossed < 1e-4) | (crossed > 1 - 1e-4)).all(), name


def test_a_layer_begins_with_about_the_variance_that_it_has_anyway(digits: Dataset) -> None:
    state = begin(using(FIXED, width=1.0), digits)
    plain = starting_state(using(width=1.0), TASK, digits, SEEDS).trainee.model
    for name in structures(state):
        before, now = (model.get_parameter(name).detach().norm() for model in (plain, state.trainee.model))
        assert 0.75 < now / before < 1.25, name
    untouched = set(dict(plain.named_parameters())) - set(structures(state))
    assert any("shortcut" in name for name in untouched)
    for name in untouched:
        assert torch.equal(plain.get_parameter(name), state.trainee.model.get_parameter(name))
    for name, statistic in plain.named_buffers():  # of the batch that showed the patches nothing is left
        assert torch.equal(statistic, state.trainee.model.get_buffer(name))


def test_random_structures_are_those_of_the_untouched_network(digits: Dataset) -> None:
    control = begin(using(StructureAndStrength(dictionary="random")), digits)
    plain = starting_state(using(), TASK, digits, SEEDS).trainee.model
    assert same_weights(control.trainee.model, plain)
    assert all(torch.equal(structure, plain.get_parameter(name)) for name, structure in structures(control).items())


# --- strengths --------------------------------------------------------------------------------------------------------


def trained_on_strengths(state: TrainState, x: Tensor, y: Tensor, n_steps: int) -> Network:
    """The network of a begun state after steps of SGD on t in W[o, i] = t[o, i] D[o, i], with D of length 1."""
    model, group = state.trainee.model, state.trainee.optimizer.param_groups[0]
    lines = {name: F.normalize(structure.flatten(2), dim=2) for name, structure in structures(state).items()}
    strengths = {
        name: (model.get_parameter(name).detach().flatten(2) * line).sum(2).requires_grad_()
        for name, line in lines.items()
    }
    free = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters() if name not in lines}
    options = {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
    optimizer = torch.optim.SGD([*strengths.values(), *free.values()], **options)

    def weights() -> dict[str, Tensor]:
        made = {name: t[..., None] * lines[name] for name, t in strengths.items()}
        return free | {name: made[name].view(model.get_parameter(name).shape) for name in made}

    for _ in range(n_steps):
        loss = F.cross_entropy(torch.func.functional_call(model, weights(), (x,)).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for name, weight in weights().items():
            model.get_parameter(name).copy_(weight)
    return model


@pytest.mark.parametrize("dictionary", ["patches", "random"])
def test_its_steps_are_those_of_sgd_on_the_strengths_alone(dictionary: str, digits: Dataset) -> None:
    """With momentum and weight decay; so the gradient of a strength is the sum of dW * D over its kernel."""
    strategy = StructureAndStrength(dictionary=dictionary)  # type: ignore[arg-type]
    pipeline = using(strategy, weight_decay=0.01)
    state, other = (begin_in_double(pipeline, digits) for _ in range(2))
    x, y = first_batch(digits)
    expected = trained_on_strengths(other, x.double(), y, 6)
    before = {name: parameter.detach().clone() for name, parameter in state.trainee.model.named_parameters()}
    stepped(state, digits, 6)
    for name, parameter in state.trainee.model.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), rtol=1e-6, atol=1e-7)
        assert not torch.equal(parameter, before[name])
    assert off_structure(state) < 1e-12


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_kernels_stay_on_the_lines_of_their_structures_and_leave_them_when_these_are_free(
    number_format: str, digits: Dataset
) -> None:
    state = stepped(begin(using(StructureAndStrength(until=0.5), number_format=number_format), digits), digits, 5)
    assert off_structure(state) < 1e-5
    lines = structures(state)
    freed = boundary(state, 2)
    assert freed.events == ("structures are free from here on",)
    assert SHADOW not in freed.trainee.shadows
    assert boundary(freed, 3).events == ()
    for name, line in lines.items():
        parameter = freed.trainee.model.get_parameter(name)
        momentum = freed.trainee.optimizer.state[parameter]["momentum_buffer"].flatten(2)
        on_line = F.normalize(line.flatten(2), dim=2)
        assert (momentum - (momentum * on_line).sum(2, keepdim=True) * on_line).norm() < 1e-5 * momentum.norm()
    stepped(freed, digits, 3)
    with_lines = replace(freed, trainee=freed.trainee.with_shadow(SHADOW, state.trainee.shadows[SHADOW]))
    assert off_structure(with_lines) > 1e-3


def test_what_is_frozen_stays_bit_for_bit(digits: Dataset) -> None:
    state = boundary(stepped(begin(using(FIXED, Freeze(start=0.25)), digits), digits, 3), 1)
    before = state.trainee.model.get_parameter("stem.0.weight").detach().clone()
    stepped(state, digits, 3)
    assert torch.equal(state.trainee.model.get_parameter("stem.0.weight"), before)


# --- within a run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        *(Net2Net(start_width=0.5, at=0.3, until=0.3, new_channels=kind) for kind in ("fresh", "copies")),
        Net2Net(start_width=0.5, start_depth=0.5, at=0.3, until=0.3),
    ],
    ids=repr,
)
def test_every_kernel_of_a_network_that_grows_has_a_structure_and_learns_its_strength(
    other: Strategy, digits: Dataset
) -> None:
    settings = {"width": 1.0, "depth": 2, "epochs": 5}
    state = stepped(begin(using(FIXED, other, **settings), digits), digits, 5)
    before = state.trainee.model.architecture
    for epoch in (1, 2, 3):
        state = stepped(boundary(state, epoch), digits, 10)
        assert off_structure(state) < 1e-5
    assert state.trainee.model.architecture != before
    named = {name for name, p in state.trainee.model.named_parameters() if p.shape[2:] == (3, 3)}
    assert set(structures(state)) == named
    for name, structure in structures(state).items():
        assert structure.flatten(2).any(2).all(), name
        assert structure.shape == state.trainee.model.get_parameter(name).shape
        assert state.trainee.model.get_parameter(name).flatten(2).any(2).all(), name


def test_averages_keep_to_the_structures_and_what_is_exported_is_a_network_like_any_other(
    digits: Dataset, tmp_path: Path
) -> None:
    control = StructureAndStrength(dictionary="random")
    _, trained = finish(using(control, Ema(horizon=0.5)), digits)
    _, plain = finish(using(), digits)
    assert trained.report.n_parameters == plain.report.n_parameters
    line = F.normalize(structures(begin(using(control), digits))["stem.0.weight"].flatten(2), dim=2)
    stem = trained.model.get_parameter("stem.0.weight").detach().flatten(2)
    assert (stem - (stem * line).sum(2, keepdim=True) * line).norm() < 1e-5 * stem.norm()
    export(trained, digits, tmp_path / "model", {})
    loaded = load_model(tmp_path / "model").network
    x, _ = first_batch(digits)
    assert torch.equal(loaded(x), trained.model(x))


@pytest.mark.parametrize("dictionary", ["patches", "random"])
def test_strengths_alone_fit_few_images(dictionary: str, digits: Dataset) -> None:
    few = replace(digits, train=Images(digits.train.x[:100], digits.train.y[:100]))
    strategy = StructureAndStrength(dictionary=dictionary)  # type: ignore[arg-type]
    reports, _ = finish(using(strategy, epochs=25, batch_size=25, width=1.0), few)
    assert reports[-1].loss < 0.1
    assert reports[-1].accuracy > 0.75


def test_series_have_structures_as_well() -> None:
    full = build("cnn1d", depth=1, width=0.5, in_channels=3, n_classes=6, size=128)
    assert FIXED.idle(Outline(full, 128, 1)) is None
    assert {layer.kernel_size for layer in network_of(full).convolutions()} == {(1, 5), (1, 9)}


def test_what_it_does_is_known_before_the_run(digits: Dataset) -> None:
    dense = starting_state(PLAIN_GROUNDS["lenet300"].using(), PLAIN_GROUNDS["lenet300"].task, digits, SEEDS).full
    thin = build("thin", depth=1, width=1.0, in_channels=1, n_classes=10, size=8)
    assert FIXED.idle(Outline(thin, 8, 1)) is None
    assert FIXED.idle(Outline(dense, 8, 4)) == "the network has no convolution of more than a pixel"
    assert StructureAndStrength(until=0.0).idle(Outline(thin, 8, 4)) == "structures are free from the start"


@pytest.mark.parametrize("other", [IdentityInit, KernelRescaling, LotteryTicket, LowRank, Whitening])
def test_what_gives_kernels_another_form_is_refused(other: type[Strategy]) -> None:
    with pytest.raises(ValueError, match=f"cannot run with {other.__name__}|{other.__name__} cannot run with"):
        using(FIXED, other())


@pytest.mark.parametrize("parameters", [{"until": -0.1}, {"until": 1.1}, {"dictionary": "wavelets"}])
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="until must lie in"):
        StructureAndStrength(**parameters)  # type: ignore[arg-type]
