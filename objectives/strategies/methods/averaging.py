"""What averages of weights need: a counter that surgery carries, a held learning rate, statistics of their own."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from objectives.device.formats import FORMATS
from objectives.networks.network import Network
from objectives.networks.norms.slots import GhostBatchNorm, MeanNorm
from objectives.networks.resnet import Block
from objectives.networks.trainee import Shadow, Trainee
from objectives.state import Schedule, TrainState


def shadow_of(trainee: Trainee) -> Shadow:
    """A copy of the parameters that travels as they do, and a counter at 0.

    Under the name of a scalar that the network has, the counter is copied with the trainee and its surgery, taken back
    with it, restored after a capture. One in a strategy would be none of that.
    """
    copies = {name: parameter.detach().clone() for name, parameter in trainee.model.named_parameters()}
    device = next(trainee.model.parameters()).device
    return Shadow({**copies, trainee.model.counter: torch.zeros((), dtype=torch.int64, device=device)}, "weight")


def counter(trainee: Trainee, shadow: str) -> Tensor:
    """The counter of a shadow that `shadow_of` made, a scalar int64."""
    return trainee.shadows[shadow].tensors[trainee.model.counter]


def pairs(trainee: Trainee, shadow: str) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters, detached, and the tensors of a shadow that are shaped like them."""
    parameters = dict(trainee.model.named_parameters())
    tensors = trainee.shadows[shadow].tensors
    return [parameter.detach() for parameter in parameters.values()], [tensors[name] for name in parameters]


@dataclass(frozen=True)
class HeldFrom(Schedule):
    """A schedule that stays at one share of the peak from some epoch on."""

    since: float = inf  # epoch
    share: float = 1.0

    def __call__(self, epoch: float) -> float:
        return self.share if epoch >= self.since else super().__call__(epoch)


def calm_(model: Network) -> None:
    """Lets a network compute as in a training step, but that nothing is wrapped, and poolings do not draw. In place."""
    model.unwrap()
    model.train()
    for module in model.modules():
        if isinstance(module, Block):
            module.training = False  # its pooling, which is as in evaluation: that is where what is measured serves


@torch.no_grad()
def refresh_statistics(model: Network, state: TrainState, n_images: int, n_parts: int | None = None) -> None:
    """Gives the batch norms of a network statistics of their own, measured on training images, and draws nothing.

    Of its first `n_parts`, or of all. Those that are still keep what they have.

    They are the plain means over batches of the batches' means and variances, as a cumulative momentum would leave them
    (Izmailov et al. 2018, section 3.2). The images are spread evenly over the training images, not augmented, in
    batches of at most the pipeline's size, and the network computes in the number format of the training, as it does
    when it is evaluated. In place; the network must share nothing with the one in training.
    """
    found: dict[GhostBatchNorm | MeanNorm, list[tuple[Tensor, Tensor]]] = {}

    def observe(norm: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0].to(norm.running_mean.dtype), (0, 2, 3))  # type: ignore[arg-type]
        found.setdefault(norm, []).append((mean, variance))  # type: ignore[arg-type]

    calm_(model)
    norms = [m for m in model.modules() if isinstance(m, GhostBatchNorm | MeanNorm) and m.training]
    handles = [norm.register_forward_pre_hook(observe) for norm in norms]
    n, device = len(state.data.y), state.data.x.device
    n_images = min(n, n_images)
    chosen = torch.arange(n_images, device=device) * n // n_images
    n_batches = -(-n_images // state.pipeline.batch_size)
    for batch in range(n_batches):
        x = state.normalise(state.data.x[chosen[batch::n_batches]]).to(next(model.parameters()).dtype)
        with FORMATS[state.pipeline.number_format].context(device):
            for _, compute in model.parts()[:n_parts]:
                x = compute(x)
    for handle in handles:
        handle.remove()
    for norm, statistics in found.items():
        means, variances = zip(*statistics, strict=True)
        for kept, measured in ((norm.running_mean, means), (getattr(norm, "running_var", None), variances)):
            if kept is not None:
                kept.copy_(torch.stack(measured).mean(0))
