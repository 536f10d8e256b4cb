"""Channels that compute alike become one, which is read with the sum of their weights (Srinivas & Babu 2015)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from objectives.networks.network import Network
from objectives.networks.norms.slots import Affine


def readers(model: Network, axis: str) -> list[str]:
    """Names of the layers that read an axis, in the network's order."""
    found = [name for name, ends in model.axes().items() if len(ends) > 1 and ends[1] == axis]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in found))


def producing(model: Network, axis: str) -> list[Tensor]:
    """The weights of the layers that produce an axis, each [channels, ...]."""
    return [model.get_parameter(name) for name, ends in model.axes().items() if len(ends) > 1 and ends[0] == axis]


def reading(model: Network, axis: str) -> list[Tensor]:
    """The weights of the layers that read an axis, each [channels, ...]."""
    labels = model.axes()
    found = [model.get_parameter(name) for name, ends in labels.items() if len(ends) > 1 and ends[1] == axis]
    return [weight.transpose(0, 1) for weight in found]


def saliencies(model: Network, axis: str) -> Tensor:
    """What removing each channel of an axis changes at least, its weights given to the channel most like it.

    min over i of s_ij = <a_j^2> |W_i - W_j|^2: [channels] float64. W: the weights and the bias that produce a channel,
    its batch norm folded in; a_j: the weights that read it, squared and averaged.
    """
    return _changes(_distances(model, axis), _read_squared(_outgoing(model, axis))).amin(0)


@torch.no_grad()
def merge(model: Network, axis: str, n: int) -> tuple[Network, Tensor]:
    """(a copy of the network in which channels of an axis were merged until `n` are left, those [n] in their order).

    One pair after the other: where s_ij is smallest, j goes and what reads it is added to what reads i. The function is
    exactly the same where they computed the same. Only the channels named are of use: see `surgery.reindex`.
    """
    away, read = _distances(model, axis), _outgoing(model, axis)
    changes = _changes(away, _read_squared(read))
    left = torch.ones(len(read), dtype=torch.bool, device=read.device)
    pairs = []
    for _ in range(len(read) - n):
        place = int(changes.argmin())
        i, j = divmod(place, len(read))
        pairs.append((i, j))
        read[i] += read[j]
        left[j] = False
        changes[:, i] = away[:, i] * read[i].square().mean()
        changes[i, i] = changes[~left] = changes[:, ~left] = torch.inf
    model = deepcopy(model)
    for weight in reading(model, axis):
        for i, j in pairs:
            weight[i] += weight[j]
    return model, left.nonzero().flatten()


def _changes(away: Tensor, squared: Tensor) -> Tensor:
    """s: [kept, removed], infinite on the diagonal."""
    return (away * squared[None, :]).fill_diagonal_(torch.inf)


def _outgoing(model: Network, axis: str) -> Tensor:
    """The weights that read each channel, [channels, weights] float64."""
    return torch.cat([weight.detach().double().flatten(1) for weight in reading(model, axis)], 1)


def _read_squared(outgoing: Tensor) -> Tensor:
    return outgoing.square().mean(1)


@torch.no_grad()
def _distances(model: Network, axis: str) -> Tensor:
    """|W_i - W_j|^2 of every pair of channels, [channels, channels] float64."""
    rows = torch.cat(_folded(model, axis), 1)
    return torch.stack([(rows - row).square().sum(1) for row in rows])


def _folded(model: Network, axis: str) -> list[Tensor]:
    """What produces each channel, [channels, ...] float64 each: weights and biases, with the norm behind them folded.

    A norm belongs to the layer before it in the order of `axes`.
    """
    found: list[Tensor] = []
    weight: Tensor | None = None
    bias: Tensor | None = None
    names = dict.fromkeys(name.rpartition(".")[0] for name, ends in model.axes().items() if ends[:1] == (axis,))

    def flush() -> None:
        if weight is not None:
            found.append(weight)
            found.append((torch.zeros_like(weight[:, 0]) if bias is None else bias)[:, None])

    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert weight is not None, name
            mean, variance = module.running_mean, module.running_var
            assert mean is not None and variance is not None, name  # noqa: PT018
            scale = module.weight.double() / (variance.double() + module.eps).sqrt()
            shift = module.bias.double() - mean.double() * scale
            bias = shift if bias is None else bias * scale + shift
            weight = weight * scale[:, None]
            continue
        if isinstance(module, Affine):
            assert weight is not None, name
            scale = module.weight.double()
            weight, bias = weight * scale[:, None], module.bias.double()
            continue
        flush()
        weight = bias = None
        own = dict(module.named_parameters(recurse=False))
        if "weight" in own:
            weight = own["weight"].double().flatten(1)
            bias = own["bias"].double() if own.get("bias") is not None else None
        else:  # a constant that is added to every channel
            found += [own[key].double()[:, None] for key in own if model.axes()[f"{name}.{key}"] == (axis,)]
    flush()
    return found
