"""torchvision's ResNets of basic blocks as ours, by the names and shapes of their tensors.

Strides and the pooling behind the stem leave no trace in weights: they are those that torchvision has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from objectives.networks.architecture import HEAD, Architecture, Stage
from objectives.networks.resnet import ResNet

KERNEL = 7  # pixels: side of the stem's kernels
_BOTTLENECK = "bottleneck blocks, as resnet50 and larger ones have, are not taken"
_COUNTER = "num_batches_tracked"  # nobody reads it: running statistics have a momentum of their own


def name_of(ours: str) -> str:
    """torchvision's name of a tensor of a `ResNet`."""
    found = re.sub(r"^stages\.(\d+)\.", lambda stage: f"layer{int(stage[1]) + 1}.", ours)
    found = re.sub(r"^stem\.0\.", "conv1.", re.sub(r"^stem\.1\.", "bn1.", found))
    return re.sub(rf"^{HEAD}\.", "fc.", found.replace(".shortcut.", ".downsample."))


def resnet(tensors: Mapping[str, Tensor]) -> ResNet:
    """The network of tensors by torchvision's names, in fp32 and evaluation mode; of any widths, as pruned ones are.

    Without a classifier (`fc`) it has one of a single class, which tells nothing.

    Raises:
        ValueError: a tensor is missing, does not fit or has no place; names the first one and says why.
    """
    architecture = _architecture(tensors)
    with torch.device("meta"):  # nothing is drawn
        network = ResNet(architecture)
    network = network.to_empty(device="cpu")
    is_headless = not any(name.startswith("fc.") for name in tensors)
    for ours, tensor in network.state_dict().items():
        if ours.endswith(_COUNTER) or (is_headless and ours.startswith(HEAD)):
            tensor.zero_()
        else:
            tensor.copy_(_fitting(tensors, name_of(ours), tuple(tensor.shape)))
    known = {name_of(ours) for ours in network.state_dict()}
    for name in tensors:
        if name not in known:
            raise ValueError(f"{name} has no place in a ResNet of basic blocks")
    return network.eval()


def _architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """What the first weights of all blocks tell; whether all else fits it is not looked at."""
    width, in_channels, *kernel = _shape(tensors, "conv1.weight", 4)
    if kernel != [KERNEL, KERNEL]:
        found = "x".join(map(str, kernel))
        raise ValueError(f"conv1.weight has kernels of {found}: torchvision's stem has 7x7, others may halve otherwise")
    stages: list[Stage] = []
    while not stages or _is_there(tensors, f"layer{len(stages) + 1}"):
        here, interiors = f"layer{len(stages) + 1}", list[int]()
        while not interiors or _is_there(tensors, f"{here}.{len(interiors)}"):
            at = f"{here}.{len(interiors)}"
            interiors.append(_shape(tensors, f"{at}.conv1.weight", 4)[0])
            if f"{at}.conv3.weight" in tensors:
                raise ValueError(f"{at}.conv3.weight has no place in a basic block: {_BOTTLENECK}")
        stages.append(Stage(_shape(tensors, f"{here}.0.conv2.weight", 4)[0], tuple(interiors)))
    if stages[0].width != width:
        raise ValueError(
            f"layer1.0.conv2.weight puts out {stages[0].width} channels and conv1.weight {width}: the stem and the "
            "first stage have the same"
        )
    n_classes = _shape(tensors, "fc.weight", 2)[0] if "fc.weight" in tensors else 1
    return Architecture(in_channels, n_classes, tuple(stages), stem_stride=2, stem_kernel=KERNEL, stem_pool=True)


def _is_there(tensors: Mapping[str, Tensor], module: str) -> bool:
    return any(name.startswith(f"{module}.") for name in tensors)


def _shape(tensors: Mapping[str, Tensor], name: str, n_dims: int) -> tuple[int, ...]:
    """The shape of a weight of so many dimensions, none of them empty."""
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    shape = tuple(tensors[name].shape)
    if len(shape) != n_dims or 0 in shape:
        raise ValueError(f"{name} is {list(shape)}: it must have {n_dims} dimensions, none of them 0")
    return shape


def _fitting(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor that is to have this shape, of finite numbers."""
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    tensor = tensors[name]
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} is {list(tensor.shape)}: what stands around it asks for {list(shape)}")
    if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_meta:
        kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
        raise ValueError(f"{name} is {kind}: it must be dense numbers of floating point")
    tensor = tensor.float()
    if not bool(tensor.isfinite().all()) or (name.endswith("running_var") and bool((tensor < 0).any())):
        raise ValueError(f"{name} is damaged: it holds numbers that are not finite, or variances below 0")
    return tensor
