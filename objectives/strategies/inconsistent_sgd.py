"""Inconsistent SGD: a batch whose loss is unusually high is trained on for longer than the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.gradient_approximation import GradientApproximation

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState
    from objectives.strategies.methods.control import Chase

PULL = 0.1  # epsilon of the paper: how much the weights are held back, divided by their number


@dataclass(frozen=True)
class InconsistentSGD(Strategy):
    """Stays on a batch whose loss is above the mean of an epoch's by `sigmas` deviations (Wang, Yang, Min &
    Chakradhar 2017; patented in the United States, US 10,572,800).

    Of the last losses, as many as an epoch has batches, it keeps mean and deviation, as a control chart does; so it
    acts from the second epoch on. After the ordinary step on a batch above the limit L it takes further steps down
    (loss - L)^2 / 2 + epsilon / (2 n) |w - w'|^2, n weights w that were w' before that batch, until the loss is at the
    limit or `stop` steps are taken. They are plain gradient steps: momentum does not see them, batch norms count the
    batch once. Penalties of other strategies play no part in them.

    A loss is compared with others of its kind where the batches are the same in every epoch: images are then put in
    order once (fixed-cycle pseudo-random sampling), and augmented anew each time. Every step waits for its loss, on the
    host. The last boundary says how many batches were above the limit. The further steps are not among the FLOPs that a
    report counts, but they are charged. Put it before what holds weights after a step, as masks and formats do.

    Raises:
        ValueError: a parameter outside its range.
    """

    excludes = (GradientApproximation,)  # of a batch that never changes it would leave the same samples out for ever

    sigmas: float = 3.0  # deviations above the mean, from 0
    stop: int = 5  # further steps at most, 0 to 100; 0 changes nothing
    pace: float = 1.0  # learning rate of a further step, over that of the schedule, in (0, 100]
    fixed: bool = True  # the same batches in every epoch
    losses: Tensor | None = learned(None)  # [batches of an epoch] the last ones, NaN until there are any
    counts: Tensor | None = learned(None)  # [3] steps taken, batches above the limit, further steps; on the host
    chase: Chase | None = learned(None)  # how further steps are taken

    def __post_init__(self) -> None:
        if not 0 <= self.sigmas < 100 or not 0 <= self.stop <= 100 or not 0 < self.pace <= 100:
            raise ValueError(f"{self!r}: sigmas must lie in [0, 100), stop in 0 to 100, pace in (0, 100]")

    @property
    def capturable(self) -> bool:
        return False

    def describe(self) -> str:
        order = "" if self.fixed else ", drawn anew"
        return f"inconsistent SGD above {self.sigmas:.2g} sigma, {self.stop} steps at most{order}"

    def idle(self, outline: Outline) -> str | None:
        if self.stop == 0:
            return "it takes no further steps"
        return None if outline.epochs > 1 else "in a run of one epoch no loss can be compared with an epoch's"

    @property
    def reads_images(self) -> bool:
        return self.stop > 0  # each further step is a whole pass

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.stop == 0 or state.ends < 2:
            return state
        import torch

        from objectives.strategies.methods.control import Chase

        pipeline = state.pipeline
        chase = Chase(pipeline.number_format, pipeline.label_smoothing, self.stop, self.pace, PULL)
        state = state.with_strategy(self, self.having_learned(counts=torch.zeros(3), chase=chase))
        return replace(state, repeats=True) if self.fixed else state

    def bound(self, state: TrainState) -> Strategy:
        if self.chase is None:
            return self
        import torch

        n, known = max(1, len(state.data.y) // state.pipeline.batch_size), self
        if self.losses is None or len(self.losses) != n:
            known = known.having_learned(losses=torch.full((n,), torch.nan, device=state.data.x.device))
        if self.chase.number_format != state.pipeline.number_format:  # it went over to fp32
            known = known.having_learned(chase=replace(self.chase, number_format=state.pipeline.number_format))
        return known

    def gradients(self, trainee: Trainee, step: Step) -> None:
        """Compares the loss of the batch with the last ones, and keeps the weights where it is above the limit."""
        if self.chase is None:
            return
        import torch

        assert self.losses is not None
        assert self.counts is not None
        limit = self.losses.mean() + self.sigmas * self.losses.std(correction=0)
        later = torch.cat([self.losses[1:], step.loss.to(self.losses.dtype).view(1)])
        is_above, taken, self.chase.limit = torch.stack([step.loss > limit, step.taken, limit]).tolist()
        if taken:
            self.losses.copy_(later)
        self.counts.add_(torch.tensor([taken, taken * is_above, 0.0]))
        self.chase.hold(trainee if taken * is_above else None)

    def after_step(self, trainee: Trainee, step: Step) -> None:
        if self.chase is None or not self.chase.is_on:
            return
        assert self.counts is not None
        self.counts[2] += self.chase.run(trainee, step)

    def between_epochs(self, state: TrainState) -> TrainState:
        if self.chase is None or state.epoch < state.ends - 1:
            return state
        assert self.counts is not None
        n_steps, n_above, n_further = map(int, self.counts.tolist())
        return state.with_event(f"{n_above} of {n_steps} batches were above the limit: {n_further} further steps")
