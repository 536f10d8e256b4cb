"""The hooks of a strategy. Each defaults to doing nothing; a strategy overrides the few that it needs.

A strategy is a frozen dataclass whose fields are its parameters. What it learns during a run (a calibrated lambda, the
resolution of the segment) is a field declared with `learned()`: outside equality, repr and JSON, set by returning a
copy. Memory shaped like the model is a `Shadow` of the trainee. Strategy files import torch only for type checking and
inside the hooks, so that spaces and studies can be described without loading it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.data.augment import Statistics
    from objectives.modelled.assumptions import Arithmetic
    from objectives.networks.network import Network
    from objectives.networks.plain import AnyArchitecture
    from objectives.networks.resnet import Convolution
    from objectives.networks.sequential import Dense
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState

T = TypeVar("T")
Multiply = Callable[["Tensor", "Tensor"], "Tensor"]  # x: [batch, in, height, width], weight: [out, in, kernel, kernel]


def learned(default: T) -> T:
    """A dataclass field for what a strategy learns during a run: no parameter, so outside equality, repr and JSON."""
    return field(default=default, init=False, compare=False, repr=False)


@dataclass(frozen=True)
class Outline:
    """What is known of a run before its first step."""

    full: AnyArchitecture  # what the settings ask for
    size: int  # pixels: side of the images
    epochs: int  # length of the schedule
    batch_size: int | None = field(default=None, kw_only=True)  # samples per optimizer step; None: not known


@dataclass(frozen=True)
class Strategy:
    """One acceleration method with its parameters."""

    excludes: ClassVar[tuple[type[Strategy], ...]] = ()  # strategies that it cannot run with
    needs_blocks: ClassVar[bool] = False  # it acts on the stem, the blocks or the image size of a residual network
    innermost: ClassVar[bool] = False  # its `product` lies within those of all others, wherever it stands
    saves_work: ClassVar[bool] = False  # layers that it wraps multiply less: their FLOPs are counted as they compute
    number_formats: ClassVar[tuple[str, ...]] = ()  # of pipelines that it can run in; none: in all
    emulated: ClassVar[bool] = False  # it stands for units that the device has not: its seconds mean nothing
    # What pipelines mean that were stored before a parameter existed, where that is not its default.
    of_before: ClassVar[Mapping[str, object]] = {}

    @property
    def capturable(self) -> bool:
        """Whether its part of a step decides nothing on the host, so that a graph may replay it."""
        return True

    @property
    def arithmetic(self) -> Arithmetic | None:
        """The emulated format that steps are taken in now; None: in the pipeline's own."""
        return None

    @property
    def reads_accuracy(self) -> bool:
        """Whether its boundaries look at `state.accuracy`: the evaluations that it is told of are then charged."""
        return False

    @property
    def reads_images(self) -> bool:
        """Whether its part of a step looks at images: else features of fixed parts may stand in their place."""
        return type(self).batch is not Strategy.batch

    @property
    def reads_activations(self) -> bool:
        """Whether steps keep for `activation_penalty` what it reads; else that is told of nothing."""
        return False

    def refuses(self, other: Strategy) -> bool:
        """Whether it cannot run with the other one."""
        return isinstance(other, (type(self), *self.excludes))

    def last_format(self, number_format: str, epochs: int) -> str:
        """The number format that a run of so many epochs ends in, given the one that it begins in."""
        return number_format

    def n_epochs(self, epochs: int, batch_size: int, n_train: int) -> int:
        """The epochs that a run over so many images takes, given those that it would take without this strategy."""
        return epochs

    def describe(self) -> str:
        """This strategy in a few words, for tables and notes."""
        return repr(self)

    def idle(self, outline: Outline) -> str | None:
        """Why it can have no effect in such a run, in words; None where it can. A run says so before it trains."""
        return None

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        """The architecture to start from, given the one that the pipeline's settings ask for."""
        return architecture

    def reached(self, architecture: AnyArchitecture) -> AnyArchitecture:
        """An architecture with the kinds of layers that it may be given during a run."""
        return architecture

    def normalised_by(self, of: Statistics) -> Statistics:
        """What pixels are normalised by, given what the training images are normalised by."""
        return of

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        """The state to start from, calibrated on the first batch (x: [batch, channels, height, width], y: [batch])."""
        return state

    def between_epochs(self, state: TrainState) -> TrainState:
        """The state to continue from: surgery, new schedule, new data, new end. Called while epochs remain."""
        return state

    def settled(self, state: TrainState) -> bool:
        """Whether the accuracy after this epoch says something about the final one."""
        return True

    def bound(self, state: TrainState) -> Strategy:
        """This strategy prepared for the next segment; itself when nothing changed.

        Another object ends the segment: a compilation or a capture. A value that changes every epoch is a tensor among
        what it has learned, and is changed in place here.
        """
        return self

    def convolution(self, layer: Convolution, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """How a layer computes while training: `compute`, or a function that wraps it."""
        return compute

    def product(self, layer: Convolution | Dense, multiply: Multiply) -> Multiply:
        """How a layer multiplies its input with its weight while training: `multiply`, or a function that wraps it.

        Within `convolution`, and within what the number format makes of both: where gradients of the two part. Of a
        dense layer, the classifier left out, x is [batch, in] or as of a convolution, and the weight [out, in, ...].
        """
        return multiply

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The batch to train on. Batches are of images where a strategy overrides this: see `reads_images`."""
        return x, y

    def penalty(self, trainee: Trainee) -> Tensor | None:
        """A scalar added to the loss, or None."""
        return None

    def activation_penalty(self, activations: Sequence[Tensor]) -> Tensor | None:
        """A scalar added to the loss, or None; for those that `reads_activations`, of what the norms of a ResNet read.

        Each [batch, channels, height, width], in the number format of the training, from the first norm to the last.
        """
        return None

    def gradients(self, trainee: Trainee, step: Step) -> None:
        """Acts on the gradients of loss and penalties before the optimizer steps, in place.

        They are those of the parameters, None where one has none; of fp16 they come unscaled, and where `step.taken` is
        0 they are not finite and the optimizer leaves them alone: what a strategy remembers is multiplied by it.
        """

    def left_out(self, model: Network) -> tuple[frozenset[str], float]:
        """The parameters that get no gradient, by name, in what share of the work: so much less is counted."""
        return frozenset(), 0.0

    def after_step(self, trainee: Trainee, step: Step) -> None:
        """Acts after an optimizer step, in place; every effect is multiplied by `step.taken`."""

    def deployed(self, model: Network, state: TrainState) -> Network:
        """The network to evaluate and export, given the one that the strategies before this one deploy."""
        return model

    def having_learned(self, **values: object) -> Self:
        """A copy of this strategy whose `learned()` fields have new values."""
        copy = replace(self)
        for name in (f.name for f in fields(self) if not f.init):
            object.__setattr__(copy, name, values.pop(name, getattr(self, name)))
        if values:
            raise TypeError(f"{type(self).__name__} learns no {', '.join(values)}")
        return copy

    def to_json(self) -> dict[str, object]:
        """The parameters as plain data, with the class name under `strategy`."""
        parameters = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {"strategy": type(self).__name__, **parameters}
