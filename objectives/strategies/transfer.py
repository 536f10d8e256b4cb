"""Transfer: training begins from a network that was trained before, on other images perhaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from objectives.networks.architecture import Architecture
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.s3_pool import S3Pool
from objectives.strategies.standardization_loss import StandardizationLoss
from objectives.strategies.stochastic_pooling import StochasticPooling
from objectives.strategies.strided_stem import StridedStem
from objectives.strategies.weight_norm import WeightNorm
from objectives.strategies.whitening import Whitening

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.data.augment import Statistics
    from objectives.networks.plain import AnyArchitecture
    from objectives.starts.origin import Origin
    from objectives.starts.start import Start
    from objectives.state import TrainState


@dataclass(frozen=True)
class Transfer(Strategy):
    """Starts from a trained network as the one that is asked for (Chen et al. 2016; Yosinski et al. 2014).

    Widths and depths are those of the settings: the start is pruned to its strongest channels or widened by copies that
    part, it loses the last blocks of a stage or gets new ones that begin as the identity (`starts.fitting`). Its stem,
    its transitions and its norms stay, and so does what its pixels were normalised by. It keeps its classifier where it
    tells the same classes in the same order; else a new one begins at random. Put it first.

    Reading the file is not charged, nor is what the start took to train, which an event tells; fitting it is.

    Raises:
        ValueError: a digest without a source.
    """

    # They set what a network begins with, change its stem, its norms or what halves images, or begin anew with another.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (
        *(HaarStem, StridedStem, AveragePooling, StochasticPooling, S3Pool, KernelRescaling),
        *(IdentityInit, Whitening, WeightNorm, StandardizationLoss, MorphNet),
    )

    source: str = ""  # a folder of an export, a file of weights, torchvision:NAME; empty: from scratch
    digest: str = ""  # SHA-256 that its weights must have; empty: whatever is there

    def __post_init__(self) -> None:
        if self.digest and not self.source:
            raise ValueError(f"{self!r}: a digest is that of a source")

    def describe(self) -> str:
        return f"from {_short(self.source)}" if self.source else "from scratch"

    def idle(self, outline: Outline) -> str | None:
        return None if self.source else "it names no network to start from"

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        """What is asked, with the stem, the transitions and the norms of the start, as far as that is there."""
        from objectives.starts.likeness import mismatch
        from objectives.starts.naming import found

        if not self.source or (known := found(self.source)) is None:  # `normalised_by` says what is wrong
            return architecture
        if why := mismatch(known.architecture, architecture):
            raise ValueError(f"{known.words}: {why}")
        if not isinstance(architecture, Architecture) or not isinstance(known.architecture, Architecture):
            return architecture
        return replace(architecture.behind_stem_of(known.architecture), transition=known.architecture.transition)

    def normalised_by(self, of: Statistics) -> Statistics:
        return self._start().pixels(len(of.mean)) if self.source else of

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if not self.source:
            return state
        from objectives.networks import surgery
        from objectives.starts.fitting import fitted

        start = self._start()
        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        network = fitted(start, trainee.model, state.classes)
        trainee.model.load_state_dict(network.state_dict())
        head = "its classifier too" if start.classes and start.classes == state.classes else "a new classifier"
        told = f"begins from {start.words}, {head}; {start.origin.cost}"
        if network.architecture.describe() != start.network.architecture.describe():
            told += f"; {start.network.architecture.describe()} to {network.architecture.describe()}"
        return replace(state, trainee=trainee).with_event(told)

    def known(self) -> Origin | None:
        """What is known of the network before its weights are read; None where none is named.

        Raises:
            ValueError: there is none, or it has other weights than those that the digest is of.
        """
        from objectives.starts.naming import origin

        if not self.source:
            return None
        known = origin(self.source)
        self._check(known.digest)
        return known

    def _start(self) -> Start:
        """The network.

        Raises:
            ValueError: there is none, or other weights than those that the digest is of.
        """
        from objectives.starts.start import read

        start = read(self.source)
        self._check(start.digest)
        return start

    def _check(self, digest: str) -> None:
        """Refuses other weights than those that this pipeline was made for."""
        if self.digest not in ("", digest):
            raise ValueError(
                f"{self.source} holds other weights than those that the pipeline starts from "
                f"({digest[:12]}, not {self.digest[:12]})"
            )


def _short(source: str) -> str:
    """The last two parts of a path: a trial has its study before it."""
    parts = [part for part in source.split("/") if part]
    return "/".join(parts[-2:])
