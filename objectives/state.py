"""What a training carries from epoch to epoch: `TrainState`, `Step`, `Schedule`. Frozen; strategies return new ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.pipeline import Pipeline, Report, ScheduleName

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.data.augment import Normalisation
    from objectives.data.dataset import Images
    from objectives.networks.plain import AnyArchitecture
    from objectives.networks.trainee import Trainee
    from objectives.strategies.base import Strategy


@dataclass(frozen=True)
class Step:
    """One optimizer step, as seen by `after_step`."""

    x: Tensor  # [batch, channels, height, width]
    y: Tensor  # [batch]
    loss: Tensor  # scalar, without penalties
    taken: Tensor  # scalar 0 or 1 on the device: 0 when fp16 loss scaling skipped the step


@dataclass(frozen=True)
class Schedule:
    """Share of the peak learning rate over a run. Horizon-bound: a function of the fraction of the run."""

    name: ScheduleName
    epochs: int
    restart: float | None = None  # epoch from which the share falls linearly to 0 instead, after growth
    restart_share: float = 1.0
    held: bool = False  # stays at its peak once it is there
    warmed: float | None = None  # epoch in which the share rises once more to what it would be, after growth
    warmed_share: float = 1.0  # of that, to begin with
    begins: float = 0.0  # epoch, perhaps before the first, at which it starts: a run may train more than once

    def __call__(self, epoch: float) -> float:
        """The share in (0, 1] at `epoch`, a real number in [begins, epochs)."""
        if self.warmed is not None and 0 <= epoch - self.warmed < 1:
            risen = self.warmed_share + (1 - self.warmed_share) * (epoch - self.warmed)
            return risen * replace(self, warmed=None)(epoch)
        if self.restart is not None and epoch >= self.restart:
            return self.restart_share * (self.epochs - epoch) / (self.epochs - self.restart)
        fraction = (epoch - self.begins) / (self.epochs - self.begins)
        if self.held:
            fraction = min(fraction, 0.25 if self.name == "one_cycle" else 0.0)
        match self.name:
            case "step":  # PruneTrain's milestones 93 and 150 of 182 epochs, as fractions
                return 1.0 if fraction < 0.51 else 0.1 if fraction < 0.82 else 0.01
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * fraction))
            case "one_cycle":  # linear up over the first quarter, linear down to 0 (Smith 2018)
                return 0.1 + 0.9 * fraction / 0.25 if fraction < 0.25 else (1 - fraction) / 0.75


@dataclass(frozen=True)
class TrainState:
    """Where a training stands between two epochs."""

    trainee: Trainee
    pipeline: Pipeline  # the settings in force now; starts as sampled
    schedule: Schedule  # replaced to re-warm or rewind
    data: Images  # the training images in use
    normalise: Normalisation  # maps their pixels to what the network takes
    full: AnyArchitecture  # what the settings ask for; a strategy may start with less
    ends: int  # epoch at which the run ends; pipeline.epochs keeps fractions meaningful
    classes: tuple[str, ...] = ()  # their names, in the order of the logits
    repeats: bool = False  # the same batches of them in every epoch; else drawn anew
    epoch: int = 0  # epochs finished
    loss: float = math.nan  # mean training loss of the last of them; `history` has it from the next boundary on
    train_seconds: float = 0.0  # of the device, charged until the last step of that epoch
    train_flops: float = 0.0  # of the network, spent until then
    accuracy: float = math.nan  # after the last of them, where a strategy reads it: such an evaluation is charged
    history: tuple[Report, ...] = ()
    events: tuple[str, ...] = ()  # since the last report, in words

    @property
    def fraction(self) -> float:
        """Share of the schedule that is done, in [0, 1]."""
        return self.epoch / self.pipeline.epochs

    def is_due(self, share: float) -> bool:
        """Whether this boundary lies at or after a share of the schedule, or is the last one; epochs remain."""
        is_last = self.epoch == self.ends - 1
        return self.epoch < self.ends and (is_last or self.fraction >= share - 1e-9)

    def with_strategy(self, old: Strategy, new: Strategy) -> TrainState:
        """This state with `new`, the same strategy having learned something, in the place of `old`."""
        if new is old:
            return self
        strategies = tuple(new if strategy is old else strategy for strategy in self.pipeline.strategies)
        return replace(self, pipeline=replace(self.pipeline, strategies=strategies))

    def with_event(self, event: str) -> TrainState:
        """This state with one more event to report."""
        return replace(self, events=(*self.events, event))
