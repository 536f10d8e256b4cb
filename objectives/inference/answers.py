"""Labelled images, or series, as an exported network takes them, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from objectives.data.cache.stored import Pixels, with_channels
from objectives.data.dataset import Dataset, resized
from objectives.data.sources import Labelled
from objectives.data.streaming import Streamed
from objectives.errors import DataError
from objectives.export import ExportedModel
from objectives.task import DataSpec
from objectives.words import printable

Confusion = tuple[tuple[int, ...], ...]  # [n_classes, n_classes] images of a class (row) that are told as another


def sized(model: ExportedModel, spec: DataSpec) -> DataSpec:
    """The data, images decoded at the size that the network takes.

    Raises:
        DataError: these are images and it takes series, or the other way round.
    """
    if spec.is_series != model.is_series:
        holds, takes = ("series", "images") if spec.is_series else ("images", "series")
        raise DataError(printable(f"{spec.name} holds {holds}, the network takes {takes}: name those"))
    return spec if spec.is_series else replace(spec, size=model.size)


def fitting(model: ExportedModel, found: Labelled) -> Pixels:
    """What was read as the network takes it: [n, size, size, channels], or [n, 1, length, channels].

    Raises:
        DataError: series of another length, or of other channels.
    """
    if not model.is_series:
        return resized(with_channels(found.pixels, model.channels), model.size)
    _, _, length, channels = found.pixels.shape
    if (length, channels) != (model.size, model.channels):
        what = f"the series have {channels} channels of length {length}"
        raise DataError(f"{what}, the network takes {model.channels} of length {model.size}")
    return found.pixels


def as_taken(model: ExportedModel, x: Tensor) -> Tensor:
    """Images as data sets have them, as the network takes them: of series without their height."""
    return x[:, :, 0] if model.is_series else x


def is_validated_by(model: ExportedModel, dataset: Dataset) -> bool:
    """Whether the network was trained on these data in this split."""
    known = cast("Mapping[str, object]", model.about.get("data") or {})
    return (known.get("content"), known.get("split")) == (dataset.content_hash, dataset.split_hash)


def logits(model: ExportedModel, x: Tensor | Streamed, progress: Callable[[int], None] = lambda done: None) -> Tensor:
    """[n, n_classes] on the CPU of images as data sets have them, a few at once; `progress` is told how many it was."""
    device, found = next(model.network.parameters()).device, list[Tensor]()
    for start in range(0, len(x), model.at_once):
        some = x[start : start + model.at_once]
        found.append(model.logits(as_taken(model, some).to(device)).cpu())
        progress(sum(map(len, found)))
    return torch.cat(found)


def confusion(y: Tensor, answers: Tensor, n: int) -> Confusion:
    """How many images of each of `n` classes are told as which."""
    return tuple(map(tuple, torch.bincount(n * y + answers, minlength=n * n).view(n, n).tolist()))
