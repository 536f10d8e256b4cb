"""The laws of Muon and of its optimizer."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from objectives.data.dataset import Dataset
from objectives.device.executors import Eager
from objectives.device.formats import LossScaler
from objectives.networks.resnet import ResNet
from objectives.networks.surgery import reindex
from objectives.state import TrainState
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.methods.muon import COEFFICIENTS, MuonSGD, orthogonalised, with_muon
from objectives.strategies.muon import Muon
from objectives.strategies.prune_train import PruneTrain
from objectives.train import set_lr
from tests.objectives.strategies.cases import NothingIsRead, begin, begin_in_double, executor, first_batch, using


def hidden_convolutions(model: ResNet) -> dict[str, nn.Parameter]:
    parameters = dict(model.named_parameters())
    return {name: p for name, p in parameters.items() if p.dim() == 4 and name != "stem.0.weight"}


def with_gradients(state: TrainState, digits: Dataset) -> TrainState:
    x, y = first_batch(digits)
    model = state.trainee.model.train()
    nn.functional.cross_entropy(model(x.to(model.head.weight.dtype)), y).backward()
    return state


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16), (1, 9)])
def test_newton_schulz_keeps_singular_vectors_and_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1e-4, 1.0, 1e4]).view(3, 1, 1)
    matrices = torch.randn(3, *shape, generator=generator, dtype=torch.float64) * scales
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / values.square().sum(1, keepdim=True).sqrt()
    for _ in range(5):
        values = sum(c * values**power for c, power in zip(COEFFICIENTS, (1, 3, 5), strict=True))  # type: ignore[assignment]
    found = orthogonalised(matrices, 5)
    torch.testing.assert_close(found, left @ values.diag_embed() @ right, rtol=1e-9, atol=1e-10)
    well = torch.linalg.svdvals(matrices) > 0.05 * torch.linalg.svdvals(matrices)[:, :1]
    assert float(torch.linalg.svdvals(found)[well].min()) > 0.6
    assert float(torch.linalg.svdvals(found).max()) < 1.25


@pytest.mark.parametrize("keep_norm", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_steps_are_those_computed_by_hand_one_convolution_at_a_time(
    keep_norm: bool, momentum: float, digits: Dataset
) -> None:
    pipeline = using(Muon(lr=0.1, momentum=momentum, keep_norm=keep_norm), weight_decay=0.01)
    state = begin_in_double(pipeline, digits)
    model, optimizer = state.trainee.model, state.trainee.optimizer
    buffers = {name: torch.zeros_like(p) for name, p in hidden_convolutions(model).items()}
    for _ in range(3):
        with_gradients(state, digits)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in hidden_convolutions(model).items():
            buffers[name] = momentum * buffers[name] + gradients[name]
            nesterov = gradients[name] + momentum * buffers[name]
            step = plainly_orthogonal(nesterov.reshape(len(nesterov), -1)).view_as(nesterov)
            expected = (1 - 0.1 * 0.01) * before[name] - 0.1 * step
            if keep_norm:
                expected *= before[name].norm() / expected.norm()
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-9, atol=1e-10)
            found = optimizer.state[parameter]["momentum_buffer"]
            torch.testing.assert_close(found, buffers[name], rtol=1e-12, atol=1e-12)


def plainly_orthogonal(matrix: Tensor) -> Tensor:
    """The published iteration, word for word, for one matrix."""
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm()
    for _ in range(5):
        x = a * x + b * (x @ x.T @ x) + c * (x @ x.T @ x @ x.T @ x)
    return x


def test_all_but_the_hidden_convolutions_learn_as_without_it(digits: Dataset) -> None:
    """Stem, batch norms, biases and head: by the very SGD, options of their own included."""
    one, other = (begin(using(BiasLearningRate(8.0), *muon), digits) for muon in ((Muon(),), ()))
    for state in (one, other):
        with_gradients(state, digits)
        set_lr(state.trainee.optimizer, 0.05)
        state.trainee.optimizer.step()
    convolutions = hidden_convolutions(one.trainee.model)
    reference = dict(other.trainee.model.named_parameters())
    for name, parameter in one.trainee.model.named_parameters():
        assert torch.equal(parameter, reference[name]) != (name in convolutions), name


@pytest.mark.parametrize("rule", ["none", "sqrt", "linear"])
def test_its_learning_rate_follows_the_batch_size_and_the_schedule(rule: str, digits: Dataset) -> None:
    state = begin(using(Muon(lr=0.3), lr=0.2, lr_rule=rule), digits)
    rest, muon = (state.trainee.optimizer.param_groups[number] for number in (0, -1))
    factor = state.pipeline.peak_lr / 0.2
    assert (rest["lr"], muon["lr"]) == pytest.approx((0.2 * factor, 0.3 * factor))
    set_lr(state.trainee.optimizer, 0.5 * state.pipeline.peak_lr)
    assert (rest["lr"], muon["lr"]) == pytest.approx((0.1 * factor, 0.15 * factor))


def test_a_learning_rate_may_be_a_tensor(digits: Dataset) -> None:
    results = []
    for as_tensor in (False, True):
        state = with_gradients(begin(using(Muon()), digits), digits)
        for group in state.trainee.optimizer.param_groups:
            if as_tensor and "keep_norm" in group:
                group["lr"] = torch.tensor(group["lr"])
        set_lr(state.trainee.optimizer, 0.1)
        state.trainee.optimizer.step()
        results.append(state.trainee.model.state_dict())
    torch.testing.assert_close(*results)


def test_no_step_waits_for_the_device_skipped_or_taken(digits: Dataset) -> None:
    state = begin(using(Muon(), number_format="fp16"), digits)
    running: Eager = executor(state, LossScaler("cpu", 2.0**12))
    x, y = first_batch(digits)
    with NothingIsRead():
        taken = [running.step(x * factor, y).taken for factor in (1, 1e6, 1)]
    assert [int(number) for number in taken] == [1, 0, 1]


def test_gradients_still_scaled_are_unscaled(digits: Dataset) -> None:
    """GradScaler leaves that to optimizers that know of it."""
    results = []
    for scale in (1.0, 1024.0):
        state = with_gradients(begin(using(Muon()), digits), digits)
        for parameter in state.trainee.model.parameters():
            assert parameter.grad is not None
            parameter.grad *= scale
        optimizer = state.trainee.optimizer
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)  # type: ignore[attr-defined]
        optimizer.step()
        results.append([optimizer.state[p]["momentum_buffer"] for p in state.trainee.model.parameters()])
    torch.testing.assert_close(*results)


def test_the_optimizer_survives_copies_and_surgery(digits: Dataset) -> None:
    state = begin(using(Muon()), digits)
    options = [{k: v for k, v in g.items() if k != "params"} for g in state.trainee.optimizer.param_groups]
    for trainee in (reindex(state.trainee, {"stage0": torch.arange(4)}), deepcopy(state.trainee)):
        assert type(trainee.optimizer) is MuonSGD
        assert trainee.optimizer._step_supports_amp_scaling
        assert [{k: v for k, v in g.items() if k != "params"} for g in trainee.optimizer.param_groups] == options
        muon = {id(p) for g in trainee.optimizer.param_groups if "keep_norm" in g for p in g["params"]}
        assert muon == {id(p) for p in hidden_convolutions(trainee.model).values()}


def test_a_convolution_of_zeros_may_grow_though_it_keeps_its_norm() -> None:
    weight = nn.Parameter(torch.zeros(4, 4, 3, 3))
    weight.grad = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    plain = torch.optim.SGD([weight], lr=0.1)
    optimizer = with_muon(plain, [weight], factor=1.0, momentum=0.0, steps=5, keep_norm=True)
    optimizer.step()
    assert weight.isfinite().all()
    assert weight.any()


def test_a_network_without_momentum_can_have_it_in_convolutions(digits: Dataset) -> None:
    state = with_gradients(begin(using(Muon(momentum=0.6), momentum=0.0), digits), digits)
    state.trainee.optimizer.step()
    for name, parameter in state.trainee.model.named_parameters():
        assert ("momentum_buffer" in state.trainee.optimizer.state[parameter]) == (
            name in hidden_convolutions(state.trainee.model)
        )


def test_it_takes_no_closure_and_not_prune_train() -> None:
    weight = nn.Parameter(torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError, match="takes no closure"):
        MuonSGD([weight], lr=0.1).step(lambda: 0.0)
    with pytest.raises(ValueError, match="Muon cannot run with PruneTrain: choose one"):
        using(PruneTrain(), Muon())


@pytest.mark.parametrize(
    "parameters", [{"lr": -0.1}, {"lr": 11.0}, {"momentum": 1.0}, {"momentum": -0.1}, {"steps": 0}, {"steps": 11}]
)
def test_a_parameter_outside_its_range_is_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lr must lie in \[0, 10\], momentum in \[0, 1\), steps in 1 to 10"):
        Muon(**parameters)  # type: ignore[arg-type]
