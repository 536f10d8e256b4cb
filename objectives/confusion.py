"""What an exported network takes for what, of the images that validated it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from objectives.data.dataset import load
from objectives.data.decoding import as_jpeg
from objectives.errors import DataError
from objectives.evaluation import images_at_once
from objectives.export import ExportedModel, load_model
from objectives.task import DataSpec

MOST_MISTAKES = 8  # that are shown: the surest
LARGEST = 96  # pixels: side of their pictures
BATCH_SIZE = 64  # images whose training step would take as much memory


@dataclass(frozen=True)
class Confusion:
    """What a network says of images, by what they are."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]  # images, by class and by answer
    mistakes: tuple[tuple[bytes, str, str, float], ...]  # (JPEG, class, answer, its probability), the surest first


class Looker:
    """The validation images of a study, in memory, to be shown to its networks.

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
        data = cast("Mapping[str, object]", model.about.get("data", {}))
        if (data.get("content"), data.get("split")) != (self._dataset.content_hash, self._dataset.split_hash):
            raise DataError(f"{folder} was trained on other images than those that are there now")
        if model.is_series:
            raise DataError(f"{folder} takes series: only images are shown")
        images = self._dataset.val
        said = _probabilities(model, images.x)
        surest, answers = said.max(1)
        n = len(model.classes)
        counts = torch.bincount(images.y * n + answers, minlength=n * n).reshape(n, n)
        wrong = (answers != images.y).nonzero().flatten()
        chosen = wrong[surest[wrong].argsort(descending=True, stable=True)][:MOST_MISTAKES]
        mistakes = (
            (_picture(images.x[i]), model.classes[images.y[i]], model.classes[answers[i]], float(surest[i]))
            for i in chosen
        )
        return Confusion(model.classes, tuple(map(tuple, counts.tolist())), tuple(mistakes))


def _probabilities(model: ExportedModel, x: Tensor) -> Tensor:
    """[n, n_classes] of images x: [n, channels, size, size] uint8, a few at once."""
    at_once = images_at_once(model.network.architecture, x.shape[-1], BATCH_SIZE)
    return torch.cat([model.probabilities(x[start : start + at_once]) for start in range(0, len(x), at_once)])


def _picture(image: Tensor) -> bytes:
    """An image [channels, size, size] uint8 as a JPEG file, not larger than is shown."""
    step = -(-image.shape[-1] // LARGEST)
    return as_jpeg(image[:, ::step, ::step].permute(1, 2, 0).contiguous().numpy())
