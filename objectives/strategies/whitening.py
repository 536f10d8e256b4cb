"""Whitening: the first convolution starts as filters that decorrelate the patches of the training images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.architecture import STEM
from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.trainee import Trainee
    from objectives.state import TrainState

IMAGES = 500  # whose patches are measured: 450,000 of 27 values from 32x32 pixels in colour, 0.12 s on a CPU core
# Patches a side of 3x3 pixels that an image gives at most: from 224x224 pixels all would be 24 million, 50 times the
# work. Larger ones hold more values and overlap: there are as many fewer a side.
GRID = 32
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

    Where the stem grows, its new filters are the pairs that are left. That changes the function where somebody reads
    them already: then a frozen stem is trained from there on, since copies of filters that do not move stay copies.

    Put it before strategies that average weights, which begin with the weights that they find, and after Net2Net.

    Raises:
        ValueError: a parameter outside its range.
    """

    needs_blocks: ClassVar[bool] = True

    share: float = 1.0  # of the stem's outputs that may whiten, in [0, 1]; 0 changes nothing
    frozen: float = 1.0  # share of the run in which the stem is not trained, in [0, 1]; 0: trained from the start
    filters: Tensor | None = learned(None)  # [n, values] all there are
    n_used: int = learned(0)  # of these
    grown_at: float = learned(0.0)  # epoch of the last growth of the stem that it knows of

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not 0 <= self.frozen <= 1:
            raise ValueError(f"{self!r}: share and frozen must lie in [0, 1]")

    def describe(self) -> str:
        width = "" if self.share == 1 else f" of {self.share:.0%} of its outputs"
        until = "" if self.frozen == 1 else f" until {self.frozen:.0%} of the run"
        trained = f"frozen{until}" if self.frozen > 0 else "trained"
        return f"whitening stem{width}, {trained}"

    def idle(self, outline: Outline) -> str | None:
        return "its share is 0" if self.share == 0 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.share == 0:
            return state
        import torch

        from objectives.networks import surgery

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        stem = trainee.model.convolutions()[0]
        weight = stem.weight
        filters = _filters(_patch_covariance(state))
        n = min(len(filters), round(self.share * len(weight)))
        with torch.no_grad():
            weight[:n].copy_(filters[:n].view(n, *weight.shape[1:]))
        for parameter in stem.parameters():
            parameter.requires_grad_(self.frozen == 0)
        return replace(state, trainee=trainee).with_strategy(self, self.having_learned(filters=filters, n_used=n))

    def between_epochs(self, state: TrainState) -> TrainState:
        born = state.trainee.born.get("stage0")
        if self.filters is not None and born is not None and float(born.max()) > self.grown_at:
            return self._grown(state, (born > self.grown_at).nonzero().flatten())
        due = (state.epoch - 1) / state.pipeline.epochs < self.frozen <= state.fraction
        return _trained(state, "the stem trains from here on") if self.share > 0 and due else state

    def _grown(self, state: TrainState, new: Tensor) -> TrainState:
        """The state whose new stem filters whiten, or are trained where that would change the function."""
        from objectives.networks import surgery

        assert self.filters is not None
        n_free = min(len(self.filters), round(self.share * len(state.trainee.born["stage0"]))) - self.n_used
        n = max(0, min(n_free, len(new)))
        known = self.having_learned(n_used=self.n_used + n, grown_at=float(state.epoch))
        if self._is_read(state.trainee, new):
            state = state.with_strategy(self, known.having_learned(n_used=self.n_used))
            return _trained(state, "the stem trains from here on: it grew by copies of frozen filters")
        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        begun = self.filters[self.n_used : self.n_used + n]
        averages = [s.tensors for s in trainee.shadows.values() if s.travel == "weight" and STEM in s.tensors]
        for weight in (trainee.model.get_parameter(STEM).detach(), *(tensors[STEM] for tensors in averages)):
            weight[new[:n]] = begun.view(n, *weight.shape[1:]).to(weight)
        if (gain := trainee.model.convolutions()[0].gain) is not None:
            for lengths in (gain.detach(), *(tensors[surgery.GAIN] for tensors in averages)):
                lengths[new[:n]] = begun.norm(dim=1).to(lengths)
        state = replace(state, trainee=trainee).with_strategy(self, known)
        return state.with_event(f"{n} of {len(new)} new filters of the stem whiten")

    def _is_read(self, trainee: Trainee, new: Tensor) -> bool:
        """Whether channels of the first stage have an effect on what was there before they were."""
        from objectives.strategies.methods import lasso

        for reader in lasso.grouped(trainee.model):
            if reader.in_axis == "stage0":
                columns = reader.weight.detach()[:, new]
                born = None if reader.out_axis is None else trainee.born.get(reader.out_axis)
                if bool((columns if born is None else columns[born <= self.grown_at]).any()):
                    return True
        return False


def _trained(state: TrainState, event: str) -> TrainState:
    """The state whose stem trains; itself where it does, or where another strategy has frozen its batch norm too."""
    from objectives.networks import surgery

    model = state.trainee.model
    if model.get_parameter(STEM).requires_grad or not model.get_parameter("stem.1.bias").requires_grad:
        return state
    trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
    for parameter in trainee.model.convolutions()[0].parameters():
        parameter.requires_grad_(True)
    return replace(state, trainee=trainee).with_event(event)


def _filters(covariance: Tensor) -> Tensor:
    """[n, values] filters in pairs of opposite sign, those of the largest eigenvalues first."""
    import torch

    # On the CPU: the matrix is small, and a GPU would first have to load its solver.
    variances, directions = torch.linalg.eigh(covariance.cpu())
    kept = variances > EPS
    filters = (directions[:, kept] / (variances[kept] + EPS).sqrt()).T.flip(0)
    return torch.stack([filters, -filters], 1).flatten(0, 1)


def _patch_covariance(state: TrainState) -> Tensor:
    """[values, values] covariance of the patches that the stem sees in training images, without padding if it can be.

    The images are spread evenly over the training images, the patches over the image, so that nothing is drawn.
    """
    import torch
    from torch.nn.functional import unfold

    from objectives.networks.pooling import haar

    model = state.trainee.model
    stem, n = model.convolutions()[0], len(state.data.y)
    is_haar, size = residual(model.architecture).stem == "haar", state.data.x.shape[-1]
    side = -(-size // 2) if is_haar else size
    kernel = stem.kernel_size[-1]
    padding = max(0, -(-(kernel - side) // 2))  # of wavelets of 4x4 images no patch lies inside
    stride = _sparse(side + 2 * padding, kernel, stem.stride[0])
    n_patches = len(range(0, side + 2 * padding - kernel + 1, stride)) ** 2
    n_values = stem.in_channels * kernel**2
    at_once = max(
        1, CHUNK // (12 * stem.in_channels * side**2 + 12 * n_values * n_patches)
    )  # 12: 4 and once more in double
    chosen = torch.arange(min(n, IMAGES), device=state.data.y.device) * n // min(n, IMAGES)
    total = products = torch.zeros((), dtype=torch.float64, device=chosen.device)
    for some in torch.split(chosen, at_once):
        x = state.normalise(state.data.x[some])
        seen = haar(x) if is_haar else x
        patches = unfold(seen, kernel, padding=padding, stride=stride)  # [images, values, patches]
        patches = patches.double()  # TF32, which a number format may switch on, would drown the smaller eigenvalues
        total, products = total + patches.sum((0, 2)), products + (patches @ patches.mT).sum(0)
    count = len(chosen) * n_patches
    mean = total / count
    return products / count - mean.outer(mean)


def _sparse(side: int, kernel: int, stride: int) -> int:
    """The stem's stride times an odd number, for which an image has at most GRID patches of 3x3 pixels a side.

    Odd, so that patches do not all lie alike in the 8x8 blocks of a JPEG.
    """
    n, most = len(range(0, side - kernel + 1, stride)), max(1, 3 * GRID // kernel)
    return stride * (-(-n // most) | 1)
