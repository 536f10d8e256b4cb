"""Balanced sampling: small classes are drawn more often, large ones less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.data_fraction import DataFraction

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.data.dataset import Images
    from objectives.state import TrainState


@dataclass(frozen=True)
class BalancedSampling(Strategy):
    """Draws the images of every epoch so that classes come equally often, as far as `share` says.

    Oversampling after Buda, Maki & Mazurowski 2018, who find it best among what evens out classes, at the level of
    equal numbers; between that and the classes as they are lies the share, as in progressively balanced sampling (Kang
    et al. 2020). An epoch is as long as before: what small classes gain large ones lose, other images of them each
    time. Within a class every image comes before any comes once more.

    Raises:
        ValueError: a parameter outside its range.
    """

    excludes = (DataFraction,)  # both choose images

    share: float = 1.0  # of the way from the classes as they are, 0, to as many draws of each, 1
    whole: Images | None = learned(None)  # all training images
    draws: Tensor | None = learned(None)  # [n_classes] images of each class in an epoch, on the host

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"{self!r}: share must lie in [0, 1]")

    def describe(self) -> str:
        return "classes equally often" if self.share == 1 else f"classes {self.share:.0%} of the way to equally often"

    def idle(self, outline: Outline) -> str | None:
        return "it draws classes as they are" if self.share == 0 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.share == 0:
            return state
        counts = state.data.y.bincount().cpu()
        draws = draws_of(counts, self.share)
        if draws.equal(counts):
            return state.with_event("BalancedSampling does nothing in this run: the classes are even")
        told = f"classes come {int(draws[counts > 0].min())} to {int(draws.max())} times an epoch"
        drawn = self.having_learned(whole=state.data, draws=draws)
        state = state.with_strategy(self, drawn).with_event(
            f"{told}, they have {int(counts[counts > 0].min())} to {int(counts.max())} images"
        )
        return drawn._drawing(state)

    def between_epochs(self, state: TrainState) -> TrainState:
        return state if self.draws is None else self._drawing(state)

    def _drawing(self, state: TrainState) -> TrainState:
        """The state that trains on a fresh draw."""
        assert self.whole is not None
        assert self.draws is not None
        chosen = _chosen(self.whole.y.cpu(), self.draws).to(self.whole.y.device)
        return replace(state, data=self.whole.part(chosen))


def draws_of(counts: Tensor, share: float) -> Tensor:
    """[n_classes] how often each class of so many images is drawn, as many in all: largest remainders."""
    n = int(counts.sum())
    asked = (1 - share) * counts.double() + share * n * (counts > 0) / (counts > 0).sum()
    draws = asked.floor().long()
    first = (draws - asked).argsort(stable=True)[: n - int(draws.sum())]
    draws[first] += 1
    return draws


def _chosen(labels: Tensor, draws: Tensor) -> Tensor:
    """[n] positions: of every class as many as are drawn, each image once before any comes twice. By lot.

    The lot is the default generator's of the CPU, so that it is the same on every device.
    """
    import torch

    chosen = []
    for label, n in enumerate(draws.tolist()):
        positions = (labels == label).nonzero().flatten()
        if n:
            rounds = [positions[torch.randperm(len(positions))] for _ in range(-(-n // len(positions)))]
            chosen.append(torch.cat(rounds)[:n])
    return torch.cat(chosen).sort().values
