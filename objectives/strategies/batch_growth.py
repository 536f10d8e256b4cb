"""Batch growth: batches become larger as the run goes on, in the place of a falling learning rate or beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from objectives.strategies.adaptive import Adaptive
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.prune_train import MAX_BATCH

if TYPE_CHECKING:
    from objectives.networks.trainee import Trainee
    from objectives.state import TrainState


@dataclass(frozen=True)
class BatchGrowth(Strategy):
    """Multiplies the batch by `factor` at `at` of the run, then at even intervals, the last time at `until`.

    A batch that grows quiets the noise of the gradient as a learning rate that falls by as much does, in fewer steps
    (Smith, Kindermans, Ying & Le 2018): that is `rate` "kept". "scaled" multiplies the peak learning rate alike (Goyal
    et al. 2017): the weights move as fast per image as before, and the noise stays; what is left is the time of fewer
    steps.

    Momentum: the buffer holds gradients and not steps, so that a rate which changes needs no correction of it (Goyal et
    al. 2017, section 3, remark 2). What does change is how many images it averages over, `factor` times as many. With
    `momentum` "corrected" it stays the same number: the coefficient becomes its power of `factor`, the buffers become
    what they would hold under it where gradients are steady, and the learning rate makes up for the shorter sum.

    Raises:
        ValueError: a parameter outside its range.
    """

    # What an epoch brings says whether its network grows, and an epoch of fewer steps brings less in any network.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (Adaptive,)

    factor: int = 2  # of the batch at each growth, from 1; 1 changes nothing
    at: float = 0.5  # share of the run after which the batch grows first, in (0, 1)
    until: float = 0.75  # share of the run after which it grows last, in [at, 1)
    steps: int = 2  # growths, 1 to 8
    rate: Literal["kept", "scaled"] = "kept"  # peak learning rate
    momentum: Literal["kept", "corrected"] = "kept"

    def __post_init__(self) -> None:
        if self.factor < 1 or not 0 < self.at <= self.until < 1 or not 1 <= self.steps <= 8:
            raise ValueError(f"{self!r}: factor from 1, 0 < at <= until < 1, steps in 1 to 8")
        if self.rate not in ("kept", "scaled") or self.momentum not in ("kept", "corrected"):
            raise ValueError(f"{self!r}: rate is kept or scaled, momentum is kept or corrected")

    def describe(self) -> str:
        when = f"at {self.at:.0%}" if self.steps == 1 else f"{self.steps} times from {self.at:.0%} to {self.until:.0%}"
        momentum = ", momentum corrected" if self.momentum == "corrected" else ""
        return f"batch x{self.factor} {when} of the run, lr {self.rate}{momentum}"

    def idle(self, outline: Outline) -> str | None:
        if self.factor == 1:
            return "its factor is 1"
        return None if outline.epochs > 1 else "a run of one epoch has no boundary at which it could grow"

    def between_epochs(self, state: TrainState) -> TrainState:
        n_new = self._n_due(state, state.epoch) - self._n_due(state, state.epoch - 1)
        if self.factor == 1 or n_new == 0:
            return state
        n, pipeline = len(state.data.y), state.pipeline
        before = min(n, pipeline.batch_size)
        after = max(before, min(n, MAX_BATCH, before * self.factor**n_new))
        if after == before:
            return state.with_event(f"the batch stays at {before}: there are no larger ones")
        peak = pipeline.peak_lr * (after / before if self.rate == "scaled" else 1.0)
        grown = replace(state, pipeline=pipeline.with_batch(after, peak))
        if self.momentum == "corrected":
            grown = replace(grown, trainee=_corrected(state.trainee, after / before))
        return grown.with_event(f"batch {before} to {after}")

    def _n_due(self, state: TrainState, epoch: int) -> int:
        """How many growths are due after so many epochs; one at the last boundary of the run at the latest."""
        gap = (self.until - self.at) / max(1, self.steps - 1)
        fraction = epoch / state.pipeline.epochs
        n_due = sum(fraction >= self.at + gap * number - 1e-9 for number in range(self.steps))
        return max(n_due, 1) if epoch == state.ends - 1 else n_due


def _corrected(trainee: Trainee, growth: float) -> Trainee:
    """The trainee whose momentum averages over as many images as before, of batches `growth` times as large.

    A buffer of steady gradients g under a momentum m holds g / (1 - m).
    """
    from objectives.networks import surgery
    from objectives.strategies.methods.muon import STEPS

    corrected = surgery.reindex(trainee, {})  # a copy: the old trainee stays as it is
    for group in corrected.optimizer.param_groups:
        before = group["momentum"]
        after = group["momentum"] = before**growth
        if before == 0 or STEPS in group:  # Muon's steps have a size of their own, whatever is in its buffer
            continue
        shorter = (1 - after) / (1 - before)
        group["lr_factor"] = group.get("lr_factor", 1.0) * shorter
        for parameter in group["params"]:
            if "momentum_buffer" in corrected.optimizer.state[parameter]:
                corrected.optimizer.state[parameter]["momentum_buffer"].div_(shorter)
    return corrected
