"""Exported networks at work: predictions of files, arrays and Pillow images, one after the other."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from frontrunner.errors import plain

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from objectives.export import ExportedModel
    from objectives.inference.predictions import Answer

Picture: TypeAlias = "str | os.PathLike[str] | npt.NDArray[np.generic] | Image.Image"
FILES, PICTURES = 4096, 256  # that are looked at in one go: more take more memory, fewer more time
CHANNELS = 1, 3, 4  # of an array that is one image
SHOWN = 20  # predictions that a notebook shows


@dataclass(frozen=True)
class Prediction:
    """What a network tells of an image."""

    source: str  # its file, or its position among what was given
    label: str | None  # the likeliest class; None: there is no prediction
    probability: float  # of that class, calibrated where the network is; NaN where there is no prediction
    margin: float  # by how much it is more probable than the next; likewise
    probabilities: Mapping[str, float] = field(repr=False)  # of all classes, the likeliest first
    reason: str = ""  # why there is none


class Predictions(tuple[Prediction, ...]):
    """Predictions in the order of what was given: an immutable sequence that shows itself as a table."""

    __slots__ = ()

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The likeliest class of each."""
        return tuple(each.label for each in self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("image", "label", "probability", "margin", ""))
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(each))}</tr>" for each in self[:SHOWN])
        more = f"<p>and {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        return f"<table><tr>{head}</tr>{rows}</table>{more}"


def _cells(each: Prediction) -> list[str]:
    numbers = ["", ""] if each.label is None else [f"{each.probability:.1%}", f"{each.margin:.1%}"]
    return [html.escape(cell) for cell in (each.source, each.label or "", *numbers, each.reason)]


@dataclass(frozen=True, repr=False)
class Model:
    """A network as it was exported, ready on a device."""

    folder: Path
    exported: ExportedModel = field(compare=False)  # for tensors: its `probabilities`, `logits`, `network`

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Model:
        """The network in a folder, on a device: cpu, cuda, cuda:1, or auto, a GPU if there is one.

        Raises:
            ValueError: there is none, it is damaged, or the device cannot be used.
        """
        from search.commands.networks.loaded import loaded

        with plain():
            return cls(Path(folder).expanduser(), loaded(os.fspath(folder), device))

    @property
    def classes(self) -> tuple[str, ...]:
        """What it tells apart."""
        return self.exported.classes

    @property
    def about(self) -> Mapping[str, object]:
        """What the export says of itself: study, trial, accuracy, seconds, pipeline, versions."""
        return self.exported.about

    def predict(self, images: Picture | Iterable[Picture]) -> Predictions:
        """Predictions of all that is given; see `stream`.

        Raises:
            ValueError: there is no such file, or an array that is no image.
        """
        return Predictions(self.stream(images))

    def stream(self, images: Picture | Iterable[Picture]) -> Iterator[Prediction]:
        """Predictions one after the other, in bounded memory, of any number of images in their order.

        Images are files, or folders, of which every image is told; arrays [height, width] or [height, width, channels]
        of uint8, or several as [n, height, width, channels] or, of grey ones, [n, height, width]; Pillow's. Of any size
        and kind, they become what the network takes as in its training. A file that cannot be read has a prediction
        without a label, with the reason.
        Of series: an array [channels, length], or several as [n, channels, length], of floating point.

        Raises:
            ValueError: there is no such file, or an array that is no image.
        """
        if self.exported.is_series:
            yield from self._of_series(images)
            return
        parts = enumerate(chain.from_iterable(_single(each) for each in _listed(images)))
        for is_path, group in groupby(parts, lambda part: isinstance(part[1], str)):
            while some := list(islice(group, FILES if is_path else PICTURES)):
                with plain():
                    yield from self._of_files(some) if is_path else self._of_pictures(some)

    def _of_files(self, some: Sequence[tuple[int, Any]]) -> Iterator[Prediction]:
        from objectives.inference import images
        from objectives.inference.predictions import predictions

        files = images.found([path for _, path in some])
        for file, answer in zip(files, predictions(self.exported, files, len(self.classes)), strict=True):
            if answer is not None:
                yield _prediction(file.path, answer)

    def _of_pictures(self, some: Sequence[tuple[int, Any]]) -> Iterator[Prediction]:
        import numpy as np

        from objectives.data.decoding import squared
        from objectives.inference.predictions import of_pixels

        pixels = np.stack([squared(_image(each, position), self.exported.size)[0] for position, each in some])
        found = of_pixels(self.exported, pixels, len(self.classes))
        for (position, _), answer in zip(some, found, strict=True):
            yield _prediction(str(position), answer)

    def _of_series(self, given: object) -> Iterator[Prediction]:
        import numpy as np
        import torch

        from objectives.inference.predictions import of_inputs

        array = np.asarray(given)
        inputs = torch.from_numpy(array[None] if array.ndim == 2 else array)
        for position, answer in enumerate(of_inputs(self.exported, inputs, len(self.classes))):
            yield _prediction(str(position), answer)

    def __repr__(self) -> str:
        kind, side = ("series", "length") if self.exported.is_series else ("images", "side")
        takes = f"{kind} of {side} {self.exported.size}, {self.exported.channels} channels"
        return f"<network in {self.folder}: {takes}, {len(self.classes)} classes>"


def _listed(images: Any) -> Iterable[Any]:
    """What is given, one by one: a single one is one."""
    is_single = isinstance(images, (str, os.PathLike)) or hasattr(images, "__array_interface__")
    return [images] if is_single else images


def _single(given: Any) -> Iterable[Any]:
    """The images of one thing that is given; files by their paths."""
    if isinstance(given, (str, os.PathLike)):
        return [os.fspath(given)]
    n_axes = getattr(given, "ndim", 0)
    is_several = n_axes == 4 or (n_axes == 3 and given.shape[-1] not in CHANNELS)
    return given if is_several else [given]


def _image(given: Any, position: int) -> Image.Image:
    """An image of its own of what is given: metadata are cleared from it.

    Raises:
        ValueError: it is none.
    """
    import numpy as np
    from PIL import Image

    if isinstance(given, Image.Image):
        return given.copy()
    if not isinstance(given, np.ndarray):
        kind = type(given).__name__
        raise ValueError(f"image {position} is a {kind}: give paths, arrays of NumPy or images of Pillow")
    is_shaped = given.ndim == 2 or (given.ndim == 3 and given.shape[-1] in CHANNELS)
    if given.dtype != np.uint8 or not is_shaped or not given.size:
        shape = f"[{', '.join(map(str, given.shape))}] {given.dtype}"
        raise ValueError(f"image {position} is {shape}: arrays are [height, width] or [height, width, 1, 3 or 4] uint8")
    return Image.fromarray(given[..., 0] if given.ndim == 3 and given.shape[-1] == 1 else given)


def _prediction(source: str, answer: Answer) -> Prediction:
    if answer is None or isinstance(answer, str):
        return Prediction(source, None, math.nan, math.nan, {}, answer or "not an image")
    return Prediction(source, answer.label, answer.probability, answer.margin, dict(answer.top))
