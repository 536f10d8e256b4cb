"""Average pooling: transitions between stages take means of pixels instead of skipping them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.architecture import Downsampling
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.methods import downsampling

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture


@dataclass(frozen=True)
class AveragePooling(Strategy):
    """Halves images between stages by the mean of each 2x2 pixels, in the place of strides or of a max-pooling.

    Wavelet pooling (Williams & Li 2018: two levels of a wavelet transform, of which the finer one is dropped and the
    other one inverted) is twice that for Haar's, and behind it stand batch norms: it is the same. The images are pooled
    before a transition, at the work of the strides; or `behind` its first convolution, at four times that one's.

    Raises:
        ValueError: a side other than 1 and 2.
    """

    needs_blocks: ClassVar[bool] = True

    side: int = 2  # pixels: of the squares that become one; 1 is what strides do and changes nothing
    behind: bool = False  # the first convolution of a transition, where that has a projection

    def __post_init__(self) -> None:
        downsampling.check(self.side)

    def describe(self) -> str:
        return downsampling.named("average pooling", self.side, self.behind)

    def idle(self, outline: Outline) -> str | None:
        return downsampling.idle(self.side, outline)

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return downsampling.pooled(architecture, self.side, Downsampling("average", behind=self.behind))
