"""PruneTrain (Lym et al., SC'19, arXiv 1901.09290): channels that a group lasso kills are removed while training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Literal

from objectives.strategies.base import Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.networks.plain import AnyArchitecture
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState
    from objectives.strategies.methods.flat_lasso import FlatGroups
    from objectives.strategies.methods.lasso import Exempt

MAX_BATCH_GROWTH = 2.0  # per reconfiguration
MAX_BATCH = 4096  # samples
LEAST_KAPPA = 2.5  # 2 of 28 runs below it removed anything (1 and 2 %), 11 of 12 above did (benchmarks/shapes.md)
# At which half of the channels die, by forecast: the same for all networks. Digits lose about 0.7 of what it says and
# Fashion-MNIST 1.3 times as much, in the order that it says (12 runs, benchmarks/shapes.md).
HALF_KAPPA = 12.0


def dying_share(kappa: float) -> float:
    """The share of its channels that a network is forecast to lose under `kappa`, in [0, 1); `kappa_for` inverts it."""
    odds = (kappa / HALF_KAPPA) ** 2
    return odds / (1 + odds)


def kappa_for(share: float) -> float:
    """The kappa under which a network is forecast to lose a share of its channels, in [0, 1)."""
    return HALF_KAPPA * sqrt(share / (1 - share))


@dataclass(frozen=True)
class PruneTrain(Strategy):
    """Adds a group lasso over channels to the loss and rebuilds the network without its dead channels every few epochs.

    Its strength comes from the lasso penalty ratio `lpr` on the first batch with the initial weights and stays (LPR).
    A network that grows is another one: its strength is that of a network of its size with initial weights, so that
    the ratio means the same whatever a run starts with. Channels are removed by channel union: those that are dead for
    all producers that train and all consumers of their axis; a branch whose first or last convolution is dead is
    removed whole. Weights, statistics and momentum are sliced.

    Two departures: `prox` replaces the subgradient by a proximal step scaled by 1 / (1 - momentum), which reaches exact
    zeros where the subgradient only oscillates around them; and the threshold compares magnitudes (the published code
    compares signed weights).

    Raises:
        ValueError: a parameter outside its range.
    """

    lpr: float = 0.35  # share of the penalty in the initial loss, in [0, 1); 0 changes nothing
    interval: int = 2  # epochs between two reconfigurations; the last boundary of the run is always one
    mode: Literal["prox", "subgrad"] = "prox"
    # Above 0, lambda comes from it, and `lpr` is only what it may not exceed: by how many of their medians norms shrink
    # over the run if nothing else moves them. A ratio that prunes a long run at a high rate does nothing in a short
    # one; this means the same. Why a limit: 40 steps at a kappa of 4 pruned 42 % and learned nothing (digits).
    kappa: float = 0.0
    threshold: float = 1e-4  # a group whose weights are all smaller in magnitude is dead
    round_to: int = 1  # channels; widths are multiples of it, and a reconfiguration that changes none is left out
    stop: float = 1.0  # share of the run after which nothing is penalised any more
    grace: int = 2  # epochs in which channels born by growth are not penalised
    adapt_batch: bool = False  # the batch fills the memory that the full network's activations would, lr alike
    strength: float = learned(0.0)  # lambda
    active: bool = learned(True)  # in this segment
    exempt: Exempt | None = learned(None)  # channels in their grace epochs; brought up to date in place
    flat: FlatGroups | None = learned(None)  # on a GPU: the groups of this segment's network as one vector
    calibrated_at: float = learned(0.0)  # epoch of the last growth that lambda knows of
    calibrated_for: AnyArchitecture | None = learned(None)  # what lambda is meant for
    has_pruned: bool = learned(False)
    filled: float = learned(1.0)  # the batch in force, over what it would be if no memory had become free

    def __post_init__(self) -> None:
        if not 0 <= self.lpr < 1 or self.interval < 1 or self.round_to < 1 or self.grace < 0:
            raise ValueError(f"{self!r}: lpr must lie in [0, 1), interval and round_to from 1, grace from 0")
        if not 0 <= self.kappa < 1000:
            raise ValueError(f"{self!r}: kappa must lie in [0, 1000)")
        if self.mode not in ("prox", "subgrad") or not 0 < self.threshold < 1 or not 0 <= self.stop <= 1:
            raise ValueError(f"{self!r}: mode is prox or subgrad, threshold lies in (0, 1), stop in [0, 1]")

    def describe(self) -> str:
        rounded = f" round {self.round_to}" if self.round_to > 1 else ""
        interval = "every epoch" if self.interval == 1 else f"every {self.interval} epochs"
        strength = f"kappa {self.kappa:.2g}" if self.kappa > 0 else f"LPR {self.lpr:.2f}"
        return f"PruneTrain {self.mode} {strength} {interval}{rounded}"

    def idle(self, outline: Outline) -> str | None:
        if self.lpr == 0:
            return "its penalty is 0"
        return None if outline.epochs > 1 else "a run of one epoch has no boundary at which it could prune"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.lpr == 0:
            return state
        from objectives.strategies.methods import lasso

        model = state.trainee.model
        if not any(group.weight.requires_grad and group.out_axis for group in lasso.grouped(model)):
            return state.with_event("PruneTrain does nothing in this run: all that it could prune is frozen")
        shrink, (norm, way) = 2 * self._expected_shrink(state, 1.0), _median_norms(state.trainee, self.threshold)
        strength = lasso.strength(self.lpr, _loss(model, x, y), float(lasso.value(model)))
        if self.kappa > 0 and shrink > 0:
            strength = min(strength, self.kappa * norm / shrink)
        learned = self.having_learned(strength=strength, calibrated_for=model.architecture)
        state = state.with_strategy(self, learned).with_event(f"lambda {strength:.3g} from {self._origin}")
        if strength * shrink < LEAST_KAPPA * way:
            return state.with_event(
                f"PruneTrain will hardly prune: norms of {norm:.2g} shrink by {strength * shrink:.2g} in this run, "
                f"it takes {LEAST_KAPPA:g} times their size; raise lpr, the learning rate or the epochs"
            )
        return state

    @property
    def _origin(self) -> str:
        """Where lambda comes from."""
        return f"kappa {self.kappa:g}" if self.kappa > 0 else f"LPR {self.lpr:g}"

    def bound(self, state: TrainState) -> Strategy:
        if (grown := self._for_grown(state)) is not self:
            return grown.bound(state)
        active = self.lpr > 0 and state.epoch < self._penalised_until(state)
        exempt = self._young(state) if active else None
        flat = self._flattened(state, exempt) if active else None
        if active == self.active and exempt is self.exempt and flat is self.flat:
            return self
        return self.having_learned(active=active, exempt=exempt, flat=flat)

    def penalty(self, trainee: Trainee) -> Tensor | None:
        if self.mode != "subgrad" or not self.active or self.strength == 0:
            return None
        from objectives.strategies.methods import lasso

        if self.flat is not None:
            return self.flat.penalty(self.strength)
        return lasso.penalty(trainee.model, self.strength, self.exempt or {})

    def after_step(self, trainee: Trainee, step: Step) -> None:
        if self.mode != "prox" or not self.active or self.strength == 0:
            return
        from objectives.strategies.methods import lasso

        group = trainee.optimizer.param_groups[0]
        amount = step.taken * (group["lr"] * self.strength / (1 - group["momentum"]))
        if self.flat is not None:
            self.flat.shrink_(amount)
        else:
            lasso.shrink_(trainee.model, amount, self.exempt or {})

    def between_epochs(self, state: TrainState) -> TrainState:
        return self._pruned(state)

    def _penalised_until(self, state: TrainState) -> float:
        """The epoch from which on nothing is penalised any more."""
        return self.stop * state.pipeline.epochs

    def _is_due(self, state: TrainState) -> bool:
        """Whether what is dead is removed at this boundary."""
        return state.epoch == state.ends - 1 or state.epoch % self.interval == 0

    def _pruned(self, state: TrainState) -> TrainState:
        """The state without what is dead, at the boundaries that remove it."""
        is_last = state.epoch == state.ends - 1
        if (grown := self._for_grown(state)) is not self:
            event = f"lambda {grown.strength:.3g} from {self._origin} for the grown network"
            return grown._pruned(state.with_strategy(self, grown).with_event(event))
        if self.strength == 0 or not self._is_due(state):
            return state
        reconfigured = self._reconfigured(state)
        if reconfigured is not state:
            reconfigured = reconfigured.with_strategy(self, self.having_learned(has_pruned=True))
        elif is_last and not self.has_pruned:
            reconfigured = state.with_event("PruneTrain removed nothing")
        return self._with_batch(reconfigured) if self.adapt_batch else reconfigured

    def _for_grown(self, state: TrainState) -> PruneTrain:
        """This strategy with the lambda of the network that has grown since the last one; itself where none has.

        Lambda changes as it does from one network with initial weights to the other, both on one batch.
        """
        newest = max((float(epochs.max()) for epochs in state.trainee.born.values()), default=0.0)
        if self.strength == 0 or self.kappa > 0 or newest <= self.calibrated_at:
            return self
        now = state.trainee.model.architecture
        assert self.calibrated_for is not None
        factor = _loss_per_norm(now, state) / _loss_per_norm(self.calibrated_for, state)
        return self.having_learned(strength=self.strength * factor, calibrated_at=newest, calibrated_for=now)

    def _flattened(self, state: TrainState, exempt: Exempt | None) -> FlatGroups | None:
        """The groups as one vector where kernel launches dominate, on a GPU; those at hand while they still hold."""
        model = state.trainee.model
        if next(model.parameters()).device.type != "cuda":
            return None
        from objectives.strategies.methods.flat_lasso import FlatGroups

        if self.flat is None or self.flat.model is not model:
            return FlatGroups(model, exempt or {})
        self.flat.exempt_(exempt or {})
        return self.flat

    def _young(self, state: TrainState) -> Exempt | None:
        """The channels that growth added less than `grace` epochs ago, by axis; None where none ever was.

        The masks at hand, brought up to date in place, while the axes are as they were: a segment does not end with a
        grace.
        """
        born = state.trainee.born
        young = {axis: (epochs > 0) & (epochs > state.epoch - self.grace) for axis, epochs in born.items()}
        held = self.exempt
        if held is not None and {a: m.shape for a, m in held.items()} == {a: m.shape for a, m in young.items()}:
            for axis, mask in young.items():
                held[axis].copy_(mask)
            return held
        return young if any(bool(mask.any()) for mask in young.values()) else None

    def _reconfigured(self, state: TrainState) -> TrainState:
        """The state without what is dead."""
        from objectives.networks import surgery
        from objectives.networks.architecture import Architecture
        from objectives.strategies.methods import lasso

        before, trainee = state.trainee.model.architecture, state.trainee
        for s, stage in enumerate(before.stages if isinstance(before, Architecture) else ()):
            for b in reversed(range(len(stage.interiors))):
                if stage.interiors[b] and self._branch_is_dead(trainee, s, b):
                    trainee = surgery.drop_block(trainee, s, b)
        dense = lasso.dense_channels(trainee.model, self.threshold)
        index = {axis: kept for axis, mask in dense.items() if (kept := self._kept(mask)) is not None}
        if index:
            trainee = surgery.reindex(trainee, index, state.epoch)
        if trainee is state.trainee:
            return state
        return replace(state, trainee=trainee).with_event(
            f"pruned {before.describe()} to {trainee.model.architecture.describe()}"
        )

    def _branch_is_dead(self, trainee: Trainee, stage: int, block: int) -> bool:
        """Whether what a branch adds is the same for every image."""
        named = dict(trainee.model.get_submodule(f"stages.{stage}.{block}").named_parameters())
        weights = (weight for name, weight in named.items() if name.startswith("conv"))
        return any(float(weight.detach().abs().max()) < self.threshold for weight in weights)

    def _kept(self, dense: Tensor) -> Tensor | None:
        """Channels to keep: the dense ones, filled up to a multiple of `round_to`; None where that is all of them."""
        n_kept = max(1, int(dense.sum()))
        n_kept = min(len(dense), -(-n_kept // self.round_to) * self.round_to)
        if n_kept == len(dense):
            return None
        return dense.byte().argsort(descending=True, stable=True)[:n_kept].sort().values

    def _with_batch(self, state: TrainState) -> TrainState:
        """The state with the batch whose activations fill what those of the full network did at the sampled batch.

        In multiples of 32, never below the sampled batch, at most doubled at once. The peak learning rate scales alike.
        Where another strategy changes the batch, what was sampled counts as changed by as much.
        """
        size, pipeline = int(state.data.x.shape[-1]), state.pipeline
        n_images, now = len(state.data.y), state.trainee.model.architecture
        before = min(pipeline.batch_size, n_images)
        sampled = min(round(before / self.filled), n_images)
        full = state.full.behind_stem_of(now)
        room = sampled * full.activations(size) / now.activations(size)
        batch = int(min(room, MAX_BATCH_GROWTH * before)) // 32 * 32
        batch = max(sampled, min(MAX_BATCH, n_images, batch))
        if batch == before:
            return state
        (me,) = (strategy for strategy in state.pipeline.strategies if isinstance(strategy, PruneTrain))
        filling = state.with_strategy(me, me.having_learned(filled=batch / sampled))
        peak = pipeline.peak_lr * batch / before
        resized = filling.pipeline.with_batch(batch, peak)
        return replace(filling, pipeline=resized).with_event(f"batch {before} to {batch}")

    def _expected_shrink(self, state: TrainState, strength: float) -> float:
        """How much the norm of a group shrinks until the last boundary, if the penalty alone moves it.

        In weights that are in two groups, as those of convolutions are, it shrinks by twice as much.
        """
        pipeline = state.pipeline
        n_steps = len(state.data.y) // min(pipeline.batch_size, len(state.data.y))
        shares = sum(state.schedule(e + 0.5) for e in range(state.ends - 1) if e < self._penalised_until(state))
        return strength * pipeline.peak_lr * n_steps * shares / (1 - pipeline.momentum)


def _loss(model: Network, x: Tensor, y: Tensor) -> float:
    """The cross-entropy of a network in training on one batch; the network stays as it is."""
    from copy import deepcopy

    import torch
    from torch.nn.functional import cross_entropy

    with torch.no_grad():
        return float(cross_entropy(deepcopy(model).train()(x).float(), y))


def _loss_per_norm(architecture: AnyArchitecture, state: TrainState) -> float:
    """Loss over the sum of the norms of all groups, of a network with initial weights. Nothing is drawn."""
    import torch

    from objectives.networks.network import build
    from objectives.strategies.methods import lasso

    now, n = state.trainee.model, min(state.pipeline.batch_size, len(state.data.y))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(architecture, now.ghost)
    like = next(now.parameters())
    model = model.to(like)
    x = state.normalise(state.data.x[:n]).to(like.dtype)
    return _loss(model, x, state.data.y[:n]) / float(lasso.value(model))


def _median_norms(trainee: Trainee, threshold: float) -> tuple[float, float]:
    """The median norm of the output channels of convolutions, and how far it is to where one is dead."""
    import torch

    from objectives.strategies.methods import lasso

    weights = [g.weight for g in lasso.grouped(trainee.model) if g.out_axis is not None and g.weight.requires_grad]
    norms = [lasso.squares(weight).sum(1).sqrt() for weight in weights]
    dead = [threshold * weight[0].numel() ** 0.5 for weight in weights]  # the largest norm of a dead one
    ways = [(norm - least).clamp(min=0) for norm, least in zip(norms, dead, strict=True)]
    return float(torch.cat(norms).median()), float(torch.cat(ways).median())
