"""FLOPs of a network by architecture and image size. 1 multiply-add = 2 FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from objectives.networks.network import Network, build
from objectives.networks.plain import AnyArchitecture


@lru_cache(maxsize=1024)
def count(architecture: AnyArchitecture, size: int, frozen: frozenset[str] = frozenset()) -> tuple[int, int]:
    """FLOPs per image of (inference, a training step) for square images of `size` pixels a side.

    Convolutions and matrix products as PyTorch's counter sees them, on the meta device: nothing is computed. A training
    step is forward, gradients to the weights and to the activations; the first convolution needs none to the image, and
    the parameters named in `frozen` none to themselves nor to what lies only before them.
    """
    return counted(architecture, size, frozen)


def counted(
    architecture: AnyArchitecture, size: int, frozen: frozenset[str], wrap: Callable[[Network], None] | None = None
) -> tuple[int, int]:
    """`count` of a network whose layers compute as `wrap` lets them. Takes 10 to 100 ms, and remembers nothing."""
    with torch.device("meta"):
        model = build(architecture)
        if wrap is not None:
            wrap(model)
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)
        x = torch.empty(2, *architecture.shape(size))  # 2: a batch norm refuses a single 1x1 value
        y = torch.zeros(2, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        loss = F.cross_entropy(model(x), y)
        forward = counter.get_total_flops()
        loss.backward()  # type: ignore[no-untyped-call]
    return forward // 2, counter.get_total_flops() // 2


@lru_cache(maxsize=64)
def of_first_parts(architecture: AnyArchitecture, size: int, n_parts: int) -> int:
    """FLOPs per image of what the first parts of a network make of square images of `size` pixels a side."""
    with torch.device("meta"):
        model, x = build(architecture), torch.empty(2, *architecture.shape(size))
    with FlopCounterMode(display=False) as counter:
        for _, compute in model.parts()[:n_parts]:
            x = compute(x)
    return int(counter.get_total_flops()) // 2
