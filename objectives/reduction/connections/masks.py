"""Masks over single connections: how many a trained network can do without. A study: zeros save no time here.

Networks are pruned at once, or pruned and retrained in steps (Han et al., NIPS 2015); `splicing` prunes while they
train. Whether a network is good enough is decided on validation images; what is trained on and what saliencies see are
training images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.data.augment import Batches, Normalisation
from objectives.data.dataset import Dataset
from objectives.device.formats import FORMATS
from objectives.evaluation import evaluate
from objectives.networks.network import Network
from objectives.pipeline import Pipeline
from objectives.reduction.connections.saliency import SaliencyName, Tensors, connections, saliencies
from objectives.task import Seeds
from objectives.train import augmentation

Scope = Literal["layer", "global"]  # the share is of every weight tensor, or of all connections together
EVALUATED_AT_ONCE = 256  # images: a training step's memory; see `evaluation.evaluate`
SLACK = 1e-9  # of accuracies that are the same but for rounding


def masks_of(worth: Tensors, share: float, scope: Scope = "layer", *, held: Tensors | None = None) -> dict[str, Tensor]:
    """Masks that are 0 for exactly round(share n) connections and 1 for the others: the least worth go.

    Of equals the first go, so that a larger share takes the same ones and more. What `held` masks goes first.

    Raises:
        ValueError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share!r} connections cannot be pruned: choose from 0 to 1")
    known = {} if held is None else held
    ranked = {name: t.masked_fill(known[name] == 0, -inf) if name in known else t for name, t in worth.items()}
    if scope == "layer":
        return {name: _mask(each.flatten(), share).view_as(each) for name, each in ranked.items()}
    whole = _mask(torch.cat([each.flatten() for each in ranked.values()]), share)
    parts = torch.split(whole, [each.numel() for each in ranked.values()])
    return {name: part.view_as(each) for (name, each), part in zip(ranked.items(), parts, strict=True)}


def _mask(worth: Tensor, share: float) -> Tensor:
    """[n] 0 for the round(share n) smallest of `worth` [n]."""
    pruned = worth.argsort(stable=True)[: round(share * len(worth))]
    return torch.ones_like(worth).index_fill_(0, pruned, 0.0)


@torch.no_grad()
def hold_(model: nn.Module, masks: Tensors) -> None:
    """Sets to 0 what is masked. In place."""
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


@contextmanager
def pruned(model: nn.Module, masks: Tensors) -> Iterator[None]:
    """The network without what is masked, for as long as the block lasts."""
    before = {name: model.get_parameter(name).detach().clone() for name in masks}
    hold_(model, masks)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                model.get_parameter(name).copy_(weight)


@dataclass(frozen=True)
class Judge:
    """Accepts networks that lose at most `epsilon` of the validation accuracy of the one that it was made with."""

    dataset: Dataset
    base: float  # validation accuracy, in [0, 1]
    epsilon: float

    @classmethod
    def of(cls, model: Network, dataset: Dataset, epsilon: float) -> Judge:
        """The judge of networks made from `model`."""
        return cls(dataset, accuracy(model, dataset), epsilon)

    def accepts(self, reached: float) -> bool:
        """Whether so much accuracy is enough."""
        return reached >= self.base - self.epsilon - SLACK


def accuracy(model: Network, dataset: Dataset) -> float:
    """On the validation images, in [0, 1]; the network is left in the mode that it was in."""
    was, normalise = model.training, Normalisation(dataset, dataset.val.x.device)
    found = evaluate(model.eval(), dataset.val, normalise, FORMATS["fp32"], batch_size=EVALUATED_AT_ONCE)
    model.train(was)
    return found.accuracy


def examples(dataset: Dataset, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(x: [n, channels, size, size] normalised, y: [n]) of training images drawn at random, at most all of them."""
    order = torch.randperm(len(dataset.train.y), generator=torch.Generator().manual_seed(seed))
    chosen = order[:n].to(dataset.train.y.device)
    return Normalisation(dataset, chosen.device)(dataset.train.x[chosen]), dataset.train.y[chosen]


def largest_share(model: Network, worth: Tensors, judge: Judge, *, step: float = 0.01, scope: Scope = "layer") -> float:
    """The share of the connections in `worth` that can go at once, without retraining, as a multiple of `step`.

    By bisection: it is accepted, and one step more is refused. Accuracy need not fall with every step, so that a
    larger share may be accepted as well. All other weights stay as they are.
    """
    n_steps = round(1 / step)
    refused, accepted, tried = n_steps + 1, 0, n_steps  # everything may go where a shortcut leads past it
    while refused - accepted > 1:
        with pruned(model, masks_of(worth, tried / n_steps, scope)):
            enough = judge.accepts(accuracy(model, judge.dataset))
        accepted, refused = (tried, refused) if enough else (accepted, tried)
        tried = (accepted + refused) // 2
    return accepted / n_steps


class Hold(Protocol):
    """What keeps masked weights at 0 while a network trains."""

    def before_step(self, model: nn.Module) -> None:
        """Between the gradients and the step that the optimizer takes with them."""

    def after_step(self, model: nn.Module) -> None:
        """After that step."""


@dataclass(frozen=True)
class Fixed:
    """Masks that stay what they are: what is masked is set back to 0 after every step."""

    masks: Tensors

    def before_step(self, model: nn.Module) -> None:
        pass

    def after_step(self, model: nn.Module) -> None:
        hold_(model, self.masks)


@dataclass(frozen=True)
class MaskedTraining:
    """How a masked network trains on: its pipeline's batches, augmentation and optimizer, at a constant rate."""

    dataset: Dataset
    pipeline: Pipeline  # that the network was trained with; strategies and schedule are left out
    epochs: int = 1  # after each step of pruning
    lr: float = 0.1  # as a share of the pipeline's peak
    seeds: Seeds = field(default_factory=lambda: Seeds(0, 0, 0))

    def train_(self, model: Network, hold: Hold, begins: int = 0) -> None:
        """Trains the network in place, held, for `epochs` epochs of which the first has number `begins`.

        In fp32; momentum begins anew.
        """
        dataset, pipeline = self.dataset, self.pipeline
        normalise = Normalisation(dataset, dataset.train.x.device)
        seeds = (self.seeds.order, self.seeds.augmentation)
        batches = Batches(dataset.train, pipeline.batch_size, augmentation(pipeline, dataset), normalise, seeds)
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=self.lr * pipeline.peak_lr,
            momentum=pipeline.momentum,
            nesterov=pipeline.momentum > 0,
            weight_decay=pipeline.weight_decay,
        )
        for layer in model.convolutions():
            layer.compute = None  # of a copied network it computes with the weights of the original
        torch.manual_seed(self.seeds.augmentation + begins)  # for networks that draw while they train
        model.train()
        for epoch in range(begins, begins + self.epochs):
            for x, y in batches.epoch(epoch):
                loss = F.cross_entropy(model(x), y, label_smoothing=pipeline.label_smoothing)
                loss.backward()  # type: ignore[no-untyped-call]
                hold.before_step(model)
                optimizer.step()
                hold.after_step(model)
                optimizer.zero_grad()
        model.eval()


@dataclass(frozen=True)
class Masked:
    """A network without some of its connections."""

    model: Network  # in evaluation mode; what is masked is 0
    masks: Tensors
    accuracy: float  # on the validation images, in [0, 1]

    @property
    def share(self) -> float:
        """Of the connections that have a mask, those that are gone."""
        n = sum(mask.numel() for mask in self.masks.values())
        return 1 - sum(int(mask.count_nonzero()) for mask in self.masks.values()) / n


def pruned_in_steps(
    model: Network,
    name: SaliencyName,
    layers: Sequence[str],
    shares: Iterable[float],
    judge: Judge,
    training: MaskedTraining,
    *,
    scope: Scope = "layer",
    n_examples: int = 500,
) -> Masked:
    """The network with the largest of the growing `shares` of some layers' connections pruned that is accepted.

    After each step it is retrained and judged; the first that is refused ends it. Saliencies are those of the network
    of the step before, and what is gone stays gone. `model` is left as it is; with no step accepted, a copy comes back.

    Raises:
        ValueError: a layer that the network does not have.
    """
    if unknown := sorted(set(layers) - set(connections(model))):
        raise ValueError(f"the network has no weight {unknown[0]!r}: it has {', '.join(connections(model))}")
    ones = {layer: torch.ones_like(connections(model)[layer], requires_grad=False) for layer in layers}
    best = Masked(deepcopy(model).eval(), ones, judge.base)
    x, y = examples(training.dataset, n_examples, training.seeds.order)
    for number, share in enumerate(shares):
        worth = saliencies(best.model, name, x, y, seed=training.seeds.init + number)
        masks = masks_of({layer: worth[layer] for layer in layers}, share, scope, held=best.masks)
        tried = deepcopy(best.model)
        hold_(tried, masks)
        training.train_(tried, Fixed(masks), number * training.epochs)
        reached = accuracy(tried, judge.dataset)
        if not judge.accepts(reached):
            break
        best = Masked(tried, masks, reached)
    return best
