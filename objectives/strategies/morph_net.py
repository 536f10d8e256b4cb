"""MorphNet (Gordon et al., CVPR 2018, arXiv 1711.06798): widths are learned, scaled to a budget, and trained anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.freeze import Freeze
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.swa import Swa
from objectives.strategies.whitening import Whitening

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.plain import AnyArchitecture
    from objectives.networks.trainee import Trainee
    from objectives.state import TrainState
    from objectives.strategies.methods.morphing import Cost, Of


@dataclass(frozen=True)
class MorphNet(Strategy):
    """Shrinks a network by what its channels cost, widens what is left to a budget, and trains the result.

    In each iteration the loss has `strength` / F(start) times G added, with F the cost of the network and G its
    bilinear relaxation over the scales of the batch norms (see `methods.morphing`). A channel is alive where a scale of
    it exceeds `threshold`; the channels of a residual stage share one, the largest. Then all alive widths are
    multiplied by one factor, omega, the largest under which the cost stays within `budget`. Blocks can vanish, none can
    appear. While widths are learned the learning rate rises to its peak, anew in each iteration, and stays there.

    In the end the network is trained from scratch, as published, or goes on with the channels that it kept, beside new
    ones as Net2Net's `fresh`; between iterations it always goes on. All of that is one run of `pipeline.epochs`: what
    the search for widths costs is charged, and only what is left of the run trains its result.

    Raises:
        ValueError: a parameter outside its range.
    """

    # Those that prune, grow or end a run themselves, and those whose beginning a network from scratch would not have.
    needs_blocks: ClassVar[bool] = True
    excludes: ClassVar[tuple[type[Strategy], ...]] = (
        *(PruneTrain, Net2Net, LowRank, LotteryTicket, Plateau, Swa),
        *(Freeze, Whitening, IdentityInit),
    )

    strength: float = 1.0  # of the penalty, which begins at up to twice that; the loss begins at the log of the classes
    cost: Of = "flops"  # or the parameters: `size`
    budget: float = 1.0  # share of the cost of the network that it starts with
    threshold: float = 1e-2  # of a scale, in (0, 1)
    iterations: int = 1  # times that widths are learned; 0 changes nothing
    learn: float = 0.4  # share of the run that this takes, in (0, 1)
    then: Literal["retrain", "continue"] = "retrain"
    learns: bool = learned(False)  # widths, in this segment
    table: Cost | None = learned(None)  # of the network in this segment
    priced: AnyArchitecture | None = learned(None)  # what the table is of
    names: tuple[tuple[str, ...], ...] = learned(())  # of the scales on each axis
    scale: float = learned(0.0)  # lambda
    allowed: float = learned(0.0)  # cost: the budget

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1000 or not 0 < self.budget <= 100 or not 0 < self.threshold < 1:
            raise ValueError(f"{self!r}: strength in [0, 1000], budget in (0, 100], threshold in (0, 1)")
        if not 0 <= self.iterations <= 10 or not 0 < self.learn < 1:
            raise ValueError(f"{self!r}: iterations in 0 to 10, learn in (0, 1)")
        if self.cost not in ("flops", "size") or self.then not in ("retrain", "continue"):
            raise ValueError(f"{self!r}: cost is flops or size, then is retrain or continue")

    def describe(self) -> str:
        times = "" if self.iterations == 1 else f" in {self.iterations} iterations"
        ends = "then from scratch" if self.then == "retrain" else "then goes on"
        budget = f"{self.budget:.0%} of the {'FLOPs' if self.cost == 'flops' else 'parameters'}"
        return f"MorphNet {self.strength:.2g} to {budget} over {self.learn:.0%} of the run{times}, {ends}"

    def idle(self, outline: Outline) -> str | None:
        if self.iterations == 0:
            return "it has no iterations"
        return None if outline.epochs > self.iterations else "the run has too few epochs for its iterations"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.iterations == 0 or state.ends <= self.iterations:
            return state
        from objectives.strategies.methods import morphing

        architecture = residual(state.trainee.model.architecture)
        whole = morphing.cost_of(architecture, int(state.data.x.shape[-1]), self.cost).at(architecture.axis_sizes())
        me = self.having_learned(learns=True, scale=self.strength / whole, allowed=self.budget * whole)
        schedule = replace(state.schedule, epochs=self._ends(state)[0], held=True)
        return replace(state.with_strategy(self, me), schedule=schedule)

    def bound(self, state: TrainState) -> Strategy:
        model = state.trainee.model
        if not self.learns or self.priced == model.architecture:
            return self
        from objectives.strategies.methods import morphing

        size, device = int(state.data.x.shape[-1]), state.data.x.device
        table = morphing.cost_of(residual(model.architecture), size, self.cost, device)
        return self.having_learned(table=table, priced=model.architecture, names=morphing.gammas(model, table.axes))

    def penalty(self, trainee: Trainee) -> Tensor | None:
        if not self.learns or self.table is None or self.scale == 0:
            return None
        from objectives.strategies.methods import morphing

        found = morphing.strengths(trainee.model, self.names)
        return self.scale * morphing.regulariser(found, self.table, self.threshold)

    def between_epochs(self, state: TrainState) -> TrainState:
        if not self.learns or state.epoch not in self._ends(state):
            return state
        return self._morphed(state, self._ends(state).index(state.epoch))

    def settled(self, state: TrainState) -> bool:
        idles = self.iterations == 0 or state.pipeline.epochs <= self.iterations
        return idles or state.epoch > self._ends(state)[-1]

    def _ends(self, state: TrainState) -> list[int]:
        """The epochs after which widths are read, ascending: each iteration and the rest of the run have one at least.

        Of the epochs of the run, even where its end has moved.
        """
        n, last = self.iterations, state.pipeline.epochs - 1
        wanted = [round(self.learn * state.pipeline.epochs * (i + 1) / n) for i in range(n)]
        return [min(max(end, i + 1), last - (n - 1 - i)) for i, end in enumerate(wanted)]

    def _morphed(self, state: TrainState, iteration: int) -> TrainState:
        """The state after the widths were read, with the network that they call for."""
        from objectives.networks import surgery
        from objectives.strategies.methods import morphing

        me = self.bound(state)  # another strategy may have changed the network at this very boundary
        assert isinstance(me, MorphNet)
        assert me.table is not None
        old = state.trainee
        before = residual(old.model.architecture)
        found = dict(zip(me.table.axes, morphing.strengths(old.model, me.names), strict=True))
        alive = {axis: int((strength > self.threshold).sum()) for axis, strength in found.items()}
        alive |= {axis: max(1, n) for axis, n in alive.items() if "." not in axis}  # a stage has one at least
        omega, sizes = morphing.widest(alive, me.table, self.allowed)
        after = morphing.resized(before, sizes)
        is_last = iteration == self.iterations - 1
        if is_last and self.then == "retrain":
            trainee, how = surgery.begun_anew(old, after), "from scratch"
        else:
            trainee, how = _kept(old, found, alive, sizes, state.epoch), "with the weights that it kept"
        state = replace(state, trainee=trainee)
        until = state.pipeline.epochs if is_last else self._ends(state)[iteration + 1]
        schedule = replace(state.schedule, begins=float(state.epoch), epochs=until, held=not is_last)
        share = sum(alive.values()) / sum(before.axis_sizes().values())
        state = replace(state.with_strategy(self, self.having_learned(learns=not is_last)), schedule=schedule)
        words = f"morphed {before.describe()} to {trainee.model.architecture.describe()}, {how}"
        return state.with_event(f"{words}: {share:.0%} of the channels were alive, omega {omega:.2f}")


def _kept(
    trainee: Trainee, found: dict[str, Tensor], alive: dict[str, int], sizes: dict[str, int], epoch: int
) -> Trainee:
    """The trainee with the strongest of the alive channels of each axis, and new ones where there shall be more."""
    import torch

    from objectives.networks import surgery
    from objectives.networks.architecture import interior_axis
    from objectives.networks.surgery import NEW

    index = {}
    for axis, n in sizes.items():
        n_kept = max(1, min(n, alive[axis]))
        order = found[axis].detach().argsort(descending=True, stable=True)[:n_kept].sort().values
        index[axis] = torch.cat([order, order.new_full((max(0, n - len(order)),), NEW)])
    kept = surgery.reindex(trainee, index, epoch)
    for s, stage in enumerate(residual(kept.model.architecture).stages):
        for b in reversed(range(len(stage.interiors))):
            if sizes.get(interior_axis(s, b)) == 0:
                with torch.no_grad():
                    for name in ("conv2.weight", "bn2.running_mean"):
                        kept.model.state_dict()[f"stages.{s}.{b}.{name}"].zero_()
                kept = surgery.drop_block(kept, s, b)
    return kept
