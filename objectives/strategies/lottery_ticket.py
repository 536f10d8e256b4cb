"""Lottery ticket: train, prune the smallest weights, go back and train again. A control: it saves no time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, ClassVar

from objectives.strategies.base import Outline, Strategy
from objectives.strategies.freeze import Freeze
from objectives.strategies.muon import Muon
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.swa import Swa

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState

WEIGHTS = "lottery_weights"  # name of the shadow that holds the weights and statistics that a level goes back to
MASKS = "lottery_masks"  # name of the shadow that is 0 where a weight is pruned and 1 where it is not


@dataclass(frozen=True)
class LotteryTicket(Strategy):
    """Iterative magnitude pruning (Frankle & Carbin, ICLR 2019), with rewinding (Frankle et al., ICML 2020).

    At the end of each training but the last, a share of the weights that are left is pruned: the smallest in magnitude
    of all convolutions and the head together. All else goes back to what it was after `rewind` epochs, statistics of
    batch norms included; momentum is 0, averages begin anew, and the schedule goes on from that epoch. The run holds
    all trainings, as equal as whole epochs allow.

    Zeros strewn over dense weights make nothing faster: the FLOPs of a training and of an inference stay those of the
    dense network. What is frozen is neither pruned nor taken back.

    Put it after strategies that set initial weights.

    Raises:
        ValueError: a parameter outside its range.
    """

    # There is no way back from another size, from an end that is not known, or to layers that are no longer trained;
    # averages over a share of the run would mix trainings. An orthogonal step moves what is pruned as well, and to keep
    # the norm of both takes from what is left: after 500 steps one of six convolutions was all 0 (digits).
    excludes: ClassVar[tuple[type[Strategy], ...]] = (PruneTrain, Net2Net, Plateau, Freeze, Swa, Muon)

    levels: int = 1  # trainings after the first one; 0 changes nothing
    share: float = 0.2  # of the weights that are left, pruned before each level, in (0, 1)
    rewind: int = 0  # epochs of the first training that no level repeats; 0: all begin with the initial weights

    def __post_init__(self) -> None:
        if self.levels < 0 or not 0 < self.share < 1 or self.rewind < 0:
            raise ValueError(f"{self!r}: levels and rewind from 0, share in (0, 1)")

    def describe(self) -> str:
        times = "once" if self.levels == 1 else f"{self.levels} times"
        return f"lottery ticket: {self.share:.0%} pruned {times}, back to epoch {self.rewind}"

    def idle(self, outline: Outline) -> str | None:
        if self.levels == 0:
            return "it has no levels"
        if self._ends(outline.epochs):
            return None
        n = self.levels + 1
        return f"{n} trainings of which all but the first begin at epoch {self.rewind} take {self.rewind + n} epochs"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        ends = self._ends(state.pipeline.epochs)
        if not ends:
            return state
        state = replace(state, schedule=replace(state.schedule, epochs=ends[0]))
        return replace(state, trainee=_keeping(state.trainee)) if self.rewind == 0 else state

    def between_epochs(self, state: TrainState) -> TrainState:
        ends = self._ends(state.pipeline.epochs)
        if ends and state.epoch == self.rewind:
            kept = replace(state, trainee=_keeping(state.trainee))
            return kept.with_event(f"kept the weights of epoch {self.rewind}")
        if state.epoch not in ends[:-1]:
            return state
        from objectives.networks import surgery

        level = ends.index(state.epoch) + 1
        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        trainee, pruned = _pruned(trainee, (1 - self.share) ** level)
        _take_back_(trainee)
        schedule = replace(state.schedule, begins=state.epoch - self.rewind, epochs=ends[level])
        event = f"level {level}: {pruned:.0%} of weights pruned, back to epoch {self.rewind}"
        return replace(state, trainee=trainee, schedule=schedule).with_event(event)

    def settled(self, state: TrainState) -> bool:
        """Only in the last training: what those before it learned is taken back."""
        ends = self._ends(state.pipeline.epochs)
        return not ends or state.epoch > ends[-2]

    def after_step(self, trainee: Trainee, step: Step) -> None:
        if MASKS not in trainee.shadows:
            return
        import torch

        # a step that loss scaling skipped left the weights as they were, masked
        parameters, masks = dict(trainee.model.named_parameters()), trainee.shadows[MASKS].tensors
        torch._foreach_mul_([parameters[name].detach() for name in masks], list(masks.values()))

    def deployed(self, model: Network, state: TrainState) -> Network:
        if MASKS not in state.trainee.shadows or model is state.trainee.model:
            return model
        from copy import deepcopy

        masked = deepcopy(model)  # averages of strategies before this one saw weights that were not yet masked
        for name, mask in state.trainee.shadows[MASKS].tensors.items():
            masked.get_parameter(name).detach().mul_(mask)
        return masked

    def _ends(self, epochs: int) -> tuple[int, ...]:
        """The epochs at which the trainings end; none where the run is too short for them, or it has no levels."""
        left, n = epochs - self.rewind, self.levels + 1
        if n == 1 or left < n:
            return ()
        return tuple(self.rewind + left * number // n for number in range(1, n + 1))


def _keeping(trainee: Trainee) -> Trainee:
    """The trainee with a copy of its weights and statistics to go back to."""
    from objectives.networks.trainee import Shadow

    tensors = {name: t.clone() for name, t in trainee.model.state_dict().items() if t.is_floating_point()}
    return trainee.with_shadow(WEIGHTS, Shadow(tensors, "weight"))


def _pruned(trainee: Trainee, left: float) -> tuple[Trainee, float]:
    """The trainee whose masks leave a share of the trained weights, and the share that they prune."""
    import torch

    from objectives.networks.trainee import Shadow

    weights = {name: p for name, p in trainee.model.named_parameters() if p.dim() > 1}
    known = trainee.shadows[MASKS].tensors if MASKS in trainee.shadows else {}
    masks = {name: known.get(name, torch.ones_like(p, requires_grad=False)).clone() for name, p in weights.items()}
    trained = [name for name, p in weights.items() if p.requires_grad]
    # what is pruned comes first and stays so
    sizes = [weights[name].detach().abs().masked_fill(masks[name] == 0, -inf).flatten() for name in trained]
    order = torch.cat(sizes).argsort(stable=True)
    n_pruned = len(order) - round(left * len(order))
    kept = torch.ones(len(order), device=order.device).index_fill_(0, order[:n_pruned], 0.0)
    for name, part in zip(trained, torch.split(kept, [len(size) for size in sizes]), strict=True):
        masks[name].mul_(part.view(masks[name].shape))
    n_left = sum(int(masks[name].count_nonzero()) for name in trained)
    return trainee.with_shadow(MASKS, Shadow(masks, "mask")), 1 - n_left / len(order)


def _take_back_(trainee: Trainee) -> None:
    """Gives the network the weights that were kept, masked, and all that follows it a new beginning. In place."""
    from torch import Tensor

    now = trainee.model.state_dict()
    frozen = {name for name, parameter in trainee.model.named_parameters() if not parameter.requires_grad}
    for name, kept in trainee.shadows[WEIGHTS].tensors.items():
        if name not in frozen:
            now[name].copy_(kept)
    for name, mask in trainee.shadows[MASKS].tensors.items():
        now[name].mul_(mask)
    for key, shadow in trainee.shadows.items():
        if shadow.travel == "weight" and key != WEIGHTS:
            for name, average in shadow.tensors.items():  # a counter too: it bears the name of a buffer that is 0
                average.copy_(now[name])
    for memory in trainee.optimizer.state.values():
        for value in memory.values():
            if isinstance(value, Tensor):
                value.zero_()
