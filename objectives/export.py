"""A trained network as a folder: weights, description, checksums. `load_model` rebuilds it, on any machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from objectives import __version__
from objectives.data.dataset import Dataset
from objectives.evaluation import finiteness
from objectives.host.durable import SUMS, write_folder
from objectives.networks.network import Network, architecture_of, build
from objectives.train import Trained

FORMAT = 4  # of the folder; raised when a reader of the old one could not read the new one
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


@dataclass(frozen=True)
class ExportedModel:
    """A network read from an export, with what is needed to use it."""

    network: Network  # in evaluation mode; takes normalised images
    size: int  # pixels: side of the square images, or length of the series
    channels: int
    mean: tuple[float, ...]  # per channel, of pixel values in [0, 1]; of series raw
    std: tuple[float, ...]
    classes: tuple[str, ...]
    mirrored: bool  # logits are the sum over an image and its mirror image
    about: Mapping[str, object]  # model.json as written: pipeline, study, trial, seconds, accuracy, versions
    is_series: bool = False  # it takes series instead of images

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities [n, n_classes] of images x: [n, channels, size, size] uint8.

        Of series x: [n, channels, length], floating point.

        Raises:
            ValueError: images or series of another shape or type.
        """
        if self.is_series:
            return self._of_series(x)
        if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1:] != (self.channels, self.size, self.size):
            raise ValueError(
                f"images are {list(x.shape)} {x.dtype}: "
                f"this model takes [n, {self.channels}, {self.size}, {self.size}] uint8"
            )
        mean, std = (torch.tensor(values, device=x.device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        x = (x.float() / 255 - mean) / std
        logits: Tensor = self.network(x) + self.network(x.flip(3)) if self.mirrored else self.network(x)
        return logits.softmax(1)

    def _of_series(self, x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() != 3 or x.shape[1:] != (self.channels, self.size):
            wanted = f"[n, {self.channels}, {self.size}] floating point"
            raise ValueError(f"series are {list(x.shape)} {x.dtype}: this model takes {wanted}")
        mean, std = (torch.tensor(values, device=x.device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        logits: Tensor = self.network((x.float()[:, :, None] - mean) / std)
        return logits.softmax(1)


def export(
    trained: Trained, dataset: Dataset, folder: Path, about: Mapping[str, object], *, is_measured: bool = True
) -> None:
    """Writes the deployed network of a training to `folder`, whole or not at all; replaces an older export.

    `about` is added to the description, e.g. the study and the trial; it cannot replace what is known here. Unless
    `is_measured`, the images that validate were trained on, and no accuracy is told.

    Raises:
        ValueError: the network is no longer finite: it predicts nothing.
    """
    if not finiteness(trained.model.state_dict().values()):
        raise ValueError("the network is not exported: not all of its numbers are finite")
    description = {
        **about,
        "format": FORMAT,
        "architecture": trained.model.architecture.to_json(),
        "input": _input(dataset),
        "classes": dataset.classes,
        "data": {"content": dataset.content_hash, "split": dataset.split_hash, "flip": dataset.flip},
        "test_time_flip": trained.mirrored,
        "pipeline": trained.pipeline.to_json(),
        "train_seconds": trained.report.train_seconds,
        "accuracy": trained.report.accuracy if is_measured else None,
        "balanced_accuracy": trained.report.balanced_accuracy if is_measured else None,
        "versions": {"frontrunner": __version__, "torch": torch.__version__},
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.model.state_dict().items()}
    files = {
        WEIGHTS: safetensors.torch.save(weights),
        DESCRIPTION: json.dumps(description, indent=1, ensure_ascii=False).encode(),
    }
    write_folder(folder, files)


def _input(dataset: Dataset) -> dict[str, object]:
    """What the network takes."""
    said = {"size": dataset.size, "channels": dataset.channels, "mean": dataset.mean, "std": dataset.std}
    return {**said, "kind": "series", "length": dataset.size} if dataset.is_series else said


def load_model(folder: str | Path) -> ExportedModel:
    """The network that `export` wrote to `folder`, on the CPU, in evaluation mode.

    Raises:
        ValueError: a file is missing, damaged or of a newer format.
    """
    folder = Path(folder)
    content = _verified(folder)
    about = json.loads(content[DESCRIPTION])
    if about.get("format") not in range(1, FORMAT + 1):
        raise ValueError(
            f"{folder}: export format {about.get('format')!r}, this version reads {FORMAT}: update frontrunner"
        )
    network = build(architecture_of(about["architecture"]))
    try:
        network.load_state_dict(safetensors.torch.load(content[WEIGHTS]))
    except (safetensors.SafetensorError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise ValueError(f"{folder / WEIGHTS} holds no weights of this network ({cause})") from error
    images = about["input"]
    return ExportedModel(
        network.eval(),
        images["size"],
        images["channels"],
        tuple(images["mean"]),
        tuple(images["std"]),
        tuple(about["classes"]),
        about.get("test_time_flip", False),
        about,
        images.get("kind") == "series",
    )


def _verified(folder: Path) -> dict[str, bytes]:
    """The files of an export, each with the checksum that was written beside it."""
    try:
        lines = [line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines()]
        sums = {name: digest for digest, name in lines}
        content = {name: (folder / name).read_bytes() for name in (WEIGHTS, DESCRIPTION)}
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not an exported model: {error}") from error
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise ValueError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {SUMS}; export the trial again"
            )
    return content
