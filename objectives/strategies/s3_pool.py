"""S3Pool: transitions between stages sample the rows and columns that are left of a max-pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.architecture import Downsampling
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.methods import downsampling
from objectives.strategies.stochastic_pooling import StochasticPooling

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture


@dataclass(frozen=True)
class S3Pool(Strategy):
    """Halves images between stages by max-pooling at stride 1, then rows and columns sampled anew in every step.

    Zhai et al. 2017 (S3Pool, arXiv 1611.05138): of each strip of rows, and of each of columns, half are kept, in their
    order, alike for all channels and images of a batch: a distortion of the maps that works as augmentation does. In
    evaluation the mean of each 2x2 takes the place of sampling. Two strips a side are the published `16-8` on 32x32
    pixels (grids of 16, then 8); many are a stride that jitters by a pixel. As in the authors' code the maps are pooled
    before a transition, at the work of the strides; `behind` its first convolution, that one has four times its work.

    Raises:
        ValueError: a side other than 1 and 2, or no strip.
    """

    needs_blocks: ClassVar[bool] = True
    excludes: ClassVar[tuple[type[Strategy], ...]] = (AveragePooling, StochasticPooling)  # halve the same images

    side: int = 2  # pixels: of the squares whose maximum is taken, of which one is left; 1 changes nothing
    strips: int = 2  # a side, at least 1; as many as half of the pixels, or more: of every two one is kept
    behind: bool = False  # the first convolution of a transition, where that has a projection

    def __post_init__(self) -> None:
        downsampling.check(self.side)
        if self.strips < 1:
            raise ValueError(f"S3Pool samples {self.strips!r} strips a side: it needs 1 or more")

    def describe(self) -> str:
        strips = f"S3Pool of {self.strips} strip{'s' if self.strips > 1 else ''} a side"
        return downsampling.named(strips, self.side, self.behind)

    def idle(self, outline: Outline) -> str | None:
        return downsampling.idle(self.side, outline)

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        how = Downsampling("s3", self.strips, self.behind)
        return downsampling.pooled(architecture, self.side, how)
