"""Features: what the fixed first parts of a network make of the training images, computed once, not in every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from objectives.data.augment import Batches
from objectives.data.room import free_on_host
from objectives.data.streaming import Streamed
from objectives.device.formats import FORMATS
from objectives.networks.base import Network
from objectives.networks.resnet import ResNet
from objectives.state import TrainState

SHARE = 0.25  # of the free memory that features may take: steps need some, and trainings beside it as much


class Features:
    """What the first parts of a network make of each training image, and of its mirror image where batches have those.

    It is computed where an epoch first asks for it, as in evaluation, and kept. An image has a place; its mirror image
    is as many places behind it as there are images.
    """

    def __init__(self, state: TrainState, n_sides: int) -> None:
        self.n_parts = state.trainee.model.fixed()
        self.n_new = 0  # places that the last epoch had to compute
        self._x, self._normalise, self._number_format = state.data.x, state.normalise, state.pipeline.number_format
        self._model = state.trainee.model
        self._tensors = {name: tensor.clone() for name, tensor in _tensors(self._model).items()}
        self._n, self._device = len(state.data.y), state.data.y.device
        one = torch.zeros(1, dtype=torch.int64, device=self._device)
        like = self._computed(self._x[one], one > 0)
        self.shape, self._like = tuple(like.shape[1:]), _last(like)
        self._places = n_sides * self._n
        self.n_bytes = self._places * like.numel() * like.element_size()
        self._all: Tensor | None = None  # [places, ...], channels last
        self._is_known = torch.zeros(self._places, dtype=torch.bool, device=self._device)

    def still_hold(self, state: TrainState) -> bool:
        """Whether they are those of a network, which then computes what is missing."""
        model, tensors = state.trainee.model, _tensors(state.trainee.model)
        alike = state.pipeline.number_format == self._number_format and tensors.keys() == self._tensors.keys()
        if not alike or not all(torch.equal(tensor, self._tensors[name]) for name, tensor in tensors.items()):
            return False
        self._model = model
        return True

    def let_go(self) -> None:
        """Gives their memory back."""
        self._all = None

    def compute(self, places: Tensor, at_once: int) -> None:
        """Computes what is missing at these places, of so many images at once."""
        if self._all is None:
            shape, dtype = (self._places, *self._like.shape[1:]), self._like.dtype
            self._all = torch.empty(shape, dtype=dtype, device=self._device)
        missing = torch.unique(places[~self._is_known[places]])
        self.n_new = len(missing)
        parts = torch.split(missing, at_once) if self.n_new else ()
        for some, x in zip(parts, self._pixels([part % self._n for part in parts]), strict=True):
            self._all[some] = _last(self._computed(x, some >= self._n))
        self._is_known[missing] = True

    def at(self, places: Tensor) -> Tensor:
        """What is known at these places, in channels_last."""
        assert self._all is not None
        found = self._all.index_select(0, places)
        return found.permute(0, 3, 1, 2) if found.dim() == 4 else found

    def _pixels(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images at the positions of each part."""
        x = self._x
        return x.ahead(parts) if isinstance(x, Streamed) else (x[part] for part in parts)

    @torch.no_grad()
    def _computed(self, x: Tensor, mirrored: Tensor) -> Tensor:
        """What the parts make of images, of which some are mirrored first."""
        model = self._model
        x = self._normalise(x)
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x).contiguous(memory_format=torch.channels_last)
        x = x.to(next(model.parameters()).dtype)
        parts = model.parts()
        with FORMATS[self._number_format].context(self._device):
            for _, compute in parts[: self.n_parts]:
                x = compute(x)
            # the head of a residual network reads means, and those of a mean are the same
            pools = isinstance(model, ResNet) and self.n_parts == len(parts) - 1
            return x.mean((2, 3), keepdim=True) if pools else x


def fed(state: TrainState, batches: Batches) -> tuple[TrainState, Batches]:
    """The state, and the batches that it trains on next: features in the place of images where those can be kept.

    They can where parts of the network are fixed, an image has few sides and memory suffices, which is said where it
    does not, and where no strategy looks at images or at what the norms read.
    """
    before = batches.features
    batches = batches.over(state.data, state.pipeline.batch_size, repeats=state.repeats)
    model, n_sides = state.trainee.model, batches.n_sides
    looked_at = any(strategy.reads_images or strategy.reads_activations for strategy in state.pipeline.strategies)
    if model.fixed() == 0 or n_sides is None or looked_at:
        return state, batches.of(None)
    if isinstance(before, Features):
        if batches.features is before and before.still_hold(state):
            return state, batches
        before.let_go()
    found, free = Features(state, n_sides), _free(state.data.y.device)
    if free is None or found.n_bytes <= SHARE * free:
        return state, batches.of(found)
    if state.epoch == 0 or before is not None:
        sizes = f"they would take {found.n_bytes / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
        state = state.with_event(f"features of frozen parts are computed anew in every epoch: {sizes}")
    return state, batches.of(None)


def _free(device: torch.device) -> int | None:
    """Bytes of the memory of a device that are free; None: nobody knows."""
    if device.type != "cuda":
        return free_on_host()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by the allocator, for nobody
    return torch.cuda.mem_get_info(device)[0] + held


def _last(x: Tensor) -> Tensor:
    """x with its channels last, as its memory lies."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _tensors(model: Network) -> dict[str, Tensor]:
    """The tensors of the parts that are fixed, by name."""
    parts = [name for name, _ in model.parts()[: model.fixed()]]
    return {f"{part}.{key}": t for part in parts for key, t in model.get_submodule(part).state_dict().items()}
