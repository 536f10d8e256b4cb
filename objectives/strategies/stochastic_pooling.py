"""Stochastic pooling: transitions between stages draw one of some pixels, the brighter the more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.architecture import Downsampling
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.methods import downsampling

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture


@dataclass(frozen=True)
class StochasticPooling(Strategy):
    """Halves images between stages by one of each 2x2 activations, drawn with the share that it has of their sum.

    Zeiler & Fergus 2013 (arXiv 1301.3557): in evaluation every activation counts with its share, which is what is
    expected while training. They pool overlapping squares of 3x3; 2x2 is what a stride of 2 leaves out of a ResNet, as
    Zhai et al. 2017 have it, who also pool before a transition, at the work of the strides. `behind` its first
    convolution, that one has four times its work.

    Raises:
        ValueError: a side other than 1 and 2.
    """

    needs_blocks: ClassVar[bool] = True
    excludes: ClassVar[tuple[type[Strategy], ...]] = (AveragePooling,)  # halves the same images

    side: int = 2  # pixels: of the squares of which one is drawn; 1 is what strides do and changes nothing
    behind: bool = False  # the first convolution of a transition, where that has a projection

    def __post_init__(self) -> None:
        downsampling.check(self.side)

    def describe(self) -> str:
        return downsampling.named("stochastic pooling", self.side, self.behind)

    def idle(self, outline: Outline) -> str | None:
        return downsampling.idle(self.side, outline)

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return downsampling.pooled(architecture, self.side, Downsampling("stochastic", behind=self.behind))
