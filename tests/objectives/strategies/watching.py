"""The gradients that an optimizer gets, after the strategies had them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline
from objectives.state import Step
from objectives.strategies.base import Strategy
from tests.objectives.strategies.cases import TASK, begin_in_double, executor, first_batch


@dataclass(frozen=True)
class Gradients(Strategy):
    """Keeps the gradients of a step."""

    seen: dict[str, Tensor] = field(default_factory=dict, compare=False)

    def gradients(self, trainee: Trainee, step: Step) -> None:
        named = trainee.model.named_parameters()
        self.seen.update({name: p.grad.detach().clone() for name, p in named if p.grad is not None})


def gradients_of(
    pipeline: Pipeline, dataset: Dataset, *, order: Tensor | None = None, seed: int = 0, twice: bool = False
) -> dict[str, Tensor]:
    """By the name of their parameter, in the first step of a pipeline, in double precision.

    Of the first batch with its images in some order; `twice`: every strategy stands there twice.
    """
    state, watch = begin_in_double(pipeline, dataset, TASK), Gradients()
    running, (x, y) = executor(state), first_batch(dataset)
    strategies = state.pipeline.strategies * (2 if twice else 1)
    running.segment = replace(running.segment, strategies=(*strategies, watch))
    chosen = torch.arange(len(y)) if order is None else order
    torch.manual_seed(seed)
    running.step(x[chosen].double(), y[chosen])
    return watch.seen
