"""Networks in double precision whose every number is their own: the cases that laws of reduction run over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.networks.architecture import Architecture, Stage
from objectives.networks.network import Network, build
from objectives.networks.plain import AnyArchitecture, PlainArchitecture, PlainConvolution

SIZE = 8  # pixels
NETWORKS: dict[str, AnyArchitecture] = {
    "stages": Architecture(1, 4, (Stage(6, (5, 4)), Stage(7, (4, 3)))),
    "dead": Architecture(2, 4, (Stage(4, (0, 3)), Stage(5, (0, 0, 2)))),
    "pooled": Architecture(1, 4, (Stage(5, (3,)), Stage(6, (0, 2))), transition="pool"),
    "large": Architecture(1, 4, (Stage(5, (3,)), Stage(6, (4,))), stem_stride=2, stem_kernel=7, stem_pool=True),
    "factorised": Architecture(
        1,
        4,
        (Stage(6, (5,)), Stage(8, (6,))),
        factors=(("head", (3,)), ("stage1.block0.conv2", (4, 5))),
    ),
    "unnormed": Architecture(1, 4, (Stage(5, (4,)), Stage(6, (0, 3))), norm="none"),
    "dense": PlainArchitecture(1, 4, SIZE, dense=(7, 6), inputs=64),
    "convolutions": PlainArchitecture(
        2,
        4,
        SIZE,
        convolutions=(PlainConvolution(5, 3, 1, has_norm=True, pool=2), PlainConvolution(6, 3, 1, pool=2)),
        dense=(7,),
    ),
    "averages": PlainArchitecture(
        1,
        4,
        SIZE,
        convolutions=(PlainConvolution(4, 3, pool=2, pooling="average"), PlainConvolution(5, 3, 1)),
        dense=(6, 5),
    ),
}


def network(architecture: AnyArchitecture, seed: int = 0) -> Network:
    """The network of an architecture, in evaluation mode, with statistics, biases and constants of its own."""
    generator = torch.Generator().manual_seed(seed)
    model = build(architecture).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1 and tensor.is_floating_point() and "running_var" not in name:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model


def images(architecture: AnyArchitecture, n: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    """(x: [n, channels, height, width], y: [n])."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *architecture.shape(SIZE), generator=generator, dtype=torch.float64)
    return x, torch.randint(architecture.n_classes, (n,), generator=generator)
