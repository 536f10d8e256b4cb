"""Progressive resolution: early epochs train on smaller images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from objectives.strategies.base import Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState

SIZE_STEP = 4  # pixels; sizes are multiples of it, so that two halvings stay whole


@dataclass(frozen=True)
class ProgressiveResolution(Strategy):
    """Trains on images shrunk to `start` of their side, growing in equal steps until `until` of the run.

    Of Porto Buarque de Gusmao et al. 2016 (arXiv 1610.03623) only the images are rescaled: a 3x3 kernel cannot be
    halved sensibly, and global average pooling makes the network indifferent to the size. The work of an epoch falls
    with the square of the side. Evaluation always sees the full size, so accuracy before `until` is pessimistic.

    Raises:
        ValueError: a parameter outside its range.
    """

    needs_blocks: ClassVar[bool] = True

    start: float = 0.5  # of the full side, in (0, 1]; 1 changes nothing
    until: float = 0.6  # share of the run after which images have their full size, in [0, 1)
    steps: int = 2  # sizes below the full one
    size: int | None = learned(None)  # pixels in this segment; None: full size

    def __post_init__(self) -> None:
        if not 0 < self.start <= 1 or not 0 <= self.until < 1 or not 1 <= self.steps <= 16:
            raise ValueError(f"{self.describe()}: start must lie in (0, 1], until in [0, 1), steps in 1 to 16")

    def describe(self) -> str:
        return f"images from {self.start:.0%} size until {self.until:.0%} of the run"

    def idle(self, outline: Outline) -> str | None:
        begins = self._size_at(0.0, outline.size)
        return None if begins else f"images begin at their {outline.size} pixels: sizes are multiples of {SIZE_STEP}"

    def between_epochs(self, state: TrainState) -> TrainState:
        full = int(state.data.x.shape[-1])
        before = self._size_at((state.epoch - 1) / state.pipeline.epochs, full) or full
        after = self._size_at(state.fraction, full) or full
        return state if before == after else state.with_event(f"images {before} -> {after} pixels")

    def settled(self, state: TrainState) -> bool:
        full = int(state.data.x.shape[-1])
        return self._size_at((state.epoch - 1) / state.pipeline.epochs, full) is None

    def bound(self, state: TrainState) -> Strategy:
        full = int(state.data.x.shape[-1])
        size = self._size_at(state.fraction, full)
        return self if size == self.size else self.having_learned(size=size)

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.size is None:
            return x, y
        from torch.nn.functional import interpolate

        return interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True), y

    def sides(self, full: int) -> list[int]:
        """The sides in pixels that images have in the course of a run, ascending."""
        fractions = [self.until * step / self.steps for step in range(self.steps)]
        return sorted({self._size_at(fraction, full) or full for fraction in [*fractions, 1.0]})

    def _size_at(self, fraction: float, full: int) -> int | None:
        """The side in pixels at a fraction of the run; None for the full side."""
        if fraction >= self.until:
            return None
        step = int(fraction / self.until * self.steps)
        share = self.start + (1 - self.start) * step / self.steps
        size = max(SIZE_STEP, round(full * share / SIZE_STEP) * SIZE_STEP)
        return size if size < full else None
