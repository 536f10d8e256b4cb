"""Laws of the standardization loss: what it is, of what, and that nobody pays for it who does not ask."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from objectives.data.dataset import Dataset
from objectives.device.executors import Eager, Segment
from objectives.device.formats import FORMATS
from objectives.networks.norms.slots import Affine
from objectives.networks.plain import residual
from objectives.networks.resnet import ResNet
from objectives.pipeline import Pipeline
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.standardization_loss import StandardizationLoss, divergence
from tests.objectives.strategies.cases import begin, begin_in_double, executor, finish, first_batch, using


def activations() -> Tensor:
    torch.manual_seed(1)
    scale, shift = (torch.rand(1, 3, 1, 1).double() + 0.5 for _ in range(2))
    return torch.randn(5, 3, 4, 4).double() * scale + shift


def standardised(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / variance.sqrt()


def test_it_is_the_divergence_of_a_naive_loop() -> None:
    x = activations()
    expected = []
    for c in range(3):
        values = x[:, c].flatten()
        mean = values.sum() / len(values)
        variance = ((values - mean) ** 2).sum() / len(values)
        expected.append(kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)))
    torch.testing.assert_close(divergence(x), torch.stack(expected).mean().double())


def test_it_is_zero_where_activations_are_standardised_and_nowhere_else() -> None:
    x = standardised(activations())
    assert abs(float(divergence(x))) < 1e-14
    for other in (x + 0.01, x * 1.01, x * 0.99, torch.cat([x[:, :2], x[:, 2:] - 0.01], 1)):
        assert float(divergence(other)) > 1e-6


def test_its_gradient_is_that_of_the_formula() -> None:
    """(mean + (1 - 1 / variance) (x - mean)) / (values channels)."""
    x = activations().requires_grad_()
    (found,) = torch.autograd.grad(divergence(x), x)
    variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0, keepdim=True)
    expected = (mean + (1 - 1 / variance) * (x.detach() - mean)) / (x[:, 0].numel() * x.shape[1])
    torch.testing.assert_close(found, expected)


def test_a_dead_channel_is_not_counted_and_breaks_nothing() -> None:
    x = activations()
    with_dead = torch.cat([x, torch.zeros_like(x[:, :2])], 1).requires_grad_()
    torch.testing.assert_close(divergence(with_dead), divergence(x))
    (gradient,) = torch.autograd.grad(divergence(with_dead), with_dead)
    assert gradient.isfinite().all()
    assert not gradient[:, 3:].any()
    assert divergence(torch.zeros(2, 3, 4, 4)) == 0


def test_low_precision_is_not_that_of_the_loss() -> None:
    x = activations().bfloat16()
    assert divergence(x).dtype == torch.float32
    torch.testing.assert_close(divergence(x), divergence(x.float()))


def test_a_step_goes_down_the_loss_with_the_divergence_of_all_that_norms_would_read(digits: Dataset) -> None:
    alpha = 0.3
    state = begin_in_double(using(StandardizationLoss(alpha=alpha), momentum=0.0, weight_decay=0.0), digits)
    model, (x, y) = state.trainee.model, first_batch(digits)
    assert isinstance(model, ResNet)
    x, read = x.double(), []
    norms = [module for module in model.modules() if isinstance(module, Affine)]
    handles = [norm.register_forward_pre_hook(lambda _, given: read.append(given[0])) for norm in norms]
    loss = F.cross_entropy(model(x).float(), y) + alpha * sum(divergence(each) for each in read)
    for handle in handles:
        handle.remove()
    assert len(read) == len(model.convolutions())
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    done = executor(state).step(x, y)
    lr = state.trainee.optimizer.param_groups[0]["lr"]
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        torch.testing.assert_close(parameter, before[name] - lr * gradient, rtol=1e-8, atol=1e-10)
    assert float(done.loss) < float(loss.detach())  # what is reported is the loss without penalties


def test_nobody_pays_for_what_is_read_who_does_not_ask(digits: Dataset) -> None:
    for strategies, asks in (((), False), ((StandardizationLoss(alpha=0.0),), False), ((StandardizationLoss(),), True)):
        state = begin(using(*strategies), digits)
        running = Eager(Segment(state.trainee, state.pipeline.strategies, FORMATS["fp32"], None, 0.0))
        assert (running.forward is state.trainee.model) != asks


def mean_divergence(pipeline: Pipeline, dataset: Dataset) -> float:
    """Of what norms would read of validation images, after a training."""
    _, trained = finish(pipeline, dataset)
    x = dataset.val.x.float() / 128 - 1
    with torch.no_grad():
        return float(torch.stack([divergence(each) for each in trained.model.recorded(x)[1]]).mean())


def test_a_training_under_it_standardises(digits: Dataset) -> None:
    weak, strong = (mean_divergence(using(StandardizationLoss(alpha=a)), digits) for a in (1e-4, 0.3))
    assert strong < 0.5 * weak


@pytest.mark.parametrize("mode", ["prox", "subgrad"])
def test_it_is_pruned(mode: str, digits: Dataset) -> None:
    prune = PruneTrain(lpr=0.6, interval=3, threshold=0.3, mode=mode)  # type: ignore[arg-type]
    reports, trained = finish(using(StandardizationLoss(alpha=0.1), prune), digits)
    assert residual(trained.model.architecture).norm == "none"
    assert any("pruned" in event for report in reports for event in report.events)
    assert not reports[-1].diverged


def test_an_alpha_outside_its_range_is_refused() -> None:
    for alpha in (-0.1, 11.0, float("nan")):
        with pytest.raises(ValueError, match="alpha must lie in"):
            StandardizationLoss(alpha=alpha)
