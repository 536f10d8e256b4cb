"""`Network`: what all networks have in common. `objectives.networks.network` makes them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from torch import Tensor, nn

from objectives.networks.plain import AnyArchitecture, sections

if TYPE_CHECKING:
    from objectives.networks.resnet import Convolution
    from objectives.networks.sequential import Dense

Labels = tuple[str | None, ...]  # one per dimension of a tensor; None: not a channel axis


class Network(nn.Module):
    """A network with labelled channel axes. Maps [batch, in_channels, height, width] to logits [batch, n_classes].

    Series have a height of 1.
    """

    # name of a buffer, a scalar int64 that no step changes: averages keep their counter under it, so that it travels
    counter: ClassVar[str]
    fan_in: bool  # filters begin He-normal over the fan-in; else over the fan-out

    architecture: AnyArchitecture
    ghost: int  # samples per ghost batch while training; 0: the whole batch
    head: nn.Module  # the classifier
    still: int = 0  # sections, from the first on, in which what does not train computes as in evaluation at all times

    @property
    def mode(self) -> Literal["fan_in", "fan_out"]:
        """What the variance of new filters follows."""
        return "fan_in" if self.fan_in else "fan_out"

    def axes(self) -> dict[str, Labels]:
        """The channel axis of every dimension of every parameter and buffer, by name."""
        raise NotImplementedError

    def recorded(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and what the norms of a residual network read on the way to them, from the first to the last."""
        raise NotImplementedError

    def convolutions(self) -> list[Convolution]:
        """Every convolution, from the first to the last."""
        raise NotImplementedError

    def multiplying(self) -> list[Convolution | Dense]:
        """Every layer whose product of input and weight strategies may wrap: all but a classifier."""
        return [*self.convolutions()]

    def unwrap(self) -> None:
        """Lets every layer compute as it does by itself: a copy would compute with the weights of the original."""
        for convolution in self.convolutions():
            convolution.compute = None
        for layer in self.multiplying():
            layer.multiply = None

    def parts(self) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        """What the network computes one after the other, each with the name of the module that holds its tensors."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.still:
            for name in (name for name, _ in self.parts() if self._is_fixed(name)):
                self.get_submodule(name).eval()
        return self

    def fixed(self) -> int:
        """How many parts, from the first on, make the same of an image in every step: still, and nothing trains."""
        return sum(1 for _ in takewhile(self._is_fixed, (name for name, _ in self.parts())))

    def _is_fixed(self, part: str) -> bool:
        within = tuple(f"{name}." for name in sections(self.architecture)[: self.still])
        trains = any(parameter.requires_grad for parameter in self.get_submodule(part).parameters())
        return f"{part}.".startswith(within) and not trains
