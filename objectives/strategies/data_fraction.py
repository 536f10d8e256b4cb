"""Data fraction: early epochs, or all of them, train on a part of the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from objectives.strategies.base import Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.data.dataset import Images
    from objectives.state import TrainState


@dataclass(frozen=True)
class DataFraction(Strategy):
    """Trains on a random share of the images that grows in equal steps to the whole, class by class alike.

    Growing nested samples after Daneshmand, Lucchi & Hofmann 2016 ("Starting small"): as long as the optimisation error
    is larger than the error of a small sample, further images bring nothing. An epoch takes as many steps as the images
    in use fill, so the work of a run falls with them; the schedule goes by epochs and stays. Which images come first
    follows from the images alone, whatever their order and the seeds of the run.

    Raises:
        ValueError: a parameter outside its range.
    """

    start: float = 0.5  # share of the images at the start, in (0, 1]; 1 changes nothing
    until: float = 0.5  # share of the run after which all images are used, in (0, 1]; 1: never, the share stays
    steps: int = 1  # shares below the whole
    balanced: bool = True  # as many images of every class as it has; False: of every class its share of the images
    whole: Images | None = learned(None)  # all training images
    order: Tensor | None = learned(None)  # [n] positions in `whole`, in the order in which images come into use

    def __post_init__(self) -> None:
        if not 0 < self.start <= 1 or not 0 < self.until <= 1 or not 1 <= self.steps <= 16:
            raise ValueError(f"{self!r}: start and until must lie in (0, 1], steps in 1 to 16")

    def describe(self) -> str:
        if self.until == 1:
            return f"{self.start:.0%} of the images"
        return f"images from {self.start:.0%} of them until {self.until:.0%} of the run"

    def idle(self, outline: Outline) -> str | None:
        return "it starts with all images" if self.start == 1 else None

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.start == 1:
            return state
        drawn = self.having_learned(whole=state.data, order=_order(state.data, self.balanced))
        return drawn._using(state.with_strategy(self, drawn), self._share_at(0.0))

    def between_epochs(self, state: TrainState) -> TrainState:
        before, after = (self._share_at(epoch / state.pipeline.epochs) for epoch in (state.epoch - 1, state.epoch))
        return state if before == after else self._using(state, after)

    def settled(self, state: TrainState) -> bool:
        return self._share_at((state.epoch - 1) / state.pipeline.epochs) == self._share_at(1.0)

    def _share_at(self, fraction: float) -> float:
        """The share of the images in use at a fraction of the run."""
        if self.until == 1:
            return self.start
        step = min(self.steps, int(fraction / self.until * self.steps + 1e-9))
        return self.start + (1 - self.start) * step / self.steps if step < self.steps else 1.0

    def _using(self, state: TrainState, share: float) -> TrainState:
        """The state that trains on a share of the images, at least one of every class."""
        assert self.whole is not None
        assert self.order is not None
        n = max(round(share * len(self.order)), int(self.whole.y.bincount().count_nonzero()))
        data = self.whole
        if n < len(self.order):
            data = self.whole.part(self.order[:n].sort().values)
        return replace(state, data=data).with_event(f"{n} of {len(self.order)} images")


def _order(images: Images, balanced: bool) -> Tensor:
    """[n] positions of the images in the order in which they come into use.

    Within a class they are shuffled by what they show. Classes take turns: `balanced` one image each, else each as
    often as its size asks. The first of every class come before the second of any.
    """
    import torch

    from objectives.data.cache.stored import at_once

    parts = images.piecewise(at_once(images.x.shape[1:].numel()))
    hashes = torch.cat([_hashes(x) for x, _ in parts])
    shuffled = hashes.argsort(stable=True)
    by_class = shuffled[images.y[shuffled].argsort(stable=True)]
    labels, counts = images.y[by_class], images.y.bincount()
    rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels]  # within the class
    turn = rank if balanced else rank.double() / counts[labels]
    return by_class[turn.argsort(stable=True)]


def _hashes(x: Tensor) -> Tensor:
    """[n] int64, a multilinear hash of each image modulo 2^64, the same on every device."""
    import torch
    from torch.nn.functional import pad

    pixels = x.permute(0, 2, 3, 1).flatten(1)  # no copy: images lie in channels_last
    words = pad(pixels, (0, -pixels.shape[1] % 8)).view(torch.int64)
    factors = torch.empty(words.shape[1], dtype=torch.int64).random_(generator=torch.Generator().manual_seed(0))
    return (words * factors.to(x.device)).sum(1)
