"""How the steps of a segment are run. `Eager` runs them one kernel at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.formats import LossScaler, NumberFormat
from objectives.resnet import Convolution
from objectives.state import Step, Trainee
from objectives.strategies.base import Strategy


@dataclass(frozen=True)
class Segment:
    """What stays constant between two boundaries: all that a step needs."""

    trainee: Trainee
    strategies: tuple[Strategy, ...]  # bound
    number_format: NumberFormat
    scaler: LossScaler | None  # where the number format asks for one
    label_smoothing: float


class Eager:
    """Runs the steps of one segment as ordinary PyTorch calls. Nothing in a step waits for the device."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        model = segment.trainee.model
        self._device = next(model.parameters()).device
        self._always = torch.ones((), device=self._device)
        # A forward pass that overflows in fp16 poisons the running statistics: a skipped step restores them.
        self._statistics = [b for b in model.buffers() if b.is_floating_point()] if segment.scaler else []
        for layer in model.convolutions():
            layer.compute = _wrapped(layer, segment.strategies)
        model.train()

    def step(self, x: Tensor, y: Tensor) -> Step:
        """Trains on one batch (x: [batch, channels, height, width], y: [batch]); the loss stays on the device."""
        segment = self._segment
        for strategy in segment.strategies:
            x, y = strategy.batch(x, y)
        kept = [statistic.clone() for statistic in self._statistics]
        with segment.number_format.context(self._device):
            logits = segment.trainee.model(x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=segment.label_smoothing)
        total = loss
        for strategy in segment.strategies:
            penalty = strategy.penalty(segment.trainee)
            if penalty is not None:
                total = total + penalty
        done = Step(x, y, loss.detach(), self._optimise(total))
        for statistic, before in zip(self._statistics, kept, strict=True):
            statistic.copy_(torch.where(done.taken > 0, statistic, before))
        for strategy in segment.strategies:
            strategy.after_step(segment.trainee, done)
        return done

    def _optimise(self, total: Tensor) -> Tensor:
        """Steps the optimizer down the gradient of `total`; scalar 1, or 0 when loss scaling skipped the step."""
        optimizer, scaler = self._segment.trainee.optimizer, self._segment.scaler
        if scaler is None:
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            taken = self._always
        else:
            scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            taken = scaler.step_taken(optimizer)
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return taken


def _wrapped(layer: Convolution, strategies: tuple[Strategy, ...]) -> Callable[[Tensor], Tensor] | None:
    """The layer's training computation with every strategy that wraps it, or None where none does."""

    def plain(x: Tensor) -> Tensor:
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding)

    compute: Callable[[Tensor], Tensor] = plain
    for strategy in strategies:
        compute = strategy.convolution(layer, compute)
    return None if compute is plain else compute
