"""Whitening: the first convolution starts as filters that decorrelate the patches of the training images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState

KERNEL = 3  # pixels: side of the patches, the stem's
IMAGES = 500  # whose patches are measured: 450,000 of 27 values from 32x32 pixels in colour, 0.12 s on a CPU core
GRID = (
    32  # patches a side that an image gives at most: from 224x224 pixels all would be 24 million, and 50 times the work
)
EPS = 5e-4  # of pixels of variance 1: a direction of less is noise (Jordan 2024)
CHUNK = 16 << 20  # bytes of pixels and patches at a time


@dataclass(frozen=True)
class Whitening(Strategy):
    """Starts the stem as a patch-whitening filter bank (Page 2018, "How to train your ResNet"; Jordan 2024).

    Its filters are eigenvectors of the covariance of the patches that it sees (after the wavelet transform, where the
    stem begins with one), divided by the root of their eigenvalue: their outputs are uncorrelated and of variance 1.
    They come in pairs of opposite sign, since a ReLU follows, those of the largest eigenvalues first; outputs beyond
    the last pair keep their random start. The batch norm behind the stem stays and is trained. Because it would undo
    what the published constant under the root does to directions of little variance, those get no filter at all.

    Put it before strategies that average weights: they begin with the weights that they find.

    Raises:
        ValueError: a parameter outside its range.
    """

    share: float = 1.0  # of the stem's outputs that may whiten, in [0, 1]; 0 changes nothing
    frozen: float = 1.0  # share of the run in which the stem is not trained, in [0, 1]; 0: trained from the start

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not 0 <= self.frozen <= 1:
            raise ValueError(f"{self!r}: share and frozen must lie in [0, 1]")

    def describe(self) -> str:
        width = "" if self.share == 1 else f" of {self.share:.0%} of its outputs"
        until = "" if self.frozen == 1 else f" until {self.frozen:.0%} of the run"
        trained = f"frozen{until}" if self.frozen > 0 else "trained"
        return f"whitening stem{width}, {trained}"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.share == 0:
            return state
        import torch

        from objectives.networks import surgery

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        weight = trainee.model.convolutions()[0].weight
        filters = _filters(_patch_covariance(state))
        n = min(len(filters), round(self.share * len(weight)))
        with torch.no_grad():
            weight[:n].copy_(filters[:n].view(n, *weight.shape[1:]))
        weight.requires_grad_(self.frozen == 0)
        return replace(state, trainee=trainee)

    def between_epochs(self, state: TrainState) -> TrainState:
        due = (state.epoch - 1) / state.pipeline.epochs < self.frozen <= state.fraction
        if self.share == 0 or not due or not state.trainee.model.get_parameter("stem.1.weight").requires_grad:
            return state  # where its batch norm is frozen too, another strategy has frozen the stem for good
        from objectives.networks import surgery

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        trainee.model.convolutions()[0].weight.requires_grad_(True)
        return replace(state, trainee=trainee).with_event("the stem trains from here on")


def _filters(covariance: Tensor) -> Tensor:
    """[n, values] filters in pairs of opposite sign, those of the largest eigenvalues first."""
    import torch

    # On the CPU: the matrix is small, and a GPU would first have to load its solver.
    variances, directions = torch.linalg.eigh(covariance.cpu())
    kept = variances > EPS
    filters = (directions[:, kept] / (variances[kept] + EPS).sqrt()).T.flip(0)
    return torch.stack([filters, -filters], 1).flatten(0, 1)


def _patch_covariance(state: TrainState) -> Tensor:
    """[values, values] covariance of the patches that the stem sees in training images, without padding.

    The images are spread evenly over the training images, the patches over the image, so that nothing is drawn.
    """
    import torch
    from torch.nn.functional import unfold

    from objectives.networks.resnet import haar

    model = state.trainee.model
    stem, n = model.convolutions()[0], len(state.data.y)
    is_haar, size = model.architecture.stem == "haar", state.data.x.shape[-1]
    side = -(-size // 2) if is_haar else size
    stride = _sparse(side, stem.stride[0])
    n_values, n_patches = stem.in_channels * KERNEL**2, len(range(0, side - KERNEL + 1, stride)) ** 2
    at_once = max(
        1, CHUNK // (12 * stem.in_channels * side**2 + 12 * n_values * n_patches)
    )  # 12: 4 and once more in double
    chosen = torch.arange(min(n, IMAGES), device=state.data.y.device) * n // min(n, IMAGES)
    total = products = torch.zeros((), dtype=torch.float64, device=chosen.device)
    for some in torch.split(chosen, at_once):
        x = state.normalise(state.data.x[some])
        patches = unfold(haar(x) if is_haar else x, KERNEL, stride=stride)  # [images, values, patches]
        patches = patches.double()  # TF32, which a number format may switch on, would drown the smaller eigenvalues
        total, products = total + patches.sum((0, 2)), products + (patches @ patches.mT).sum(0)
    count = len(chosen) * n_patches
    mean = total / count
    return products / count - mean.outer(mean)


def _sparse(side: int, stride: int) -> int:
    """The stem's stride times an odd number, for which an image has at most GRID patches a side.

    Odd, so that patches do not all lie alike in the 8x8 blocks of a JPEG.
    """
    n = len(range(0, side - KERNEL + 1, stride))
    return stride * (-(-n // GRID) | 1)
