"""What a network tells of image files, in their order, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.data.cache.decoders import n_cores
from objectives.data.cache.stored import converted
from objectives.data.sources import Bytes
from objectives.export import ExportedModel
from objectives.inference.images import Found, decoded, told

TOP = 3  # classes that are told of an image, the likeliest first


@dataclass(frozen=True)
class Prediction:
    """What a network tells of an image."""

    top: tuple[tuple[str, float], ...]  # the likeliest classes with their probabilities, TOP of them at most
    margin: float  # by how much the likeliest is more probable than the next

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Its probability, calibrated where the network is."""
        return self.top[0][1]


Answer = Prediction | str | None  # of a file: a prediction, why there is none, or None for no image and not called one


def predictions(model: ExportedModel, files: Sequence[Found], top: int = TOP) -> Iterator[Answer]:
    """The answer to every file, in order, computed where the network is; it tells the `top` likeliest classes.

    Raises:
        OSError: the folder for temporary files cannot be written.
    """
    answers: dict[int, Answer] = {}
    at, n_threads = 0, torch.get_num_threads()
    # The other cores decode: threads that wait for one another there took 35 s instead of 10 for 10,000 images of 32
    # pixels on two busy cores (2026-11-26).
    torch.set_num_threads(max(1, min(n_threads, n_cores() // 2)))
    try:
        for part in decoded(files, model.size):
            faults = {position: told(files[position], fault) for position, fault in part.faults.items()}
            answers |= faults | dict(zip(part.kept, of_pixels(model, part.pixels, top), strict=True))
            while at in answers:
                yield answers.pop(at)
                at += 1
    finally:
        torch.set_num_threads(n_threads)


def of_pixels(model: ExportedModel, pixels: Bytes, top: int = TOP) -> Iterator[Prediction]:
    """The prediction of each of some images [n, size, size, 1 or 3]."""
    return of_inputs(model, torch.from_numpy(converted(pixels, model.channels)).permute(0, 3, 1, 2), top)


def of_inputs(model: ExportedModel, inputs: Tensor, top: int = TOP) -> Iterator[Prediction]:
    """The prediction of each of some inputs as `ExportedModel.logits` takes them, a few computed at once."""
    device = next(model.network.parameters()).device
    for x in torch.split(inputs, model.at_once):
        if not len(x):
            return
        found = model.probabilities(x.to(device)).cpu()
        sure, which = found.topk(min(top, found.shape[1]))
        for numbers, classes in zip(sure.tolist(), which.tolist(), strict=True):
            likeliest = tuple((model.classes[c], p) for c, p in zip(classes, numbers, strict=True))
            yield Prediction(likeliest, numbers[0] - (numbers[1] if len(numbers) > 1 else 0.0))
