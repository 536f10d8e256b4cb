"""Networks in double precision whose every number is their own: the cases that laws of reduction run over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.networks.architecture import Architecture, Stage
from objectives.networks.resnet import ResNet

RESIDUAL = {
    "stages": Architecture(1, 4, (Stage(6, (5, 4)), Stage(7, (4, 3)))),
    "dead": Architecture(2, 4, (Stage(4, (0, 3)), Stage(5, (0, 0, 2)))),
    "pooled": Architecture(1, 4, (Stage(5, (3,)), Stage(6, (0, 2))), transition="pool"),
    "factorised": Architecture(
        1,
        4,
        (Stage(6, (5,)), Stage(8, (6,))),
        factors=(("head", (3,)), ("stage1.block0.conv2", (4, 5))),
    ),
}


def network(architecture: Architecture, seed: int = 0) -> ResNet:
    """The network of an architecture, in evaluation mode, with statistics, biases and constants of its own."""
    generator = torch.Generator().manual_seed(seed)
    model = ResNet(architecture).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1 and "running_var" not in name:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model


def images(architecture: Architecture, n: int = 6, size: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    """(x: [n, channels, size, size], y: [n])."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, architecture.in_channels, size, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(architecture.n_classes, (n,), generator=generator)
