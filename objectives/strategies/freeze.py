"""Freezing: the early layers stop training as the run goes on, so that the backward pass ends before them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from objectives.state import TrainState


@dataclass(frozen=True)
class Freeze(Strategy):
    """Freezes the stem at `start` of the run, then stage by stage at even intervals, the last one at `until`.

    After FreezeOut (Brock, Lim, Ritchie & Weston 2017, linear times; they found up to 20 % less time for ResNets at the
    same accuracy). One departure: a stage learns at the rate of the schedule up to its end, where FreezeOut anneals
    each layer on its own. The head trains to the end, and so does what growth adds to a stage after its time.

    Frozen are weights, scales and biases. Batch norms still normalise over the batch, as they did while the later
    stages learned from them, and their running statistics go on, so that evaluation sees the same function.

    Raises:
        ValueError: a parameter outside its range.
    """

    needs_blocks: ClassVar[bool] = True

    start: float = 0.5  # share of the run after which the stem is frozen, in (0, 1]; 1 freezes nothing
    until: float = 1.0  # share of the run after which the last stage is, in [start, 1]; 1: it trains to the end

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.until <= 1:
            raise ValueError(f"{self!r}: 0 < start <= until <= 1")

    def describe(self) -> str:
        return f"freezing from {self.start:.0%} to {self.until:.0%} of the run"

    def idle(self, outline: Outline) -> str | None:
        last = (outline.epochs - 1) / outline.epochs
        n_due = self._n_due(last, len(residual(outline.full).stages)) if outline.epochs > 1 else 0
        return None if n_due else f"the last epoch begins before {self.start:.0%} of the run"

    def between_epochs(self, state: TrainState) -> TrainState:
        from objectives.networks import surgery

        model = state.trainee.model
        n_stages = len(residual(model.architecture).stages)
        before, now = (self._n_due(epoch / state.pipeline.epochs, n_stages) for epoch in (state.epoch - 1, state.epoch))
        parts = {"stem": "stem."} | {f"stage {s}": f"stages.{s}." for s in range(n_stages)}
        due = {
            part: [name for name, _ in model.named_parameters() if name.startswith(parts[part])]
            for part in list(parts)[before:now]
        }
        due = {part: names for part, names in due.items() if names}  # a stage may have no blocks
        if not due:
            return state
        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        for name in chain.from_iterable(due.values()):
            trainee.model.get_parameter(name).requires_grad_(False)
        return replace(state, trainee=trainee).with_event(f"frozen: {', '.join(due)}")

    def _n_due(self, fraction: float, n_stages: int) -> int:
        """How many of the stem and the stages are frozen at a fraction of the run."""
        gap = (self.until - self.start) / n_stages
        return sum(fraction >= self.start + gap * number - 1e-9 for number in range(n_stages + 1))
