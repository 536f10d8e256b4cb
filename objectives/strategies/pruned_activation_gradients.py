"""Pruned activation gradients: small gradients are set to 0 at random before layers multiply with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from objectives.strategies.base import Multiply, Outline, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.resnet import Convolution
    from objectives.networks.sequential import Dense


@dataclass(frozen=True)
class PrunedActivationGradients(Strategy):
    """Prunes the gradient of what every convolution and dense layer puts out, so that its mean stays what it is.

    Ye et al. 2020, "Accelerating CNN Training by Pruning Activation Gradients" (arXiv 1908.00173). Saves no seconds
    here, and no FLOPs are counted as saved: dense kernels multiply with zeros as with any other number, and finding
    them takes four more passes over every gradient. The paper's speed-ups are those of kernels for sparse matrices.
    What it is good for here is to see what accuracy so much sparsity costs.

    Thresholds are those of the gradient at hand; the paper predicts them from those of the last steps, which saves a
    pass. The classifier is left out. Draws are others in a compiled step, with the same distribution.

    Raises:
        ValueError: a share outside its range.
    """

    share: float = (
        0.9  # of the entries below the threshold, if they are normal, in [0, 1); 0.9 leaves 46 %; 0: no change
    )

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"the share of pruned activation gradients is {self.share!r}: it must lie in [0, 1)")

    def describe(self) -> str:
        return f"{self.share:.2g} of activation gradients pruned"

    def idle(self, outline: Outline) -> str | None:
        return "its share is 0" if self.share == 0 else None

    def product(self, layer: Convolution | Dense, multiply: Multiply) -> Multiply:
        if self.share == 0:
            return multiply
        from objectives.strategies.methods import gradient_pruning

        multiple = gradient_pruning.multiple(self.share)

        def pruned(x: Tensor, weight: Tensor) -> Tensor:
            found: Tensor = gradient_pruning.PrunedGradient.apply(multiply(x, weight), multiple)  # type: ignore[no-untyped-call]
            return found

        return pruned
