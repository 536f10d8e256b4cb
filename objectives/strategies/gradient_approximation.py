"""Gradient approximation: a part of the gradients of the weights is not computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from objectives.strategies.base import Multiply, Outline, Strategy, learned

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.networks.resnet import Convolution
    from objectives.networks.sequential import Dense
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState
    from objectives.strategies.methods.weight_gradients import Chosen


@dataclass(frozen=True)
class GradientApproximation(Strategy):
    """Leaves out a share of the work behind the gradients of convolutions' weights, and does not compute it.

    After Wang, Nelaturu & Amarasinghe 2019 ("Accelerated CNN Training Through Gradient Approximation"), who leave the
    input's gradients exact. Which of their approximations these are is read from their abstract alone:

    * `batch`: from the first samples of the batch, as many as are left. In the mean it is the gradient itself, but
      behind batch norms what samples say cancels only over all that are normalised together: half of 64 err by 1.4 to
      1.7 times the length of the gradient, where a batch of 32 errs by 0.9 (thin family on Fashion-MNIST, at the start
      and after 50 steps). Ghost batches as large as what is left err as those do.
    * `skip`: in a share of the steps, by lot, these weights get none: momentum and weight decay go on.
    * `early`: in such steps all that lies below the last stage gets none, and the backward pass ends there.

    The first takes the same way in every step. The others decide on the host, which a CUDA graph cannot. What is not
    computed is not counted among the FLOPs of the training; by its share, whatever the lot was. Exact stay the first
    convolution and those of one tap, but in `early`.

    Raises:
        ValueError: a parameter outside its range.
    """

    innermost = True  # what others make of input and weight is around it: else it would form gradients of neither

    mode: Literal["batch", "skip", "early"] = "batch"
    share: float = 0.5  # that is left out, in [0, 1): of samples, or of steps; 0 changes nothing
    until: float = 1.0  # share of the run after which gradients are exact, in (0, 1]
    chosen: Chosen | None = learned(None)  # what it acts on in this segment; None: nothing

    def __post_init__(self) -> None:
        if self.mode not in ("batch", "skip", "early"):
            raise ValueError(f"{self!r}: mode is batch, skip or early")
        if not 0 <= self.share < 1 or not 0 < self.until <= 1:
            raise ValueError(f"{self!r}: share must lie in [0, 1), until in (0, 1]")

    @property
    def capturable(self) -> bool:
        return self.mode == "batch"

    def describe(self) -> str:
        until = "" if self.until == 1 else f" until {self.until:.0%} of the run"
        what = {
            "batch": f"weight gradients from {1 - self.share:.0%} of the samples",
            "skip": f"no weight gradients in {self.share:.0%} of the steps",
            "early": f"no gradients below the last stage in {self.share:.0%} of the steps",
        }
        return what[self.mode] + until

    def idle(self, outline: Outline) -> str | None:
        if self.share == 0:
            return "it leaves nothing out"
        layers = [layer for layer in outline.full.layers(outline.size) if not layer.is_dense]
        if self.mode == "early":
            return None if len(layers) > 1 else "there is no convolution behind the first"
        wide = any(layer.kernel > 1 for layer in layers[1:])
        return None if wide else "there is no convolution behind the first with more than one tap"

    def between_epochs(self, state: TrainState) -> TrainState:
        ends = self.share > 0 and self._acts(state.epoch - 1, state) and not self._acts(state.epoch, state)
        return state.with_event("gradients are exact from here on") if ends else state

    def _acts(self, epoch: int, state: TrainState) -> bool:
        """Whether it acts in the epoch that begins after so many."""
        return epoch / state.pipeline.epochs < self.until - 1e-9

    def bound(self, state: TrainState) -> Strategy:
        model = state.trainee.model
        if self.share == 0 or not self._acts(state.epoch, state):
            return self if self.chosen is None else self.having_learned(chosen=None)
        if self.chosen is not None and self.chosen.model is model:
            return self
        from objectives.strategies.methods import weight_gradients

        early = self.mode == "early"
        chosen = (weight_gradients.of_early_parts if early else weight_gradients.of_weights)(model)
        return self.having_learned(chosen=chosen)

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.chosen is not None and not self.capturable:
            import torch

            self.chosen.lot.leaves_out = float(torch.rand(())) < self.share
        return x, y

    def product(self, layer: Convolution | Dense, multiply: Multiply) -> Multiply:
        chosen, share = self.chosen, 1 - self.share
        if chosen is None or layer not in chosen.layers | chosen.entries:
            return multiply
        lot = chosen.lot
        match self.mode:
            case "skip":
                return lambda x, weight: multiply(x, weight.detach() if lot.leaves_out else weight)
            case "early":
                return lambda x, weight: multiply(x.detach() if lot.leaves_out else x, weight)
            case "batch":
                from objectives.strategies.methods.weight_gradients import sampled

                return sampled(layer, multiply, share)

    def gradients(self, trainee: Trainee, step: Step) -> None:
        """Zeros in the place of what was left out, so that momentum and weight decay go on."""
        if self.chosen is None or not self.chosen.lot.leaves_out:
            return
        import torch

        for name in self.chosen.names:
            parameter = trainee.model.get_parameter(name)
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def left_out(self, model: Network) -> tuple[frozenset[str], float]:
        if self.chosen is None or self.chosen.model is not model:
            return frozenset(), 0.0
        return self.chosen.names, self.share
