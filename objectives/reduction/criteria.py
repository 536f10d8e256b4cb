"""Which channels of an axis matter least: a score for each, the lowest goes first.

Channels are judged where they are read: by every layer whose weights have the axis as inputs. That is behind norm,
nonlinearity, pooling and residual addition, whatever the network has, and all members of a residual stage are in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.networks.network import Network
from objectives.reduction import merging
from objectives.reduction.settings import CriterionName

Batch = tuple[Tensor, Tensor]  # x: [batch, channels, height, width] normalised, y: [batch]


def scores(
    model: Network, axes: Sequence[str], batches: Iterable[Batch], criterion: CriterionName, seed: int = 0
) -> dict[str, Tensor]:
    """What the channels of each axis are worth by a criterion, [channels] float64 on the device of the network.

    `l1_own`: sum of the absolute weights that produce a channel (Li et al. 2017); `l1_next`: of those that read it;
    `l1_both`: of all (variants 1 to 3 of Viehmann 2020). What no layer produces is judged by what reads it.
    `activation`: |activation|, mean over positions, summed over images and readers.
    `taylor`: the first-order change of the loss when a channel goes (Molchanov et al. 2017): the sum of gradient x
    activation over positions and readers, its absolute value averaged over images, then divided by the norm over the
    axis. With one reader behind a ReLU and any pooling this is theirs, where a layer's number of positions is divided
    away; in a residual stage, readers add up before the absolute value: channels go from all of them at once.
    `taylor_sum`: the sum of |gradient x activation| over positions, readers and images, as in the thesis' code.
    `similarity`: see `merging`; what a channel's merge with the one most like it would change.
    `random`: by `seed` alone.

    The network computes in evaluation mode, in the numbers that it has; `batches` are read once, where they are needed.
    """
    sizes = model.architecture.axis_sizes()
    device = next(model.parameters()).device
    match criterion:
        case "l1_own" | "l1_next" | "l1_both":
            return {axis: _l1(model, axis, criterion) for axis in axes}
        case "similarity":
            return {axis: merging.saliencies(model, axis) for axis in axes}
        case "random":
            generator = torch.Generator().manual_seed(seed)
            drawn = {axis: torch.rand(sizes[axis], generator=generator, dtype=torch.float64) for axis in axes}
            return {axis: value.to(device) for axis, value in drawn.items()}
        case "activation":
            return _activation(model, axes, batches)
        case "taylor" | "taylor_sum":
            return _taylor(model, axes, batches, absolute=criterion == "taylor_sum")


def kept(worth: Tensor, n: int) -> Tensor:
    """The `n` channels that are worth most, in their order; of equals the first."""
    return worth.argsort(descending=True, stable=True)[:n].sort().values


def _l1(model: Network, axis: str, criterion: str) -> Tensor:
    own, read = merging.producing(model, axis), merging.reading(model, axis)
    chosen = {"l1_own": [own or read], "l1_next": [read], "l1_both": [own, read]}[criterion]
    total = torch.zeros(model.architecture.axis_sizes()[axis], dtype=torch.float64, device=read[0].device)
    for weights in chosen:
        for weight in weights:
            total += weight.detach().double().abs().flatten(1).sum(1)
    return total


def _activation(model: Network, axes: Sequence[str], batches: Iterable[Batch]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with torch.no_grad(), _watched(model, axes) as reads:
        for x, _ in batches:
            model(x)
            for axis, each in _taken(reads):
                total = torch.stack([_by_position(h, model, axis).double().abs().mean(2).sum(0) for h in each]).sum(0)
                found[axis] = found[axis] + total if axis in found else total
    return found


def _taylor(model: Network, axes: Sequence[str], batches: Iterable[Batch], *, absolute: bool) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}
    n_images = 0
    with _watched(model, axes) as reads:
        for x, y in batches:
            loss = F.cross_entropy(model(x).float() if x.dtype != torch.float64 else model(x), y, reduction="sum")
            taken = dict(_taken(reads))
            flat = [h for each in taken.values() for h in each]
            gradients = iter(torch.autograd.grad(loss, flat))
            n_images += len(y)
            for axis, each in taken.items():
                change = [_by_position((next(gradients) * h).detach(), model, axis).double() for h in each]
                if absolute:
                    value = torch.stack([c.abs().sum((0, 2)) for c in change]).sum(0)
                else:
                    value = torch.stack([c.sum(2) for c in change]).sum(0).abs().sum(0)
                totals[axis] = totals[axis] + value if axis in totals else value
    if absolute:
        return totals
    means = {axis: total / n_images for axis, total in totals.items()}
    return {axis: mean / mean.norm().clamp(min=torch.finfo(mean.dtype).tiny) for axis, mean in means.items()}


def _by_position(value: Tensor, model: Network, axis: str) -> Tensor:
    """What is read of an axis as [batch, channels, positions]: a dense layer reads channels with all their pixels."""
    return value.reshape(len(value), model.architecture.axis_sizes()[axis], -1)


@contextmanager
def _watched(model: Network, axes: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """What each reader of each axis reads, from pass to pass, each a node of the graph of its own."""
    reads: dict[str, list[Tensor]] = {axis: [] for axis in axes}
    was_training = model.training

    def watch(axis: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x, *others = inputs
            # a node that this reader alone has: what the residual connection carries on is no gradient of its own
            read = x.view_as(x) if x.requires_grad else x.detach().requires_grad_(torch.is_grad_enabled())
            reads[axis].append(read)
            return (read, *others)

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(watch(axis))  # type: ignore[arg-type]
        for axis in axes
        for name in merging.readers(model, axis)
    ]
    try:
        model.eval()
        yield reads
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()


def _taken(reads: dict[str, list[Tensor]]) -> list[tuple[str, list[Tensor]]]:
    """What was read in the last pass; forgotten here."""
    taken = [(axis, list(each)) for axis, each in reads.items()]
    for each in reads.values():
        each.clear()
    return taken
