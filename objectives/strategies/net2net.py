"""Net2Net (Chen, Goodfellow & Shlens, ICLR 2016, arXiv 1511.05641): training starts small and grows as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from objectives.strategies.base import Outline, Strategy

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture
    from objectives.networks.trainee import Trainee
    from objectives.state import TrainState
    from objectives.strategies.methods.widening import Kind


@dataclass(frozen=True)
class Net2Net(Strategy):
    """Starts with a part of the network and grows it to the full one at given times of the run.

    Wider, by channels of one kind, the same for all tensors of a stage. `copies` is Net2WiderNet: copies of old
    channels, at random, whose consumers share the weight; `noise` on their filters is to tell them apart. In a short
    run it does not (of 128 new channels 116 still point where their source does at the end, and the growth brings half
    of what it costs: benchmarks/shapes.md). Two other kinds preserve the function exactly and give different channels
    within an epoch: `antisymmetric`, copies that consumers read with weights V/2 + D and V/2 - D, and `fresh`, channels
    that begin as in a new network and that nobody reads yet (as in GradMax, Evci et al. 2022, who choose the filters).

    Deeper: new blocks at the end of a stage begin as the identity, with a last gamma of 0 (Net2DeeperNet, for residual
    networks). What PruneTrain has pruned since the last growth is not grown again, nor what only frozen layers read.

    Raises:
        ValueError: a parameter outside its range.
    """

    start_width: float = 0.5  # share of the channels at the start, in (0, 1]
    start_depth: float = 1.0  # share of the blocks of each stage at the start, in (0, 1]; at least one is there
    at: float = 0.3  # share of the run at which it first grows, in (0, 1)
    until: float = 0.5  # share of the run at which it has grown to its full size, in [at, 1)
    steps: int = 1  # growths from `at` to `until`
    operators: Literal["wider", "deeper", "both"] = "both"  # what grows; the rest has its full size from the start
    new_channels: Kind = "fresh"  # how channels begin that make the network wider
    noise: float = 1e-2  # of the filters of `copies`, in deviations of the weights; other kinds have none
    lr_after: float = (
        0.0  # share of the peak learning rate from which it anneals after a growth; 0: the schedule goes on
    )

    of_before: ClassVar[Mapping[str, object]] = {"new_channels": "copies"}

    def __post_init__(self) -> None:
        if not 0 < self.start_width <= 1 or not 0 < self.start_depth <= 1 or not 0 < self.at <= self.until < 1:
            raise ValueError(f"{self!r}: start_width and start_depth lie in (0, 1], and 0 < at <= until < 1")
        if self.steps < 1 or self.noise < 0 or not 0 <= self.lr_after <= 1:
            raise ValueError(f"{self!r}: steps from 1, noise not negative, lr_after in [0, 1]")
        if self.operators not in ("wider", "deeper", "both"):
            raise ValueError(f"{self!r}: operators is wider, deeper or both")
        if self.new_channels not in ("fresh", "antisymmetric", "copies"):
            raise ValueError(f"{self!r}: new_channels are fresh, antisymmetric or copies")

    def describe(self) -> str:
        times = f"{self.at:.0%}" if self.steps == 1 else f"{self.at:.0%}-{self.until:.0%} in {self.steps} steps"
        parts = []
        if self.operators != "deeper":
            parts.append(f"width {self.start_width:.0%}")
        if self.operators != "wider":
            parts.append(f"depth {self.start_depth:.0%}")
        kind = "" if self.operators == "deeper" or self.new_channels == "fresh" else f" by {_WORDS[self.new_channels]}"
        return f"Net2Net from {' '.join(parts)} at {times}{kind}"

    def idle(self, outline: Outline) -> str | None:
        if self.architecture(outline.full) == outline.full:
            return "the network has its full size from the start"
        return None if outline.epochs > 1 else "a run of one epoch has no boundary at which it could grow"

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        return self._after(0, architecture)

    def between_epochs(self, state: TrainState) -> TrainState:
        n_before, n_now = (self._n_growths(epoch, state) for epoch in (state.epoch - 1, state.epoch))
        for growth in range(n_before + 1, n_now + 1):
            state = self._grown(state, growth)
        return state

    def settled(self, state: TrainState) -> bool:
        return self._after(self._n_growths(state.epoch - 1, state), state.full) == state.full

    def _n_growths(self, epoch: int, state: TrainState) -> int:
        """Growths that are due after `epoch` epochs: at the last boundary of the schedule, all of them."""
        if 0 < epoch == state.pipeline.epochs - 1:
            return self.steps
        fraction = epoch / state.pipeline.epochs
        gap = (self.until - self.at) / max(1, self.steps - 1)
        return sum(fraction >= self.at + gap * growth - 1e-9 for growth in range(self.steps))

    def _after(self, growth: int, full: AnyArchitecture) -> AnyArchitecture:
        """The architecture after so many growths, of which the last one reaches the full one."""
        from objectives.networks.architecture import Architecture, Stage, narrowed
        from objectives.networks.plain import INPUTS

        done = growth / self.steps
        width = 1.0 if self.operators == "deeper" else self.start_width + (1 - self.start_width) * done
        depth = 1.0 if self.operators == "wider" else self.start_depth + (1 - self.start_depth) * done

        if not isinstance(full, Architecture):
            sizes = full.axis_sizes().items()
            return full.resized({axis: narrowed(n, width) for axis, n in sizes if axis != INPUTS})
        stages = []
        for stage in full.stages:
            n_blocks = max(1, round(len(stage.interiors) * depth))
            interiors = tuple(narrowed(channels, width) for channels in stage.interiors[:n_blocks])
            stages.append(Stage(narrowed(stage.width, width), interiors))
        return replace(full, stages=tuple(stages))

    def _grown(self, state: TrainState, growth: int) -> TrainState:
        """The state after one growth."""
        before, after = (self._after(g, state.full) for g in (growth - 1, growth))
        old = state.trainee.model.architecture
        state = self._wider(state, before, after)
        trainee = _deeper(state.trainee, before, after, state.epoch)
        new = trainee.model.architecture
        if new == old:
            return state
        state = replace(state, trainee=trainee)
        if self.lr_after > 0:
            state = replace(state, schedule=replace(state.schedule, restart=state.epoch, restart_share=self.lr_after))
        return state.with_event(f"grown {old.describe()} to {new.describe()}")

    def _wider(self, state: TrainState, before: AnyArchitecture, after: AnyArchitecture) -> TrainState:
        """The state with every axis widened that still has the width it was given, where that can bring anything."""
        from objectives.networks import surgery
        from objectives.strategies.methods import widening

        trainee = state.trainee
        sizes, planned, wanted = (a.axis_sizes() for a in (trainee.model.architecture, before, after))
        due = {axis: n for axis, n in sizes.items() if n == planned.get(axis) and wanted.get(axis, 0) > n}
        frozen = [axis for axis in due if not widening.can_learn(self.new_channels, trainee, axis)]
        if frozen:
            state = state.with_event(f"frozen layers keep their width: {', '.join(frozen)}")
        device = next(trainee.model.parameters()).device
        index = {
            axis: widening.sources(self.new_channels, n, wanted[axis] - n, device)
            for axis, n in due.items()
            if axis not in frozen
        }
        if not index:
            return state
        widened = surgery.reindex(trainee, index, state.epoch)
        if self.new_channels == "copies":
            widening.add_noise_(widened, {axis: due[axis] for axis in index}, self.noise)
        elif self.new_channels == "antisymmetric":
            widening.part_(widened, index)
        return replace(state, trainee=widened)


_WORDS = {"antisymmetric": "antisymmetric copies", "copies": "copies"}


def _deeper(trainee: Trainee, before: AnyArchitecture, after: AnyArchitecture, epoch: int) -> Trainee:
    """The trainee with new blocks at the end of every stage that still has the blocks it was given."""
    from objectives.networks import surgery
    from objectives.networks.architecture import Architecture
    from objectives.networks.plain import residual

    if not isinstance(before, Architecture) or not isinstance(after, Architecture):
        return trainee  # the depth of a plain network is part of its family
    for s, (planned, wanted) in enumerate(zip(before.stages, after.stages, strict=True)):
        have = residual(trainee.model.architecture).stages[s].interiors
        if [channels > 0 for channels in have] != [channels > 0 for channels in planned.interiors]:
            continue  # PruneTrain has dropped some
        for position in range(len(have), len(wanted.interiors)):
            trainee = surgery.insert_block(trainee, s, position, wanted.interiors[position], epoch)
    return trainee
