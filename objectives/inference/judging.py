"""How good an exported network is on labelled images: those that validated it, a test split, or all there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from objectives.data.cache.stored import Stored
from objectives.data.dataset import Images, as_images, digest, load
from objectives.data.reading import read
from objectives.data.sources import Labelled
from objectives.errors import DataError
from objectives.export import ExportedModel
from objectives.inference import answers
from objectives.inference.answers import Confusion
from objectives.inference.calibration import expected_error
from objectives.task import DataSpec
from objectives.words import counted, printable, some

Split = Literal["test", "validation", "all"]


@dataclass(frozen=True)
class Judgement:
    """What a network told of images, by what they are."""

    split: Split  # that they are of
    confusion: Confusion
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
    parts, split, remarks = _images(model, answers.sized(model, spec), split)
    y, told = torch.cat([images.y for images in parts]), list[Tensor]()

    def advance(done: int) -> None:
        progress("testing", sum(map(len, told)) + done, len(y))

    for images in parts:
        told.append(answers.logits(model, images.x, advance))
    logits = torch.cat(told)
    confusion = answers.confusion(y, logits.argmax(1), len(model.classes))
    off = _error(logits / model.calibration.temperature, y)
    return Judgement(split, confusion, off, _error(logits, y), tuple(remarks))


def _error(logits: Tensor, y: Tensor) -> float:
    return expected_error(logits.softmax(1), y)


def _images(model: ExportedModel, spec: DataSpec, split: Split | None) -> tuple[list[Images], Split, list[str]]:
    if split == "validation":
        return [_validation(model, spec)], split, []
    test = None if split == "all" else read(spec, test=True)
    if split == "test" and test is None:
        raise DataError(printable(f"{spec.name} has no test split: --split all takes all its images"))
    if test is not None:
        images, remarks = _known(model, test)
        return [images], "test", remarks
    parts = [part for part in (read(spec), read(spec, test=True)) if part is not None]
    read_as = [_known(model, part) for part in parts]
    remarks = [] if split else ["there is no test split: these are all images"]
    if _was_trained_on(model, parts[0]):
        remarks.append("the network was trained on most of these images: on others it is less accurate")
    remarks += dict.fromkeys(remark for _, said in read_as for remark in said)
    return [images for images, _ in read_as], "all", remarks


def _validation(model: ExportedModel, spec: DataSpec) -> Images:
    """The images that validated the network, which must be the same."""
    known = cast("Mapping[str, object]", model.about.get("split") or {})
    if model.about.get("accuracy") is None:
        raise DataError("the network was trained on all images, those that validate included: --split test")
    what, way_out = (
        printable(f"{spec.name} does not have the images that validated this network"),
        "--split test or all",
    )
    shape = {} if spec.is_series else {"channels": model.channels}
    try:
        dataset = load(replace(spec, **shape, **known), torch.device("cpu"))  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(f"{what} ({error}): {way_out}") from error
    if not answers.is_validated_by(model, dataset):
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
        remarks.append(f"{counted(len(found.skipped), 'file')} cannot be used ({some(found.skipped)})")
    if found.pixels.shape[-1] > model.channels and not model.is_series:
        remarks.append("the images have colour, the network takes grey: they are shown to it in grey")
    pixels = answers.fitting(model, found)
    chosen, labels = np.arange(len(pixels)), position[found.labels]
    return as_images(pixels, labels, chosen, streamed=isinstance(pixels, Stored)), remarks


def _was_trained_on(model: ExportedModel, found: Labelled) -> bool:
    """Whether these are the images of which some were trained on."""
    known = cast("Mapping[str, object]", model.about["data"])
    return known["content"] == digest(answers.fitting(model, found), found.labels, found.classes)
