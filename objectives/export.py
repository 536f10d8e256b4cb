"""A trained network as a folder: weights, description, checksums. `load_model` rebuilds it, on any machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from objectives import __version__
from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.evaluation import finiteness, images_at_once
from objectives.host.durable import write_folder
from objectives.inference.calibration import NONE, Calibration, calibrated
from objectives.inference.folder import DESCRIPTION, FORMAT, WEIGHTS
from objectives.networks.network import Network
from objectives.pipeline import Pipeline
from objectives.starts.exported import exported
from objectives.starts.naming import found
from objectives.strategies.transfer import Transfer
from objectives.train import Trained

BATCH = 64  # images, whose training step takes as much memory as this takes at most


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
    calibration: Calibration  # of its probabilities; neutral in exports of before
    about: Mapping[str, object]  # model.json as written: pipeline, study, trial, seconds, accuracy, versions
    is_series: bool = False  # it takes series instead of images

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """What the network says [n, n_classes] of images x: [n, channels, size, size] uint8, all at once, in fp32.

        Bit for bit what a training on the same device computes for a batch of the same images, outside of autocast.
        Of series x is [n, channels, length], of floating point.

        Raises:
            ValueError: images or series of another shape or type.
        """
        shape = (self.channels, self.size) if self.is_series else (self.channels, self.size, self.size)
        if tuple(x.shape[1:]) != shape or (not x.is_floating_point() if self.is_series else x.dtype != torch.uint8):
            what, kind = ("series", "floating point") if self.is_series else ("images", "uint8")
            wanted = f"[n, {', '.join(map(str, shape))}] {kind}"
            raise ValueError(f"{what} are {list(x.shape)} {x.dtype}: this model takes {wanted}")
        x = x.float()[:, :, None] if self.is_series else x
        return logits(self.network, x, Normalisation(self, x.device), mirrored=self.mirrored)

    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities [n, n_classes] of images x: [n, channels, size, size] uint8, calibrated.

        Raises:
            ValueError: images of another shape or type.
        """
        return (self.logits(x) / self.calibration.temperature).softmax(1)

    def on(self, device: torch.device) -> ExportedModel:
        """The same network on a device, in no other place."""
        return replace(self, network=self.network.to(device))

    @property
    def at_once(self) -> int:
        """Images that are computed at once without taking much memory."""
        return images_at_once(self.network.architecture, self.size, BATCH)


def logits(network: Network, x: Tensor, normalise: Normalisation, *, mirrored: bool) -> Tensor:
    """What a network in evaluation mode says [n, n_classes] of images x: [n, channels, size, size] uint8."""
    x = normalise(x.contiguous(memory_format=torch.channels_last))
    found: Tensor = network(x) + network(x.flip(3)) if mirrored else network(x)
    return found


def export(
    trained: Trained, dataset: Dataset, folder: Path, about: Mapping[str, object], *, is_measured: bool = True
) -> None:
    """Writes the deployed network of a training to `folder`, whole or not at all; replaces an older export.

    `about` is added to the description, e.g. the study and the trial; it cannot replace what is known here. Unless
    `is_measured`, the images that validate were trained on, no accuracy is told, and the calibration is the one in
    `about`, of a network that was trained likewise; of no images where there is none. So is whether mirror images are
    taken together with images; without a word the training decides.

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
        "test_time_flip": trained.mirrored if is_measured else about.get("test_time_flip", trained.mirrored),
        "calibration": _calibration(trained, dataset).to_json()
        if is_measured
        else about.get("calibration", NONE.to_json()),
        "pipeline": trained.pipeline.to_json(),
        **_start(trained.pipeline),
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


def _start(pipeline: Pipeline) -> dict[str, object]:
    """What a training began from, where that was a trained network."""
    begun = next((each for each in pipeline.strategies if isinstance(each, Transfer) and each.source), None)
    if begun is None:
        return {}
    told: dict[str, object] = {"source": begun.source, "digest": begun.digest}
    if (known := found(begun.source)) is not None and known.digest == (begun.digest or known.digest):
        told |= {"digest": known.digest, "words": known.words, "train_seconds": known.train_seconds}
    return {"start": told}


def _input(dataset: Dataset) -> dict[str, object]:
    """What the network takes."""
    said = {"size": dataset.size, "channels": dataset.channels, "mean": dataset.mean, "std": dataset.std}
    return {**said, "kind": "series", "length": dataset.size} if dataset.is_series else said


def load_model(folder: str | Path) -> ExportedModel:
    """The network that `export` wrote to `folder`, on the CPU, in evaluation mode.

    Raises:
        ValueError: a file is missing, damaged or of a newer format.
    """
    network, about = exported(Path(folder))
    images = about["input"]
    return ExportedModel(
        network,
        images["size"],
        images["channels"],
        tuple(images["mean"]),
        tuple(images["std"]),
        tuple(about["classes"]),
        about.get("test_time_flip", False),
        Calibration.from_json(about.get("calibration")),
        about,
        images.get("kind") == "series",
    )


@torch.no_grad()
def _calibration(trained: Trained, dataset: Dataset) -> Calibration:
    """What the images that validate say of the probabilities of a network that was not trained on them."""
    images, normalise = dataset.val, Normalisation(dataset, dataset.val.x.device)
    n = images_at_once(trained.model.architecture, dataset.size, BATCH)
    found = [logits(trained.model, x, normalise, mirrored=trained.mirrored) for x, _ in images.piecewise(n)]
    return calibrated(torch.cat(found), images.y)
