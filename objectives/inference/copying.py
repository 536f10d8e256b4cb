"""A network at a place of choice: copied whole, and seen to tell the same of real images before it is called done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from objectives.data.reading import read
from objectives.errors import DataError
from objectives.export import ExportedModel, load_model
from objectives.host.durable import new_folder
from objectives.inference import interchange
from objectives.inference.answers import as_taken, fitting, sized
from objectives.inference.folder import verified
from objectives.task import DataSpec

CHECKED = 64  # images at most
FORMATS: dict[str, Callable[[ExportedModel, Tensor], bytes]] = {
    interchange.TORCHSCRIPT: interchange.as_torchscript,
    interchange.ONNX: interchange.as_onnx,
}


@dataclass(frozen=True)
class Copied:
    """What was made."""

    folder: Path
    files: tuple[str, ...]
    n_checked: int  # images that all files told the same of
    made_up: str | None  # why these were no real images; None: they were


def copied(source: Path, target: Path, spec: DataSpec, formats: Sequence[str] = ()) -> Copied:
    """Copies the export in `source` to `target`, in other formats as well. What fails a check is not there in the end.

    The copy tells bit for bit what the original tells, other formats as near as `interchange.WITHIN`.

    Raises:
        ValueError: the export is damaged, or a copy computes otherwise.
        ModuleNotFoundError: a format needs what is not installed.
        OSError: it cannot be written.
    """
    content, model = verified(source), load_model(source)
    images, made_up = _images(model, spec)
    expected = model.probabilities(images)
    with new_folder(target) as partial:
        for name, data in content.items():
            (partial / name).write_bytes(data)
        for name in formats:
            (partial / name).write_bytes(FORMATS[name](model, images))
    if not torch.equal(load_model(target).probabilities(images), expected):
        shutil.rmtree(target)
        raise ValueError(f"what was written to {target} tells otherwise than {source}: look at that disk")
    return Copied(target, (*content, *formats), len(images), made_up)


def _images(model: ExportedModel, spec: DataSpec) -> tuple[Tensor, str | None]:
    """Some images of a study as the network takes them; made-up ones, and why, where those are not to be had."""
    try:
        found = read(sized(model, spec))
        assert found is not None
        chosen = np.linspace(0, len(found.labels) - 1, min(CHECKED, len(found.labels))).astype(np.int64)
        some = fitting(model, replace(found, pixels=found.pixels[chosen], labels=found.labels[chosen]))
    except DataError as error:
        return _made_up(model), str(error)
    return as_taken(model, torch.from_numpy(some[:]).permute(0, 3, 1, 2)), None


def _made_up(model: ExportedModel) -> Tensor:
    """Noise of the shape that the network takes."""
    random = torch.Generator().manual_seed(0)
    if not model.is_series:
        return torch.randint(
            0, 256, (CHECKED, model.channels, model.size, model.size), generator=random, dtype=torch.uint8
        )
    noise = torch.randn(CHECKED, model.channels, model.size, generator=random)
    return torch.tensor(model.mean)[:, None] + torch.tensor(model.std)[:, None] * noise
