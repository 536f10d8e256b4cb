"""How good an exported network is on labelled images: those that validated it, a test split, or all there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from objectives.data.dataset import Images, as_images, digest, load, resized, with_channels
from objectives.data.reading import read
from objectives.data.sources import Bytes, Labelled
from objectives.errors import DataError
from objectives.export import ExportedModel
from objectives.inference.calibration import expected_error
from objectives.task import DataSpec
from objectives.words import counted, printable, some

Split = Literal["test", "validation", "all"]


@dataclass(frozen=True)
class Judgement:
    """What a network told of images, by what they are."""

    split: Split  # that they are of
    confusion: tuple[tuple[int, ...], ...]  # [n_classes, n_classes] images of a class (row) that are told as another
    calibration_error: float  # expected, of the probabilities as they are
    uncalibrated_error: float  # ... as they would be at temperature 1
    remarks: tuple[str, ...]  # what should be known of the images, a line each

    @property
    def per_class(self) -> tuple[int, ...]:
        """Images of each class."""
        return tuple(map(sum, self.confusion))

    @property
    def n(self) -> int:
        """Images."""
        return sum(self.per_class)

    @property
    def accuracy(self) -> float:
        """Share that is told rightly."""
        return sum(row[at] for at, row in enumerate(self.confusion)) / self.n

    @property
    def recalls(self) -> tuple[float | None, ...]:
        """Share of each class that is told rightly; None of a class without images."""
        return tuple(
            row[at] / n if n else None for at, (row, n) in enumerate(zip(self.confusion, self.per_class, strict=True))
        )

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the recalls of the classes that there are."""
        there = [recall for recall in self.recalls if recall is not None]
        return sum(there) / len(there)


def judged(
    model: ExportedModel, spec: DataSpec, split: Split | None, progress: Callable[[str, int, int], None]
) -> Judgement:
    """What the network makes of the images that the spec names; of the test split, or all where there is none.

    Raises:
        DataError: there are none such, or they show what the network does not know.
    """
    if spec.is_series != model.is_series:
        held, taken = ("series", "images") if spec.is_series else ("images", "series")
        raise DataError(printable(f"{spec.name} holds {held}, and the network takes {taken}"))
    spec = spec if spec.is_series else replace(spec, size=model.size)
    images, split, remarks = _images(model, spec, split)
    device, found = next(model.network.parameters()).device, []
    for x in torch.split(images.x[:, :, 0] if model.is_series else images.x, model.at_once):
        found.append(model.logits(x.to(device)).cpu())
        progress("testing", sum(map(len, found)), len(images.y))
    logits, n = torch.cat(found), len(model.classes)
    confusion = torch.bincount(n * images.y + logits.argmax(1), minlength=n * n).view(n, n)
    off = _error(logits / model.calibration.temperature, images.y)
    return Judgement(split, tuple(map(tuple, confusion.tolist())), off, _error(logits, images.y), tuple(remarks))


def _error(logits: Tensor, y: Tensor) -> float:
    return expected_error(logits.softmax(1), y)


def _images(model: ExportedModel, spec: DataSpec, split: Split | None) -> tuple[Images, Split, list[str]]:
    if split == "validation":
        return _validation(model, spec), split, []
    test = None if split == "all" else read(spec, test=True)
    if split == "test" and test is None:
        raise DataError(printable(f"{spec.name} has no test split: --split all takes all its images"))
    if test is not None:
        images, remarks = _known(model, test)
        return images, "test", remarks
    parts = [part for part in (read(spec), read(spec, test=True)) if part is not None]
    read_as = [_known(model, part) for part in parts]
    remarks = [] if split else ["there is no test split: these are all images"]
    if _was_trained_on(model, parts[0]):
        remarks.append("the network was trained on most of these images: on others it is less accurate")
    remarks += dict.fromkeys(remark for _, said in read_as for remark in said)
    x, y = (torch.cat([getattr(images, name) for images, _ in read_as]) for name in ("x", "y"))
    return Images(x, y), "all", remarks


def _validation(model: ExportedModel, spec: DataSpec) -> Images:
    """The images that validated the network, which must be the same."""
    known = cast("Mapping[str, object]", model.about.get("split") or {})
    if model.about.get("accuracy") is None:
        raise DataError("the network was trained on all images, those that validate included: --split test")
    what, way_out = (
        printable(f"{spec.name} does not have the images that validated this network"),
        "--split test or all",
    )
    try:
        spec = replace(spec, channels=None if spec.is_series else model.channels, **known)  # type: ignore[arg-type]
        dataset = load(spec, torch.device("cpu"))
    except DataError as error:
        raise DataError(f"{what} ({error}): {way_out}") from error
    told = cast("Mapping[str, object]", model.about["data"])
    if (told["content"], told["split"]) != (dataset.content_hash, dataset.split_hash):
        raise DataError(f"{what}, or splits them otherwise: {way_out}")
    return dataset.val


def _known(model: ExportedModel, found: Labelled) -> tuple[Images, list[str]]:
    """Images as the network takes them, with the positions of its own classes, and remarks.

    Raises:
        DataError: there are classes that it does not know.
    """
    there = {found.classes[label] for label in np.unique(found.labels)}
    if others := sorted(there - {*model.classes}):
        what = f"{counted(len(others), 'class')} that the network does not know: {some(others)}"
        raise DataError(printable(f"{what}: it knows {some(model.classes, 5)}"))
    position = np.array([model.classes.index(name) if name in there else -1 for name in found.classes])
    remarks = list(found.warnings)
    if found.skipped:
        remarks.append(f"{counted(len(found.skipped), 'image')} cannot be used ({some(found.skipped)})")
    if model.is_series and found.pixels.shape[1:] != (1, model.size, model.channels):
        _, length, channels = found.pixels.shape[1:]
        held = f"{counted(channels, 'channel')} of length {length}"
        taken = f"{counted(model.channels, 'channel')} of length {model.size}"
        raise DataError(f"the series have {held}, the network takes {taken}")
    if not model.is_series and found.pixels.shape[-1] > model.channels:
        remarks.append("the images have colour, the network takes grey: they are shown to it in grey")
    pixels = _pixels(model, found)
    return as_images(pixels, position[found.labels], np.arange(len(pixels))), remarks


def _pixels(model: ExportedModel, found: Labelled) -> Bytes:
    if model.is_series:
        return found.pixels
    return resized(with_channels(found.pixels, model.channels), model.size)


def _was_trained_on(model: ExportedModel, found: Labelled) -> bool:
    """Whether these are the images of which some were trained on."""
    known = cast("Mapping[str, object]", model.about["data"])
    return known["content"] == digest(_pixels(model, found), found.labels, found.classes)
