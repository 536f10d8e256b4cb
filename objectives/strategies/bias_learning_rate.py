"""A learning rate of their own for the biases of batch norms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState


@dataclass(frozen=True)
class BiasLearningRate(Strategy):
    """Lets the biases of norms learn `factor` times as fast as the rest.

    After Page 2018 ("How to train your ResNet") and Jordan 2024 (airbench), who use 64 in short runs. Their weight
    decay is divided by the factor, so that learning rate times weight decay, which sets how fast a parameter decays,
    stays as it was.

    Raises:
        ValueError: a factor outside its range.
    """

    factor: float = 64.0  # of the learning rate, 1 to 1024; 1 changes nothing

    def __post_init__(self) -> None:
        if not 1 <= self.factor <= 1024:
            raise ValueError(f"the factor of the bias learning rate is {self.factor!r}: it must lie in [1, 1024]")

    def describe(self) -> str:
        return f"biases x{self.factor:.3g}"

    def idle(self, outline: Outline) -> str | None:
        if self.factor == 1:
            return "its factor is 1"
        has_norms = outline.full.fewest_values(outline.size) is not None
        return None if has_norms else "the network has no batch norm"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.factor == 1:
            return state
        from objectives.networks import surgery
        from objectives.networks.norms.slots import Norm

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        biases = {layer.bias for layer in trainee.model.modules() if isinstance(layer, Norm)}
        for group in tuple(trainee.optimizer.param_groups):
            chosen = [parameter for parameter in group["params"] if parameter in biases]
            if not chosen:
                continue
            group["params"] = [parameter for parameter in group["params"] if parameter not in biases]
            faster = {
                "params": chosen,
                "lr": group["lr"] * self.factor,
                "lr_factor": group.get("lr_factor", 1.0) * self.factor,
                "weight_decay": group["weight_decay"] / self.factor,
            }
            trainee.optimizer.add_param_group({**group, **faster})
        return replace(state, trainee=trainee)
