"""What an exported network takes for what, of the images that validated it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from objectives.data.dataset import load
from objectives.data.decoding import as_jpeg
from objectives.errors import DataError
from objectives.export import load_model
from objectives.inference import answers
from objectives.task import DataSpec

MOST_MISTAKES = 8  # that are shown: the surest
LARGEST = 96  # pixels: side of their pictures


@dataclass(frozen=True)
class Confusion:
    """What a network says of images, by what they are."""

    classes: tuple[str, ...]
    counts: answers.Confusion
    mistakes: tuple[tuple[bytes, str, str, float], ...]  # (JPEG, class, answer, its probability), the surest first


class Looker:
    """The validation images of a study, to be shown to its networks.

    Raises:
        DataError: they cannot be read.
    """

    def __init__(self, spec: DataSpec) -> None:
        self._dataset = load(spec, torch.device("cpu"))

    def look(self, folder: Path) -> Confusion:
        """What the network that was exported to `folder` says of them; of several splits, of the first, its own.

        Raises:
            ValueError: the folder holds no network.
            DataError: the network was trained on other data.
        """
        model = load_model(folder)
        if not answers.is_validated_by(model, self._dataset):
            raise DataError(f"{folder} was trained on other images than those that are there now")
        images = self._dataset.val
        said = (answers.logits(model, images.x) / model.calibration.temperature).softmax(1)
        surest, told = said.max(1)
        wrong = (told != images.y).nonzero().flatten()
        chosen = wrong[surest[wrong].argsort(descending=True, stable=True)][:MOST_MISTAKES]
        shown = () if model.is_series else zip(chosen, images.x[chosen], strict=True)  # nobody sees what a series is
        mistakes = (
            (_picture(image), model.classes[images.y[i]], model.classes[told[i]], float(surest[i]))
            for i, image in shown
        )
        return Confusion(model.classes, answers.confusion(images.y, told, len(model.classes)), tuple(mistakes))


def _picture(image: Tensor) -> bytes:
    """An image [channels, size, size] uint8 as a JPEG file, not larger than is shown."""
    step = -(-image.shape[-1] // LARGEST)
    return as_jpeg(image[:, ::step, ::step].permute(1, 2, 0).contiguous().numpy())
