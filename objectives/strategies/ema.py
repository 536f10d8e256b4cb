"""Exponential moving average of the weights: what is evaluated and exported is smoother than what is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState

SHADOW = "ema"  # name of the shadow that holds the averages


@dataclass(frozen=True)
class Ema(Strategy):
    """Deploys the average of parameters and batch-norm statistics (Polyak & Juditsky 1992, exponential form).

    `horizon` is stated in epochs, so that it means the same at every batch size. It never reaches back further than a
    quarter of the epochs done since the training last began, so that initial weights are forgotten by the first
    evaluation after that.

    Raises:
        ValueError: a negative horizon.
    """

    horizon: float = 1.0  # epochs after which a weight counts 1/e; 0 deploys the weights themselves
    # Share of the newest weights in the averages, per step: a scalar that lives on the device. It changes every epoch,
    # and in place, so that a compiled or captured step goes on.
    rate: Tensor | None = learned(None)

    def __post_init__(self) -> None:
        if not self.horizon >= 0:
            raise ValueError(f"the horizon of an EMA is {self.horizon!r} epochs: it must not be negative")

    def describe(self) -> str:
        return f"EMA over {self.horizon:.2g} epochs"

    def idle(self, outline: Outline) -> str | None:
        return "its horizon is 0" if self.horizon == 0 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.horizon == 0:
            return state
        from objectives.networks.trainee import Shadow

        averages = {name: tensor.clone() for name, tensor in _averaged(state.trainee.model).items()}
        return replace(state, trainee=state.trainee.with_shadow(SHADOW, Shadow(averages, "weight")))

    def bound(self, state: TrainState) -> Strategy:
        if self.horizon == 0:
            return self
        horizon = min(self.horizon, (state.epoch - state.schedule.begins + 1) / 4)
        rate = 1 / (1 + horizon * max(1, len(state.data.y) // state.pipeline.batch_size))
        if self.rate is None:
            import torch

            return self.having_learned(rate=torch.tensor(rate, device=state.data.x.device))
        self.rate.fill_(rate)
        return self

    def after_step(self, trainee: Trainee, step: Step) -> None:
        if self.horizon == 0:
            return
        import torch

        assert self.rate is not None

        averages = list(trainee.shadows[SHADOW].tensors.values())
        with torch.no_grad():
            difference = torch._foreach_sub(list(_averaged(trainee.model).values()), averages)
            torch._foreach_mul_(difference, step.taken * self.rate)
            torch._foreach_add_(averages, difference)

    def deployed(self, model: Network, state: TrainState) -> Network:
        if self.horizon == 0:
            return model
        from copy import deepcopy

        averaged = deepcopy(model)
        averaged.load_state_dict({**averaged.state_dict(), **state.trainee.shadows[SHADOW].tensors})
        return averaged


def _averaged(model: Network) -> dict[str, Tensor]:
    """Every parameter and every floating-point buffer, by name, detached."""
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
