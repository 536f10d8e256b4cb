"""Low rank after a warm-up: from some share of the run on, layers are products of thinner ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain

if TYPE_CHECKING:
    from objectives.networks.architecture import Architecture
    from objectives.networks.network import Network
    from objectives.networks.plain import AnyArchitecture
    from objectives.state import TrainState

Ranks = dict[str, tuple[int, ...]]  # by the label of a layer: channels in between


@dataclass(frozen=True)
class LowRank(Strategy):
    """Trains whole layers first, then their best approximation of low rank (Pufferfish, Wang et al. 2021).

    arXiv 2103.03936: from scratch low rank costs accuracy, after a few epochs of warm-up hardly any. A convolution of a
    block becomes three by Tucker-2 (Kim et al. 2016, arXiv 1511.06530), which is thin on both sides; the paper's become
    two. The head becomes two by its singular values, where classes are so many that it pays; the paper leaves it whole.

    Factorised is what is trained and becomes cheaper in FLOPs by it; the stem and projection shortcuts stay. More and
    thinner kernels save less time than FLOPs. Factors begin without momentum, and averages go on with theirs.

    Put it before strategies that freeze layers: what is frozen stays whole.

    Raises:
        ValueError: a parameter outside its range.
    """

    needs_blocks: ClassVar[bool] = True
    # Penalties, copies and masks know the channels of whole layers, and not those in between; back to the weights of an
    # early epoch leads no way from factors.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (PruneTrain, Net2Net, LotteryTicket)

    rank: float = 0.25  # share of the channels on either side of a layer that are left between, in (0, 1]; 1: no change
    at: float = 0.3  # share of the run at which it factorises, in (0, 1)
    since: int | None = learned(None)  # epoch after which it has, or has found nothing to factorise

    def __post_init__(self) -> None:
        if not 0 < self.rank <= 1 or not 0 < self.at < 1:
            raise ValueError(f"{self!r}: rank must lie in (0, 1], at in (0, 1)")

    def describe(self) -> str:
        return f"rank {self.rank:.0%} from {self.at:.0%} of the run"

    def idle(self, outline: Outline) -> str | None:
        if not self._cheaper(residual(outline.full), outline.size):
            return f"no layer becomes cheaper by a rank of {self.rank:.0%}"
        return None if outline.epochs > 1 else "a run of one epoch has no boundary at which it could factorise"

    def reached(self, architecture: AnyArchitecture) -> AnyArchitecture:
        whole = residual(architecture)
        return whole if self.rank == 1 else _made_of(whole, self._ranks(whole))

    def between_epochs(self, state: TrainState) -> TrainState:
        if self.since is not None or not state.is_due(self.at) or self._is_idle(state):
            return state
        from objectives.networks import flops, surgery

        state = state.with_strategy(self, self.having_learned(since=state.epoch))
        old, size = state.trainee.model, int(state.data.x.shape[-1])
        before = residual(old.architecture)
        n_layers, ranks = len(before.factorisable()), self._cheaper(before, size)
        ranks = {label: channels for label, channels in ranks.items() if _is_trained(old, label)}
        if not ranks:
            return state.with_event(f"factorised none of {n_layers} layers: none that is trained becomes cheaper")
        if not all(_is_finite(old, label) for label in ranks):
            return state.with_event(f"factorised none of {n_layers} layers: not all of their numbers are finite")
        trainee = surgery.factorise(state.trainee, ranks)
        work = flops.count(trainee.model.architecture, size)[0] / flops.count(old.architecture, size)[0]
        kept = f"which keep {_energy_kept(old, trainee.model, ranks):.0%} of their energy"
        return replace(state, trainee=trainee).with_event(
            f"factorised {len(ranks)} of {n_layers} layers, {kept}; {work:.0%} of the FLOPs"
        )

    def settled(self, state: TrainState) -> bool:
        """Only where layers have been factorised and trained since."""
        return self._is_idle(state) if self.since is None else state.epoch > self.since

    def _is_idle(self, state: TrainState) -> bool:
        """Whether it can have no effect on the network in training, which is not always what the settings ask for."""
        now, size = state.trainee.model.architecture, int(state.data.x.shape[-1])
        return self.idle(Outline(now, size, state.pipeline.epochs)) is not None

    def _ranks(self, architecture: Architecture) -> Ranks:
        """The ranks of every layer that can be factorised."""
        return {
            label: tuple(max(1, round(self.rank * n)) for n in channels)
            for label, channels in architecture.factorisable().items()
        }

    def _cheaper(self, architecture: Architecture, size: int) -> Ranks:
        """The ranks of the layers that become cheaper by them for images of `size` pixels a side."""
        if self.rank == 1:
            return {}
        whole = _work(architecture, size)
        return {
            label: ranks
            for label, ranks in self._ranks(architecture).items()
            if _work(_made_of(architecture, {label: ranks}), size) < whole
        }


def _made_of(architecture: Architecture, ranks: Mapping[str, tuple[int, ...]]) -> Architecture:
    """The architecture with these layers factorised."""
    return replace(architecture, factors=tuple(sorted({**dict(architecture.factors), **ranks}.items())))


def _work(architecture: Architecture, size: int) -> int:
    """FLOPs of a forward pass over an image of `size` pixels a side, the head's included."""
    from objectives.networks.architecture import HEAD

    n_in, n_out = architecture.stages[-1].width, architecture.n_classes
    (rank,) = dict(architecture.factors).get(HEAD, (0,))
    head = 2 * rank * (n_in + n_out) if rank else 2 * n_in * n_out
    return head + sum(layer.flops for layer in architecture.layers(size))


def _is_trained(model: Network, label: str) -> bool:
    from objectives.networks.resnet import module_name

    return bool(model.get_parameter(f"{module_name(label)}.weight").requires_grad)


def _is_finite(model: Network, label: str) -> bool:
    from objectives.networks.resnet import module_name

    return bool(model.get_parameter(f"{module_name(label)}.weight").isfinite().all())


def _energy_kept(old: Network, new: Network, ranks: Ranks) -> float:
    """The share of the sum of squares of layers that is left in the products of their factors."""
    import torch

    from objectives.networks import factors
    from objectives.networks.resnet import module_name

    whole = left = torch.zeros((), device=next(old.parameters()).device)
    for name in map(module_name, ranks):
        named = (part for part, _ in new.get_submodule(name).named_children())
        parts = {part: new.get_parameter(f"{name}.{part}.weight").detach() for part in named}
        whole = whole + old.get_parameter(f"{name}.weight").detach().square().sum()
        left = left + factors.product(parts).square().sum()
    return float(left / whole) if whole > 0 else 1.0
