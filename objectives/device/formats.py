"""A table of number formats: how each computes, and which of them a device can use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from objectives.networks.layers import Kind
from objectives.networks.resnet import Convolution
from objectives.pipeline import NumberFormatName


@dataclass(frozen=True)
class NumberFormat:
    """How a training computes. Parameters, optimizer state and batch-norm statistics are fp32 in every format."""

    autocast: torch.dtype | None = None  # of convolutions and matrix products (Micikevicius et al. 2018); None: fp32
    tf32: bool = False  # fp32 products on tensor cores with a 10-bit mantissa
    scaled: bool = False  # dynamic loss scaling: needed where gradients underflow
    strict: frozenset[Kind] = frozenset()  # convolutions that train in fp32 all the same; see device.comparison

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """The context in which the forward pass runs."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast)

    def convolution(self, layer: Convolution) -> Callable[[Tensor], Tensor]:
        """How a layer computes while training, within the context."""

        def compute(x: Tensor) -> Tensor:
            if layer.kind(x.shape[-1]) not in self.strict:
                return layer.plainly(x)
            with torch.autocast(x.device.type, enabled=False):
                exact = layer.plainly(x.float())
            return exact.to(self.autocast)

        return compute

    def set_float32_products(self) -> None:
        """Sets how this process multiplies fp32 numbers on CUDA: strict IEEE unless the format is tf32."""
        precision = "tf32" if self.tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


FORMATS: dict[NumberFormatName, NumberFormat] = {
    "fp32": NumberFormat(),  # strict: a baseline with TF32 on would make every other format look worse than it is
    "tf32": NumberFormat(tf32=True),
    "bf16": NumberFormat(autocast=torch.bfloat16),
    "fp16": NumberFormat(autocast=torch.float16, scaled=True),
}


class LossScaler(torch.amp.GradScaler):
    """A GradScaler that says on the device whether it let the optimizer step."""

    def step_taken(self, optimizer: Optimizer) -> Tensor:
        """Scalar 1 where the gradients of `optimizer` were finite, else 0. Call between `unscale_` and `update`."""
        found = self._found_inf_per_device(optimizer).values()
        return 1 - torch.stack([f.reshape(()) for f in found]).max()


def unavailable(name: NumberFormatName, device: torch.device) -> str | None:
    """Why `device` cannot compute in the format at all, or None."""
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        return "needs an NVIDIA GPU of the Ampere generation or later"
    return None
