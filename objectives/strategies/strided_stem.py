"""A stem of stride 2: a quarter of the work behind it, from the first step to the last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.haar_stem import HaarStem

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture


@dataclass(frozen=True)
class StridedStem(Strategy):
    """Makes the first convolution skip pixels, as the stems of networks for large images do (He et al. 2016, table 1).

    Raises:
        ValueError: a stride other than 1 and 2.
    """

    needs_blocks: ClassVar[bool] = True
    excludes: ClassVar[tuple[type[Strategy], ...]] = (HaarStem,)  # halves the images itself

    stride: int = 2  # pixels, times that of the study; 1 changes nothing

    def __post_init__(self) -> None:
        if self.stride not in (1, 2):
            raise ValueError(f"a stem of stride {self.stride!r}: choose 1 or 2")

    def describe(self) -> str:
        return f"stem of stride {self.stride}"

    def idle(self, outline: Outline) -> str | None:
        return "its stride is 1" if self.stride == 1 else None

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return replace(residual(architecture), stem_stride=self.stride * residual(architecture).stem_stride)
