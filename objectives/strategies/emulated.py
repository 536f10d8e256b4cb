"""What all emulated number formats have in common: `Emulated`. Each computes in fp32 with numbers of another format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from objectives.modelled.assumptions import PLAIN_BITS, Arithmetic, by_width
from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.switch_format import SwitchFormat

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.resnet import Convolution
    from objectives.networks.sequential import Dense
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState
    from objectives.strategies.base import Multiply
    from objectives.strategies.methods.quantising import Quantise


@dataclass(frozen=True)
class Emulated(Strategy, ABC):
    """A number format that the device has no units for: what a training in it would learn, at no gain of speed.

    Of every convolution the weights, what it reads and what it puts out are in the format, and so are the errors that
    come back to both; sums are in fp32. Batch norms, ReLUs, the classifier and what is evaluated compute in fp32: the
    network that is exported has no quantised activations.
    """

    number_formats: ClassVar[tuple[str, ...]] = ("fp32",)
    emulated: ClassVar[bool] = True

    is_on: bool = learned(True)  # False once `SwitchFormat` has gone over to fp32

    @property
    @abstractmethod
    def what(self) -> str:
        """The format in a few words."""

    @property
    @abstractmethod
    def is_neutral(self) -> bool:
        """Whether it is fp32 after all."""

    @property
    @abstractmethod
    def units(self) -> Arithmetic:
        """What is assumed of units that compute in it."""

    @property
    def arithmetic(self) -> Arithmetic | None:
        return self.units if self.acts else None

    @abstractmethod
    def forward(self) -> Quantise:
        """Rounds weights and activations to the format."""

    @abstractmethod
    def backward(self) -> Quantise:
        """Rounds errors to the format."""

    def describe(self) -> str:
        return f"emulated {self.what}"

    def refuses(self, other: Strategy) -> bool:
        return super().refuses(other) or isinstance(other, Emulated)

    def idle(self, outline: Outline) -> str | None:
        if self.is_neutral:
            return "its format is fp32"
        n = sum(not layer.is_dense for layer in outline.full.layers(outline.size))
        return None if n else "the network has no convolution"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.is_neutral:
            return state
        return state.with_event(f"{self.what} is emulated: the seconds of this run say nothing of the format")

    def bound(self, state: TrainState) -> Strategy:
        is_on = not any(isinstance(s, SwitchFormat) and s.has_switched for s in state.pipeline.strategies)
        return self if is_on == self.is_on else self.having_learned(is_on=is_on)

    def product(self, layer: Convolution | Dense, multiply: Multiply) -> Multiply:
        from objectives.networks.resnet import Convolution

        if not self.acts or not isinstance(layer, Convolution):
            return multiply
        from objectives.strategies.methods.quantising import passed

        forward, backward = self.forward(), self.backward()

        def emulated(x: Tensor, weight: Tensor) -> Tensor:
            out = multiply(passed(x, forward, backward), passed(weight, forward, None))
            return passed(out, forward, backward)

        return emulated

    @property
    def acts(self) -> bool:
        """Whether steps are taken in the format now."""
        return self.is_on and not self.is_neutral


@dataclass(frozen=True)
class OfBits(Emulated):
    """A format of so many bits a number, for errors as for all else.

    Raises:
        ValueError: a number of bits that fp32 cannot stand in for.
    """

    bits: int = 16  # of a number, 2 to 16; 32 is fp32

    def __post_init__(self) -> None:
        if self.bits != PLAIN_BITS and not 2 <= self.bits <= 16:
            raise ValueError(f"{self!r}: bits must lie in 2 to 16, or be {PLAIN_BITS}, which is fp32")

    @property
    def is_neutral(self) -> bool:
        return self.bits == PLAIN_BITS

    @property
    def units(self) -> Arithmetic:
        return by_width(self.bits)

    def backward(self) -> Quantise:
        return self.forward()


@dataclass(frozen=True)
class Stored(OfBits):
    """A format in which weights and momentum are kept as well, so that a step that is too small for it is lost."""

    def stored(self) -> Quantise:
        """Rounds gradients, momentum and weights to the format."""
        return self.forward()

    def gradients(self, trainee: Trainee, step: Step) -> None:
        if not self.acts:
            return
        round_to = self.stored()
        for parameter in trainee.model.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(round_to(parameter.grad))

    def after_step(self, trainee: Trainee, step: Step) -> None:
        if not self.acts:
            return
        import torch

        round_to = self.stored()
        with torch.no_grad():
            for parameter in trainee.model.parameters():
                parameter.copy_(round_to(parameter))
                for key, value in trainee.optimizer.state.get(parameter, {}).items():
                    if key == "momentum_buffer":
                        value.copy_(round_to(value))
