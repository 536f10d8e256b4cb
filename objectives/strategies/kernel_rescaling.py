"""Kernel rescaling: the stem begins with small kernels, which are resampled to larger ones as the run goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.plain import residual
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.whitening import Whitening

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture
    from objectives.state import TrainState


@dataclass(frozen=True)
class KernelRescaling(Strategy):
    """Gives the stem kernels of another size at one boundary, resampled so that they see larger images alike.

    With ProgressiveResolution it is the method of Porto Buarque de Gusmao et al. 2016 (arXiv 1610.03623), who rescale
    images and kernels at once: choose `at` as that strategy's `until`. Without it the stem sees coarser patterns from
    then on than it did. Only the stem's kernels grow, where the paper's networks have large ones in several layers. See
    `surgery.resize_stem`.

    A frozen stem keeps its kernels.

    Raises:
        ValueError: a parameter outside its range.
    """

    needs_blocks: ClassVar[bool] = True
    # Whitening filters are patches of 3 pixels, and where the stem grows new ones are; a mask of taps cannot be
    # resampled, and the weights that a lottery ticket goes back to are those of the start; an adaptive network goes
    # back, too, and its budget knows one stem.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (Whitening, LotteryTicket, Adaptive)

    start: int = 3  # pixels: side of the first kernels, odd
    kernel: int = 5  # pixels: side of the last ones, odd, from `start`; `start`: they stay as they are
    at: float = 0.5  # share of the run at which they grow, in (0, 1)
    since: int | None = learned(None)  # epoch after which they have, or a frozen stem has refused to

    def __post_init__(self) -> None:
        if not 1 <= self.start <= self.kernel or self.start % 2 == 0 or self.kernel % 2 == 0 or not 0 < self.at < 1:
            raise ValueError(f"{self!r}: start and kernel are odd with 1 <= start <= kernel, at lies in (0, 1)")

    def describe(self) -> str:
        grows = "" if self.start == self.kernel else f" from {self.start} at {self.at:.0%} of the run"
        return f"stem kernels of {self.kernel} pixels{grows}"

    def idle(self, outline: Outline) -> str | None:
        if self.start != residual(outline.full).stem_kernel:
            return None
        if self.start == self.kernel:
            return f"the stem has kernels of {self.kernel} pixels anyway"
        return None if outline.epochs > 1 else "a run of one epoch has no boundary at which kernels could grow"

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return replace(residual(architecture), stem_kernel=self.start)

    def reached(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return replace(residual(architecture), stem_kernel=self.kernel)

    def between_epochs(self, state: TrainState) -> TrainState:
        if self.start == self.kernel or self.since is not None or not state.is_due(self.at):
            return state
        from objectives.networks import surgery
        from objectives.networks.architecture import STEM

        state = state.with_strategy(self, self.having_learned(since=state.epoch))
        if not state.trainee.model.get_parameter(STEM).requires_grad:
            return state.with_event(f"the frozen stem keeps its kernels of {self.start} pixels")
        trainee = surgery.resize_stem(state.trainee, self.kernel)
        return replace(state, trainee=trainee).with_event(f"kernels of the stem {self.start} -> {self.kernel} pixels")

    def settled(self, state: TrainState) -> bool:
        """Only where the stem has been trained with its last kernels."""
        if self.start == self.kernel or state.pipeline.epochs == 1:
            return True
        return self.since is not None and state.epoch > self.since
