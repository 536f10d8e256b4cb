"""A wavelet in the stem: the network sees four small images instead of a large one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture


@dataclass(frozen=True)
class HaarStem(Strategy):
    """Takes the Haar wavelet transform of the images before the first convolution.

    Half the side and four times the channels, orthonormal: a convolution with a stride of 2 in the stem is replaced at
    the same work behind it and loses nothing; where the stride was 1, the work behind the stem is a quarter. As a
    stem that gathers pixels into channels: Shi et al. 2016 (sub-pixel convolution, its inverse), Ridnik et al. 2021
    (TResNet). Kernels of more than 3 pixels become half as large, as the images do, and see as much as before.

    Raises:
        ValueError: levels other than 0 and 1.
    """

    needs_blocks: ClassVar[bool] = True

    levels: int = 1  # times that the images are halved; 0 changes nothing

    def __post_init__(self) -> None:
        if self.levels not in (0, 1):
            raise ValueError(f"a Haar stem of {self.levels!r} levels: it has 0 or 1")

    def describe(self) -> str:
        return "Haar stem" if self.levels else "plain stem"

    def idle(self, outline: Outline) -> str | None:
        return None if self.levels else "it has no levels"

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        if self.levels == 0:
            return architecture
        plain = residual(architecture)
        kernel = max(min(3, plain.stem_kernel), plain.stem_kernel // 4 * 2 + 1)  # odd, and half as large
        return replace(plain, stem="haar", stem_stride=max(1, plain.stem_stride // 2), stem_kernel=kernel)
