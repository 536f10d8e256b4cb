"""Linear probes in closed form: ridge regression of one-hot labels on what a head reads, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.device.formats import FORMATS
from objectives.networks.network import Network
from objectives.networks.resnet import FactorisedHead
from objectives.state import TrainState
from objectives.strategies.methods import averaging

PENALTIES = tuple(10.0**power for power in range(-5, 3))  # times the mean variance of features, in all images
LEAST = 1e-12  # penalty: features that do not vary have no other
SCALES = tuple(2 ** (step / 2) for step in range(19))  # 1 to 512, which regressions are multiplied by


@dataclass(frozen=True)
class Ridge:
    """The least squares of targets y on features x: sum |y - x w - b|^2 + penalty |w|^2; b is free."""

    penalty: float
    weight: Tensor  # [targets, features] double
    bias: Tensor  # [targets] double
    left_out: Tensor  # [n, targets] double, what the regression on all other samples tells of each


@dataclass(frozen=True)
class Probe:
    """A head."""

    weight: Tensor  # [classes, features] double
    bias: Tensor  # [classes] double
    accuracy: float  # of probes on all images but one for that one, in [0, 1]


def regressions(x: Tensor, y: Tensor, penalties: Sequence[float]) -> list[Ridge]:
    """The regressions of targets y [n, targets] on features x [n, features] under each penalty.

    Of one eigendecomposition. What is told of a sample that is left out follows from its leverage h and its residual r
    as y - r / (1 - h) (Allen 1974; Hastie, Tibshirani & Friedman, equation 7.64).
    """
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, centred = x - x_mean, y - y_mean
    # on the CPU: the matrix is small, and a GPU would first have to load its solver
    values, directions = (part.to(x.device) for part in torch.linalg.eigh((x.T @ x).cpu()))
    along = x @ directions
    projected, found = along.T @ centred, []
    for penalty in penalties:
        inverse = 1 / (values.clamp(min=0) + penalty)
        weight = directions @ (inverse[:, None] * projected)
        leverage = (along.square() @ inverse + 1 / len(x)).clamp(max=1 - 1e-9)
        left_out = y - (centred - x @ weight) / (1 - leverage)[:, None]
        found.append(Ridge(penalty, weight.T, y_mean - x_mean @ weight, left_out))
    return found


def fitted(x: Tensor, labels: Tensor, n_classes: int, smoothing: float) -> Probe:
    """The probe on features x [n, features] that tells images best which are left out.

    The penalty by their squared errors, the scale by their cross-entropy under the label smoothing of the training.
    """
    y = F.one_hot(labels, n_classes).double()
    unit = float(x.double().var(0, correction=0).mean()) * len(x)
    found = regressions(x, y, [max(unit * penalty, LEAST) for penalty in PENALTIES])
    errors = torch.stack([(ridge.left_out - y).square().mean() for ridge in found])
    best = found[int(errors.argmin())]
    losses = [F.cross_entropy(scale * best.left_out, labels, label_smoothing=smoothing) for scale in SCALES]
    scale = SCALES[int(torch.stack(losses).argmin())]
    accuracy = float((best.left_out.argmax(1) == labels).double().mean())
    return Probe(scale * best.weight, scale * best.bias, accuracy)


@torch.no_grad()
def features(model: Network, state: TrainState, n_images: int) -> tuple[Tensor, Tensor]:
    """(what the head reads of training images [n, features] in steps on them, their labels [n]).

    The images are spread evenly over all, and so are those of a batch over them. The network stays as it is.
    """
    n, device, read = len(state.data.y), state.data.y.device, []
    chosen = torch.arange(n_images, device=device) * n // n_images
    n_batches = -(-n_images // state.pipeline.batch_size)
    batches = [chosen[batch::n_batches] for batch in range(n_batches)]

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append(inputs[0].flatten(1).float())

    model = deepcopy(model)
    averaging.calm_(model)
    _last(model).register_forward_pre_hook(keep)
    for some in batches:
        x = state.normalise(state.data.x[some]).to(next(model.parameters()).dtype)
        with FORMATS[state.pipeline.number_format].context(device):
            model(x)
    return torch.cat(read), state.data.y[torch.cat(batches)]


@torch.no_grad()
def put_(model: Network, probe: Probe) -> None:
    """Gives the head of a network the weights of a probe, in place."""
    last = _last(model)
    weight, bias = last.get_parameter("weight"), last.get_parameter("bias")
    weight.copy_(probe.weight.view_as(weight))
    bias.copy_(probe.bias)


def _last(model: Network) -> nn.Module:
    """The last layer of a head."""
    return model.head.expand if isinstance(model.head, FactorisedHead) else model.head
