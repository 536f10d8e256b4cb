"""Fixed architecture: the network is given, not what the settings ask for. The control for what changes its size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from objectives.networks.architecture import Architecture, Stage
from objectives.networks.plain import AnyArchitecture, residual
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.net2net import Net2Net


@dataclass(frozen=True)
class FixedArchitecture(Strategy):
    """Trains given widths and depths from scratch, whatever depth and width the settings ask for.

    The control that Liu et al. 2019 ("Rethinking the value of network pruning") ask of methods that change a network
    while it trains: their final architecture, with initial weights. If that does as well, only the size counts.

    There may be more or fewer stages than the family has. The stem and the kind of transitions stay, and so does
    `state.full`: what `full_flops` reports, and PruneTrain with `adapt_batch` compares with, is what the settings ask
    for.

    Raises:
        ValueError: stages that are no pairs of whole numbers, or that `Architecture` refuses.
    """

    needs_blocks: ClassVar[bool] = True
    # they start with a share of what the settings ask for, and grow to more of it
    excludes: ClassVar[tuple[type[Strategy], ...]] = (Net2Net, Adaptive)

    # per stage its width and the interiors of its blocks, in channels; empty changes nothing
    stages: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        try:
            stages = tuple((width, tuple(interiors)) for width, interiors in self.stages)  # lists where JSON was read
            are_whole = all(type(channels) is int for width, interiors in stages for channels in (width, *interiors))
        except (TypeError, ValueError):
            are_whole = False
        if not are_whole:
            raise ValueError(f"stages are {self.stages!r}: each is (width, (interiors of its blocks)) in whole numbers")
        object.__setattr__(self, "stages", stages)
        if stages:
            self._fixed(_ANY)

    @classmethod
    def like(cls, architecture: Architecture) -> FixedArchitecture:
        """The strategy that gives a network the stages of `architecture`."""
        return cls(tuple((stage.width, stage.interiors) for stage in architecture.stages))

    def describe(self) -> str:
        return f"fixed at {self._fixed(_ANY).describe()}" if self.stages else "the settings' architecture"

    def idle(self, outline: Outline) -> str | None:
        return "the settings ask for the same network" if self.architecture(outline.full) == outline.full else None

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return self._fixed(residual(architecture)) if self.stages else architecture

    def _fixed(self, architecture: Architecture) -> Architecture:
        return replace(architecture, stages=tuple(Stage(width, interiors) for width, interiors in self.stages))


_ANY = Architecture(in_channels=1, n_classes=1, stages=(Stage(1, ()),))  # whose stages are to be replaced
