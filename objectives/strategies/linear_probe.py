"""A linear probe: the head starts as the best linear reading of the features that a network has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.strategies.base import Outline, Strategy
from objectives.strategies.standardization_loss import StandardizationLoss
from objectives.strategies.weight_norm import WeightNorm

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState


@dataclass(frozen=True)
class LinearProbe(Strategy):
    """Starts the head as a ridge regression of the labels on the features that the network has of training images.

    A head drawn at random sends gradients through the body that distort good features; from a probe a run goes on
    without that (Kumar et al. 2022, arXiv 2202.10054), at a lower learning rate: features that vary little are read by
    large weights, which make large gradients. In closed form, see `methods.probing`: how strongly weights are
    penalised, and by what the regression is multiplied to become logits, is what tells images best that are left out.
    Features are those of a training step, on images that are not augmented: of what is frozen still, of all else with
    the statistics of the batch, as the next steps will see them. Their pass is charged.

    Put it after strategies that set weights or statistics, and before those that average weights.

    Raises:
        ValueError: a parameter outside its range.
    """

    # Neither starts from what was learnt: the first sets the scale of features anew, and without norms what a probe's
    # large weights send back grows from block to block.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (WeightNorm, StandardizationLoss)

    share: float = 1.0  # of the training images that it looks at, in [0, 1]; 0 changes nothing

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"{self!r}: share must lie in [0, 1]")

    def describe(self) -> str:
        return "linear probe first" + ("" if self.share == 1 else f", on {self.share:.0%} of the images")

    def idle(self, outline: Outline) -> str | None:
        return "it looks at no image" if self.share == 0 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.share == 0:
            return state
        from objectives.networks import surgery
        from objectives.strategies.methods import probing

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        n_images = max(2, round(self.share * len(state.data.y)))
        features, labels = probing.features(trainee.model, state, n_images)
        if not bool(features.isfinite().all()):
            return state.with_event("the head starts as it is: features are not finite")
        probe = probing.fitted(features, labels, state.full.n_classes, state.pipeline.label_smoothing)
        probing.put_(trainee.model, probe)
        told = f"{probe.accuracy:.0%} of {len(labels)} images are told rightly by one on all others"
        return replace(state, trainee=trainee).with_event(f"the head starts as a linear probe: {told}")
