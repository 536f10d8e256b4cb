"""The laws of Swa."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from objectives.data.dataset import Dataset
from objectives.networks.norms.slots import GhostBatchNorm
from objectives.networks.resnet import ResNet
from objectives.state import TrainState
from objectives.strategies.ema import Ema
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.methods.averaging import counter
from objectives.strategies.plateau import Plateau
from objectives.strategies.swa import SHADOW, Swa
from objectives.train import after_boundary, bound, deployed
from tests.objectives.strategies.cases import CASES, PLAIN, begin, begin_in_double, finish, same_weights, stepped, using

IMAGES = 200


def weights(model: ResNet) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def epochs_of(state: TrainState, digits: Dataset, n: int) -> tuple[TrainState, list[dict[str, Tensor]]]:
    """The state after n epochs of two steps, before the boundary that ends the last one; the weights after each."""
    ends = []
    for epoch in range(1, n + 1):
        state = stepped(bound(state), digits, 2)
        ends.append(weights(state.trainee.model))
        state = replace(state, epoch=epoch)
        if epoch < n:
            state = after_boundary(state)
    return state, ends


@pytest.mark.parametrize(("start", "first"), [(0.0, 1), (0.25, 1), (0.3, 2), (0.5, 2), (0.75, 3)])
@pytest.mark.parametrize("n_epochs", [2, 3, 4])
def test_the_mean_of_the_weights_at_the_ends_of_epochs_is_deployed(
    start: float, first: int, n_epochs: int, digits: Dataset
) -> None:
    state, ends = epochs_of(begin_in_double(using(Swa(start, images=IMAGES)), digits), digits, n_epochs)
    found = weights(deployed(state))
    averaged = ends[first - 1 :] or ends[-1:]  # before the first one, the network itself
    for name, weight in found.items():
        mean = torch.stack([end[name] for end in averaged]).mean(0)
        torch.testing.assert_close(weight, mean, rtol=1e-12, atol=1e-12)
    assert (deployed(state) is state.trainee.model) == (len(averaged) == 1)


def test_weights_of_a_boundary_that_ends_the_run_count_once(digits: Dataset) -> None:
    state, _ = epochs_of(begin_in_double(using(Swa(0.0, images=IMAGES)), digits), digits, 3)
    before, after = weights(deployed(state)), weights(deployed(after_boundary(state)))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


def with_plain_batch_norms(network: ResNet) -> ResNet:
    """A copy whose batch norms are PyTorch's, which update_bn knows."""
    copy = deepcopy(network)
    copy.unwrap()
    for name, module in list(copy.named_modules()):
        if isinstance(module, GhostBatchNorm):
            norm = nn.BatchNorm2d(module.num_features, dtype=module.weight.dtype)
            norm.load_state_dict(module.state_dict())
            copy.set_submodule(name, norm)
    return copy


def test_its_statistics_are_those_of_a_pass_over_training_images(digits: Dataset) -> None:
    state, _ = epochs_of(begin_in_double(using(Swa(0.0, images=IMAGES)), digits), digits, 3)
    network = deployed(state)
    expected = with_plain_batch_norms(network)
    chosen = [i * 5 // 2 for i in range(IMAGES)]  # evenly over 500 training images, in 4 batches of 50
    batches = [state.normalise(digits.train.x[chosen[batch::4]]).double() for batch in range(4)]
    update_bn(batches, expected)
    for name, tensor in expected.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-9, atol=1e-12)
            assert not torch.allclose(tensor, state.trainee.model.state_dict()[name], rtol=1e-3)
    assert not network.training


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_deploying_disturbs_nothing(number_format: str, digits: Dataset) -> None:
    state, _ = epochs_of(begin(using(Swa(0.0, images=IMAGES), number_format=number_format), digits), digits, 3)
    before, random = deepcopy(state.trainee.model.state_dict()), torch.get_rng_state()
    shadow = {name: tensor.clone() for name, tensor in state.trainee.shadows[SHADOW].tensors.items()}
    one, other = deployed(state), deployed(state)
    assert same_weights(one, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.trainee.model.state_dict().items())
    assert all(torch.equal(tensor, shadow[name]) for name, tensor in state.trainee.shadows[SHADOW].tensors.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert state.trainee.model.training
    assert all(norm._forward_pre_hooks == {} for norm in one.modules())


def test_where_the_schedule_goes_on_the_same_weights_are_trained(digits: Dataset) -> None:
    averaged, plain = finish(using(Swa(0.5, lr=0.0, images=IMAGES)), digits)[0], finish(PLAIN, digits)[0]
    assert [report.loss for report in averaged] == [report.loss for report in plain]
    assert [a.accuracy == b.accuracy for a, b in zip(averaged, plain, strict=True)][:2] == [True, True]


def test_the_learning_rate_stays_from_the_start_of_averaging_on(digits: Dataset) -> None:
    held, plain = (begin(using(*strategies), digits).schedule for strategies in ((Swa(0.5, lr=0.3),), ()))
    assert [held(epoch) for epoch in (0.0, 1.0, 1.99)] == [plain(epoch) for epoch in (0.0, 1.0, 1.99)]
    assert [held(epoch) for epoch in (2.0, 3.0, 3.99)] == [0.3] * 3


def test_an_average_is_carried_on_without_another_trainee(digits: Dataset) -> None:
    """A captured step goes on: nothing in it has changed."""
    state, _ = epochs_of(begin(using(Swa(0.0)), digits), digits, 2)
    after = after_boundary(state)
    assert after.trainee is state.trainee
    assert int(counter(after.trainee, SHADOW)) == 2


def test_a_run_too_short_for_an_average_says_so(digits: Dataset) -> None:
    reports, trained = finish(using(Swa(0.9, lr=0.0)), digits)
    assert reports[0].events == (
        "Swa does nothing in this run: one epoch ends after 90% of it, and that makes no average",
    )
    assert same_weights(trained.model, finish(PLAIN, digits)[1].model)


def test_slow_weights_of_lookahead_leave_the_average_alone(digits: Dataset) -> None:
    strategies = CASES["Swa"].active, Lookahead(3, 0.5)
    one, other = (finish(using(*order), digits)[1].model for order in (strategies, strategies[::-1]))
    assert same_weights(one, other)


@pytest.mark.parametrize("other", [Ema(), Plateau()])
def test_it_refuses_another_average_and_a_run_of_open_length(other: Ema | Plateau) -> None:
    with pytest.raises(ValueError, match=f"Swa cannot run with {type(other).__name__}: choose one"):
        using(Swa(), other)


@pytest.mark.parametrize(
    "parameters", [{"start": -0.1}, {"start": 1.1}, {"lr": -0.1}, {"lr": float("nan")}, {"images": 15}]
)
def test_a_parameter_outside_its_range_is_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"start and lr must lie in \[0, 1\], images must be at least 16"):
        Swa(**parameters)  # type: ignore[arg-type]
