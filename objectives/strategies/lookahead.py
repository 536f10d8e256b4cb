"""Lookahead: slow weights follow fast ones and call them back every few steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState

SHADOW = "lookahead"  # name of the shadow that holds the slow weights and the number of steps taken


@dataclass(frozen=True)
class Lookahead(Strategy):
    """Every `interval` steps the slow weights move towards the trained ones, which return to them (Zhang et al. 2019).

    The optimizer's momentum goes on, as in the paper's experiments on CIFAR. Batch-norm statistics are those of the
    trained weights, as in the published code: the slow weights lie amid those that they average over. Steps skipped by
    loss scaling are not counted. Every step pays for the five passes over the weights of which only one in `interval`
    has an effect, so that a captured step can be replayed.

    Deploys the slow weights brought up to date: as they would be if the next return took place at once. In that way the
    last steps of a run count even where it does not end on a return. Where a strategy before this one deploys averages,
    those are deployed: they follow the returns.

    Raises:
        ValueError: a parameter outside its range.
    """

    interval: int = 5  # optimizer steps
    pull: float = 0.8  # how far the slow weights move, in (0, 1]; 1: they are the trained ones, which changes nothing

    def __post_init__(self) -> None:
        if self.interval < 1 or not 0 < self.pull <= 1:
            raise ValueError(f"{self!r}: interval must be at least 1, pull must lie in (0, 1]")

    def describe(self) -> str:
        return f"lookahead {self.pull:.2g} every {self.interval} steps"

    def idle(self, outline: Outline) -> str | None:
        return "the slow weights are the trained ones" if self.pull == 1 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.pull == 1:
            return state
        from objectives.strategies.methods import averaging

        return replace(state, trainee=state.trainee.with_shadow(SHADOW, averaging.shadow_of(state.trainee)))

    def after_step(self, trainee: Trainee, step: Step) -> None:
        if self.pull == 1:
            return
        import torch

        from objectives.strategies.methods import averaging

        count = averaging.counter(trainee, SHADOW)
        count.add_(step.taken.to(count.dtype))
        due = step.taken * (count % self.interval == 0)
        fast, slow = averaging.pairs(trainee, SHADOW)
        difference = torch._foreach_sub(fast, slow)
        torch._foreach_mul_(difference, due * self.pull)
        torch._foreach_add_(slow, difference)
        difference = torch._foreach_sub(slow, fast)
        torch._foreach_mul_(difference, due)
        torch._foreach_add_(fast, difference)

    def deployed(self, model: Network, state: TrainState) -> Network:
        if self.pull == 1 or model is not state.trainee.model:
            return model
        from copy import deepcopy

        import torch

        from objectives.strategies.methods import averaging

        looking = deepcopy(model)
        _, slow = averaging.pairs(state.trainee, SHADOW)
        with torch.no_grad():
            for parameter, behind in zip(looking.parameters(), slow, strict=True):
                parameter.copy_(torch.lerp(behind, parameter, self.pull))
        return looking
