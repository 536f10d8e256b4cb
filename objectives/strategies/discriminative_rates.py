"""Discriminative learning rates: the further a layer is from the head, the more slowly it learns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.networks.plain import sections
from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.state import TrainState


@dataclass(frozen=True)
class DiscriminativeRates(Strategy):
    """Lets all but the head learn at `body` of the learning rate, and each stage at `decay` of the rate of the next.

    Howard & Ruder 2018 (arXiv 1801.06146, section 3.2), with a decay of 1 / 2.6 and without a rate of the head's own.
    The stem counts as a stage, of a plain network each layer does. Weight decay is left as it is, so that it pulls at a
    slow layer slowly. PruneTrain shrinks all channels at the rate of the head: its strength says what of them is left.

    Put it after Muon, whose convolutions then have rates by depth as well.

    Raises:
        ValueError: a parameter outside its range.
    """

    body: float = 0.3  # of the learning rate: what the last stage learns at, in (0, 1]
    decay: float = 0.5  # of the rate of the next stage, in (0, 1]; with a body of 1, 1 changes nothing

    def __post_init__(self) -> None:
        if not 0 < self.body <= 1 or not 0 < self.decay <= 1:
            raise ValueError(f"{self!r}: body and decay must lie in (0, 1]")

    def describe(self) -> str:
        return f"rates x{self.body:.2g} behind the head, x{self.decay:.2g} a stage"

    def idle(self, outline: Outline) -> str | None:
        return "all layers learn at the same rate" if self.body == self.decay == 1 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.body == self.decay == 1:
            return state
        from objectives.networks import surgery

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        names = {parameter: name for name, parameter in trainee.model.named_parameters()}
        groups = trainee.optimizer.param_groups
        for group in tuple(groups):
            for depth, section in enumerate(reversed(sections(trainee.model.architecture))):
                chosen = [parameter for parameter in group["params"] if names[parameter].startswith(f"{section}.")]
                if not chosen:
                    continue
                moved = set(chosen)
                group["params"] = [parameter for parameter in group["params"] if parameter not in moved]
                factor = self.body * self.decay**depth
                slower = {"lr": group["lr"] * factor, "lr_factor": group.get("lr_factor", 1.0) * factor}
                trainee.optimizer.add_param_group({**group, **slower, "params": chosen})
        groups[:] = [group for group in groups if group["params"]]
        return replace(state, trainee=trainee)
