"""How good a network is: accuracies on images, and whether its numbers are numbers, in no more memory than training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.data.augment import Normalisation
from objectives.data.dataset import Images
from objectives.device.formats import NumberFormat
from objectives.networks.network import Network
from objectives.networks.plain import AnyArchitecture
from objectives.work import step_memory

PASS_VALUES = 5  # fp32 values of a pass without gradients, per output of the largest convolution: 2.0 to 5.0
UNNOTICED = 16 << 20  # bytes: a process that trains takes many times as much before its first image
ENOUGH = 256 << 20  # bytes: larger batches are no faster


@dataclass(frozen=True)
class Evaluation:
    """A network and how good it is on images."""

    model: Network
    accuracy: float  # in [0, 1]; an image whose logits are not all finite counts as wrong
    balanced_accuracy: float  # mean of the recalls of the classes that there are, in [0, 1]
    right: tuple[int, ...]  # images of each class that it tells rightly
    is_finite: bool  # all logits are, and all parameters and buffers


def images_at_once(architecture: AnyArchitecture, size: int, batch_size: int) -> int:
    """Images of `size` pixels a side that are evaluated at once, in no more memory than a training step on a batch."""
    largest = 4 * PASS_VALUES * max(layer.outputs for layer in architecture.layers(size))
    step = step_memory(architecture, size, batch_size)
    n = min(max(step, UNNOTICED), ENOUGH) // largest
    return max(1, n)


@torch.no_grad()
def evaluate(
    model: Network,
    images: Images,
    normalise: Normalisation,
    number_format: NumberFormat,
    *,
    batch_size: int,
    mirrored: bool = False,
) -> Evaluation:
    """A model in evaluation mode on images, computed in the number format of its training.

    Takes the memory of a training step on `batch_size` images at most. With `mirrored` the logits of each image and of
    its mirror image are summed: test-time augmentation. The host waits for the device once.
    """
    told, sound = told_rightly(model, images, normalise, number_format, batch_size=batch_size, mirrored=mirrored)
    is_finite = finiteness(model.state_dict().values()) & sound
    accuracy, balanced_accuracy, right = accuracies(told, images.y, model.architecture.n_classes)
    numbers = torch.cat([torch.stack([accuracy, balanced_accuracy, is_finite.double()]), right])
    plain, balanced, finite, *counts = numbers.tolist()
    return Evaluation(model, plain, balanced, tuple(map(int, counts)), bool(finite))


def accuracies(told: Tensor, y: Tensor, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """(scalar: accuracy, scalar: balanced accuracy, [n_classes] images told rightly) of [n] whether each image is."""
    correct, per_class = told.double(), torch.bincount(y, minlength=n_classes).double()
    right = torch.bincount(y, correct, minlength=n_classes)
    recalls = right[per_class > 0] / per_class[per_class > 0]
    return correct.mean(), recalls.mean(), right


@torch.no_grad()
def told_rightly(
    model: Network,
    images: Images,
    normalise: Normalisation,
    number_format: NumberFormat,
    *,
    batch_size: int,
    mirrored: bool = False,
) -> tuple[Tensor, Tensor]:
    """([n] whether each image is told rightly, scalar: whether all logits are finite) on the device; see `evaluate`."""
    right, finite = [], []
    n = images_at_once(model.architecture, images.x.shape[-1], batch_size)
    for x, y in images.piecewise(n):
        x = normalise(x)
        with number_format.context(images.x.device):
            logits = model(x) + model(x.flip(3)) if mirrored else model(x)
        sound = logits.isfinite().all(1)  # the argmax of NaN is a class like any other
        right.append((logits.argmax(1) == y) & sound)
        finite.append(sound.all())
    return torch.cat(right), torch.stack(finite).all()


def finiteness(tensors: Iterable[Tensor]) -> Tensor:
    """Scalar on the device: whether every number is finite. Integers are."""
    return torch.stack([tensor.isfinite().all() for tensor in tensors]).all()
