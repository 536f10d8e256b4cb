"""Further steps on a batch whose loss is above a control limit: the subproblem of inconsistent SGD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.device.formats import FORMATS
from objectives.networks.trainee import Trainee
from objectives.pipeline import NumberFormatName
from objectives.state import Step

SCALE = 2.0**12  # of the loss where gradients would underflow; a step whose gradients overflow ends the chase


@dataclass
class Chase:
    """Gradient steps down (loss - limit)^2 / 2 + pull / (2 n) |w - w'|^2 on one batch, of n weights w.

    Wang, Yang, Min & Chakradhar 2017, the problem that the patent calls its continued training.
    """

    number_format: NumberFormatName
    label_smoothing: float
    stop: int  # steps at most
    pace: float  # learning rate of a step, over that of the optimizer
    pull: float
    limit: float = 0.0
    _before: Sequence[Tensor] = field(default=(), repr=False)  # the weights before the batch: w'

    @property
    def is_on(self) -> bool:
        """Whether weights are held, from which a chase may begin."""
        return bool(self._before)

    def hold(self, trainee: Trainee | None) -> None:
        """Keeps the weights as they are; None: none."""
        self._before = () if trainee is None else [w.detach().clone() for w in _weights(trainee)]

    def run(self, trainee: Trainee, step: Step) -> int:
        """Takes the steps, in place, and lets the weights go that were held; how many it took."""
        weights, before = _weights(trainee), self._before
        self._before = ()
        statistics = [(b, b.clone()) for b in trainee.model.buffers() if b.is_floating_point()]
        n_taken = 0
        while n_taken < self.stop and self._stepped(trainee, step, weights, before):
            n_taken += 1
        for statistic, kept in statistics:  # the batch counts once
            statistic.copy_(kept)
        return n_taken

    def _stepped(self, trainee: Trainee, step: Step, weights: list[Tensor], before: Sequence[Tensor]) -> bool:
        """Whether the loss was above the limit and a step down was taken."""
        number_format = FORMATS[self.number_format]
        with number_format.context(step.x.device):
            logits = trainee.model(step.x)
        loss = F.cross_entropy(logits.float(), step.y, label_smoothing=self.label_smoothing)
        above = float(loss.detach()) - self.limit
        if not (above > 0 and isfinite(above)):
            return False
        scale = SCALE if number_format.scaled else 1.0
        gradients = torch.autograd.grad(scale * loss, weights)
        if number_format.scaled and not all(bool(gradient.isfinite().all()) for gradient in gradients):
            return False
        rate = self.pace * float(trainee.optimizer.param_groups[0]["lr"])
        with torch.no_grad():
            away = torch._foreach_sub(weights, list(before))
            n = sum(weight.numel() for weight in weights)
            torch._foreach_add_(weights, list(gradients), alpha=-rate * above / scale)
            torch._foreach_add_(weights, away, alpha=-rate * self.pull / n)
        return True


def _weights(trainee: Trainee) -> list[Tensor]:
    """The parameters that train."""
    return [parameter for parameter in trainee.model.parameters() if parameter.requires_grad]
