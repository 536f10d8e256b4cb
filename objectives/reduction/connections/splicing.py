"""Dynamic network surgery: connections are pruned while a network trains, and come back where that was a mistake."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objectives.networks.network import Network
from objectives.reduction.connections.masks import Masked, MaskedTraining, accuracy, hold_
from objectives.reduction.connections.saliency import connections


@dataclass(frozen=True)
class Surgery:
    """Settings of dynamic network surgery (Guo et al., NIPS 2016, section 3; constants of their published code).

    Raises:
        ValueError: a value is out of range.
    """

    c: float = 4.0  # thresholds lie at mean + c deviations of a weight tensor's magnitudes, as they are at the start
    prune_at: float = 0.9  # of the threshold: what is smaller goes
    splice_at: float = 1.1  # of the threshold: what is larger comes back
    gamma: float = 1e-4  # masks change in iteration i with probability (1 + gamma i)^-power
    power: float = 1.0
    stop: int = 14_000  # iteration from which they stay

    def __post_init__(self) -> None:
        if not 0 <= self.prune_at <= self.splice_at:
            raise ValueError(f"prune_at = {self.prune_at:g}, splice_at = {self.splice_at:g}: the first is the smaller")
        if self.gamma < 0 or self.power < 0 or self.stop < 0:
            raise ValueError(f"{self!r}: gamma, power and stop must not be negative")

    def threshold(self, weight: Tensor) -> float:
        """Between what is pruned and what comes back."""
        size = weight.detach().abs()
        return max(0.0, float(size.mean() + self.c * size.std(correction=0)))


class Spliced:
    """Masks under surgery. All weights keep receiving the gradients of the network that computes with the masked ones.

    A weight that is masked goes on living beside the network, and comes back with the value that it has by then.
    """

    def __init__(self, model: nn.Module, surgery: Surgery, seed: int, layers: Sequence[str] | None = None) -> None:
        weights = connections(model)
        self._surgery, self._iteration = surgery, 0
        self._generator = torch.Generator().manual_seed(seed)
        self._whole = {name: weights[name].detach().clone() for name in (weights if layers is None else layers)}
        self._thresholds = {name: surgery.threshold(weight) for name, weight in self._whole.items()}
        self.masks = {name: torch.ones_like(weight) for name, weight in self._whole.items()}
        self.n_spliced = 0  # connections that came back so far

    @torch.no_grad()
    def before_step(self, model: nn.Module) -> None:
        """Gives the network its whole weights: they are what the optimizer moves, and what decays."""
        for name, weight in self._whole.items():
            model.get_parameter(name).copy_(weight)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Perhaps prunes and splices, then masks the network for the next batch."""
        for name, weight in self._whole.items():
            weight.copy_(model.get_parameter(name))
        known = self._surgery
        chance = (1 + known.gamma * self._iteration) ** -known.power
        if self._iteration < known.stop and float(torch.rand((), generator=self._generator)) < chance:
            self._operate()
        self._iteration += 1
        hold_(model, self.masks)

    def _operate(self) -> None:
        for name, mask in self.masks.items():
            size, threshold = self._whole[name].abs(), self._thresholds[name]
            back = size > self._surgery.splice_at * threshold
            self.n_spliced += int((back & (mask == 0)).sum())
            mask.masked_fill_(size <= self._surgery.prune_at * threshold, 0.0).masked_fill_(back, 1.0)


def operated(model: Network, surgery: Surgery, training: MaskedTraining, layers: Sequence[str] | None = None) -> Masked:
    """The network after dynamic network surgery on some layers, or all, for `training.epochs` epochs."""
    made = deepcopy(model)
    spliced = Spliced(made, surgery, training.seeds.init, layers)
    training.train_(made, spliced)
    return Masked(made, spliced.masks, accuracy(made, training.dataset))
