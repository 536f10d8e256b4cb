"""A network that has learned a little: what runs that fine-tune start from."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.networks.network import Network
from objectives.state import TrainState
from objectives.strategies.base import Strategy
from objectives.train import after_boundary, begun, bound
from tests.objectives.strategies.cases import RESIDUAL, Ground, begin, first_batch, stepped


def started(digits: Dataset, *strategies: Strategy, ground: Ground = RESIDUAL, **settings: object) -> TrainState:
    """The bound state in which strategies begin with a network that was trained for a few steps."""
    state = stepped(begin(ground.using(**settings), digits, ground.task), digits, 5)
    state = replace(state, pipeline=replace(state.pipeline, strategies=strategies))
    return bound(begun(state, *first_batch(digits)))


def boundary(state: TrainState, *epochs: int) -> TrainState:
    """The state after the boundaries that follow some epochs."""
    for epoch in epochs:
        state = bound(after_boundary(replace(state, epoch=epoch, events=())))
    return state


def frozen(model: Network) -> set[str]:
    """The names of the parameters that do not train."""
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def within(model: Network, *prefixes: str) -> dict[str, Tensor]:
    """Copies of the parameters and buffers of some parts, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(prefixes)}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@torch.no_grad()
def put_out(model: Network, n_parts: int, x: Tensor) -> Tensor:
    """What the first parts of a network make of images."""
    for _, compute in model.parts()[:n_parts]:
        x = compute(x)
    return x
