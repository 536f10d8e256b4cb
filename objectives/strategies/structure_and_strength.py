"""Structure and strength: filters keep their shape, and how strong each is is all that is learned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from objectives.networks.architecture import HEAD
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.whitening import Whitening

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.network import Network
    from objectives.networks.resnet import Convolution
    from objectives.networks.trainee import Trainee
    from objectives.state import Step, TrainState

Dictionary = Literal["patches", "random"]
SHADOW = "structure"  # name of the shadow whose kernels have the directions that those of the network keep
BYTES = 64 << 20  # of patches of a layer that are looked at, at most, but of one image at least


@dataclass(frozen=True)
class StructureAndStrength(Strategy):
    """Gives every kernel a structure D that stays, and learns its strength: W[o, i] = t[o, i] D[o, i].

    SSF-CNN (Keshari, Vatsa, Singh & Noore 2018, arXiv 1803.11405), for few images: of a 3x3 kernel one number is
    learned instead of nine. Structures come layer by layer from the patches that a layer reads, those of the first
    batch. Two departures: the dictionary of a layer is the principal components of these patches, where the paper
    learns one of sparse codes; and a kernel's strength begins as the projection of its random start on its structure,
    times the side of the kernel, so that a layer begins with the variance that it has anyway.

    No parameter is added. With structures of length 1 the gradient of t is <dW, D>, so that a step of SGD on the
    strengths, with momentum and weight decay, is one on the weights that is projected on the structures afterwards:
    the same numbers, and a network like any other to evaluate and to export. Of other optimizers it projects the steps.
    Forward and backward pass multiply as much as without it: it can save images alone, and here it did not
    (benchmarks/ingredients.md).

    New kernels of a network that grows have the direction that they begin with, or where they begin at 0 those of
    others of their layer. Put it before strategies that average weights.

    Raises:
        ValueError: a parameter outside its range.
    """

    # Filters of another kind to begin with; kernels of other sizes; weights held at 0, which structures are not; a way
    # back to before the structures were let go.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (
        IdentityInit,
        Whitening,
        KernelRescaling,
        LowRank,
        LotteryTicket,
        Adaptive,
    )

    until: float = 1.0  # share of the run until which structures stay, in [0, 1]; 1: to the end, 0 changes nothing
    dictionary: Dictionary = "patches"  # random: every kernel keeps the direction of its random start, as a control
    since: int | None = learned(None)  # epoch after which they are free

    def __post_init__(self) -> None:
        if not 0 <= self.until <= 1 or self.dictionary not in get_args(Dictionary):
            raise ValueError(f"{self!r}: until must lie in [0, 1], dictionary is patches or random")

    def describe(self) -> str:
        until = "" if self.until == 1 else f" until {self.until:.0%} of the run"
        return f"strengths of {'random' if self.dictionary == 'random' else 'learned'} structures{until}"

    def idle(self, outline: Outline) -> str | None:
        if self.until == 0:
            return "structures are free from the start"
        layers = outline.full.layers(outline.size)
        has_any = any(layer.kernel > 1 and not layer.is_dense and layer.writes != HEAD for layer in layers)
        return None if has_any else "the network has no convolution of more than a pixel"

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.until == 0:
            return state
        from objectives.networks import surgery
        from objectives.networks.trainee import Shadow

        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        if self.dictionary == "patches":
            _structure(trainee.model, x)
        kernels = {name: layer.weight.detach().clone() for name, layer in _structured(trainee.model).items()}
        return replace(state, trainee=trainee.with_shadow(SHADOW, Shadow(kernels, "weight")))

    def between_epochs(self, state: TrainState) -> TrainState:
        if self.until in (0, 1) or self.since is not None or not state.is_due(self.until):
            return state
        from objectives.networks import surgery

        state = state.with_strategy(self, self.having_learned(since=state.epoch))
        trainee = surgery.reindex(state.trainee, {})  # a copy: the old trainee stays as it is
        for name, structure in trainee.shadows[SHADOW].tensors.items():
            for remembered in trainee.optimizer.state[trainee.model.get_parameter(name)].values():
                if remembered.shape == structure.shape:  # what was never applied would be from here on
                    remembered.copy_(_projected(remembered, structure))
        shadows = {name: shadow for name, shadow in trainee.shadows.items() if name != SHADOW}
        return replace(state, trainee=replace(trainee, shadows=shadows)).with_event("structures are free from here on")

    def bound(self, state: TrainState) -> Strategy:
        """Itself, once the kernels that growth began at 0 have a structure."""
        if self.until > 0 and self.since is None:
            for structure in state.trainee.shadows[SHADOW].tensors.values():
                _fill(structure)
        return self

    def after_step(self, trainee: Trainee, step: Step) -> None:
        if SHADOW not in trainee.shadows:
            return
        import torch

        with torch.no_grad():
            for name, structure in trainee.shadows[SHADOW].tensors.items():
                weight = trainee.model.get_parameter(name)
                if weight.requires_grad:
                    weight.copy_(torch.where(step.taken > 0, _projected(weight, structure), weight))


def _structured(model: Network) -> dict[str, Convolution]:
    """The convolutions whose kernels have a structure, each with the name of its weight."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    chosen = [layer for layer in model.convolutions() if layer.kernel_size != (1, 1) and layer.weight.requires_grad]
    return {names[id(layer.weight)]: layer for layer in chosen}


def _projected(weight: Tensor, structure: Tensor) -> Tensor:
    """Every kernel of [out, in, height, width] on the line of its structure, whatever the length of that; 0 on 0."""
    import torch

    length = (structure * structure).sum((2, 3), keepdim=True).clamp(min=torch.finfo(structure.dtype).tiny)
    return (weight * structure).sum((2, 3), keepdim=True) / length * structure


def _fill(structure: Tensor) -> None:
    """Gives the kernels of a layer that are 0 those of others, in turn. In place."""
    import torch

    kernels = structure.flatten(0, 1)
    is_empty = ~kernels.flatten(1).any(1)
    if bool(is_empty.any()) and not bool(is_empty.all()):
        known = kernels[~is_empty]
        turns = torch.arange(int(is_empty.sum()), device=known.device) % len(known)
        kernels[is_empty] = known[turns]
        structure.copy_(kernels.view_as(structure))


def _structure(model: Network, x: Tensor) -> None:
    """Lets every kernel begin as a multiple of a principal component of what its layer reads. In place.

    From the first layer to the last, so that each reads what the ones before it put out with their own structures. Of a
    layer's components output o has the (o + i)-th for input i, so that each input is seen through all of them.
    """
    from copy import deepcopy

    import torch

    watched = deepcopy(model).train()  # batch norms of the model keep their statistics
    watched.unwrap()

    def begun(layer: Convolution, x: Tensor) -> Tensor:
        atoms = _components(x, layer)
        n_out, n_in = layer.weight.shape[:2]
        turns = (torch.arange(n_out)[:, None] + torch.arange(n_in)) % len(atoms)
        mine = atoms.to(layer.weight)[turns.to(layer.weight.device)].view_as(layer.weight)
        layer.weight.copy_(_projected(layer.weight, mine) * len(atoms) ** 0.5)
        return layer.plainly(x)

    for copied, layer in zip(watched.convolutions(), model.convolutions(), strict=True):
        if layer.kernel_size != (1, 1) and layer.weight.requires_grad:
            copied.compute = partial(begun, layer)
    with torch.no_grad():
        watched(x)


def _components(x: Tensor, layer: Convolution) -> Tensor:
    """[taps, taps] the directions of the patches of a layer's kernels in x, of every channel by itself, in double."""
    import torch
    from torch.nn.functional import unfold

    height, width = layer.kernel_size
    n = max(1, BYTES // (8 * height * width * x[0].numel()))
    fits = x.shape[2] >= height and x.shape[3] >= width
    patches = unfold(x[:n].double(), (height, width), padding=0 if fits else layer.borders)
    by_tap = patches.view(len(x[:n]), x.shape[1], height * width, -1).transpose(1, 2).flatten(2)  # [images, taps, all]
    moments = (by_tap @ by_tap.mT).sum(0).cpu()  # small, and a GPU would first have to load its solver
    directions: Tensor = torch.linalg.eigh(moments).eigenvectors
    return directions.T.flip(0)
