"""Frozen stages: the first parts of a network keep what they have learnt, and the backward pass ends behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from objectives.networks.plain import sections
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.freeze import Freeze
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.whitening import Whitening

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.trainee import Trainee
    from objectives.state import TrainState


@dataclass(frozen=True)
class FrozenStages(Strategy):
    """Does not train the first `parts` of the network that a run starts from: the stem, then stage by stage.

    Of a plain network they are its layers; where it has fewer, all but the head. Below `until` = 1 they thaw one by one
    from the head down, at even intervals of which the last ends there (gradual unfreezing, Howard & Ruder 2018, arXiv
    1801.06146, section 3.3, who thaw one more in each epoch).

    What is frozen computes as in evaluation. Its batch norms keep the statistics that they have, or are `adapted`: they
    get those of the training images, of one pass that is charged (Li et al. 2016, arXiv 1603.04779). So it makes the
    same of an image in every epoch, and where images are not cropped or blanked that is computed once: see
    `device.features`. What growth adds to a frozen part trains, and all behind it is computed as without features.

    Put it after strategies that set weights, and after PruneTrain, which is calibrated on what trains.

    Raises:
        ValueError: a parameter outside its range.
    """

    # Freeze does the opposite; the others begin anew, or with weights that no start has left to them.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (Freeze, IdentityInit, LotteryTicket, MorphNet, Whitening)

    parts: int = 1  # frozen at the start, the stem counted; 0 changes nothing
    until: float = 1.0  # share of the run after which all train, in (0, 1]; 1: what is frozen stays so
    statistics: Literal["kept", "adapted"] = "kept"  # of the batch norms in it

    def __post_init__(self) -> None:
        if self.parts < 0 or not 0 < self.until <= 1:
            raise ValueError(f"{self!r}: parts from 0, until in (0, 1]")
        if self.statistics not in ("kept", "adapted"):
            raise ValueError(f"{self!r}: statistics are kept or adapted")

    def refuses(self, other: Strategy) -> bool:
        return super().refuses(other) or other.emulated  # what computes as in evaluation is not emulated

    def describe(self) -> str:
        until = "" if self.until == 1 else f", thawed by {self.until:.0%} of the run"
        adapted = " with adapted statistics" if self.statistics == "adapted" else ""
        return f"{self.parts} frozen {'part' if self.parts == 1 else 'parts'}{adapted}{until}"

    def idle(self, outline: Outline) -> str | None:
        return "it freezes nothing" if self.parts == 0 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.parts == 0:
            return state
        from objectives.strategies.methods import averaging

        n = self._n_frozen(state, 0)
        trainee = _frozen(state.trainee, n)
        model = trainee.model
        if self.statistics == "adapted" and model.architecture.fewest_values(int(state.data.x.shape[-1])) is not None:
            n_parts, model.still = model.fixed(), 0
            averaging.refresh_statistics(model, state, len(state.data.y), n_parts)
            model.still = n
        model.train(state.trainee.model.training)
        return replace(state, trainee=trainee)

    def between_epochs(self, state: TrainState) -> TrainState:
        model, now = state.trainee.model, self._n_frozen(state, state.epoch)
        if now >= model.still:
            return state
        thawed = [name.replace("s.", " ") for name in sections(model.architecture)[now : model.still]]
        words = f"{', '.join(reversed(thawed))} {'trains' if len(thawed) == 1 else 'train'} from here on"
        return replace(state, trainee=_frozen(state.trainee, now)).with_event(words)

    def _n_frozen(self, state: TrainState, epoch: int) -> int:
        """Parts that are frozen in the epoch that begins after so many."""
        n = min(self.parts, len(sections(state.trainee.model.architecture)))
        thawed = int(epoch / state.pipeline.epochs / self.until * n + 1e-9) if self.until < 1 else 0
        return max(0, n - thawed)


def _frozen(trainee: Trainee, n: int) -> Trainee:
    """The trainee of which the first `n` parts are frozen; those that were and are no more train, and no others."""
    from objectives.networks import surgery

    copy = surgery.reindex(trainee, {})  # the old trainee stays as it is
    model = copy.model
    found, thaws = tuple(f"{name}." for name in sections(model.architecture)), model.still > 0
    changed = found[n : model.still] if thaws else found[:n]
    for name, parameter in model.named_parameters():
        if name.startswith(changed):
            parameter.requires_grad_(thaws)
    model.still = n
    model.train(model.training)
    return copy
