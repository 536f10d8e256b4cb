"""Exported networks to start from: written by hand, so that they need no training."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from objectives.data.dataset import load
from objectives.host.durable import damaged, write_folder
from objectives.inference.folder import DESCRIPTION, FORMAT, WEIGHTS
from objectives.networks.families import is_plain
from objectives.networks.network import Network, build
from objectives.networks.plain import AnyArchitecture
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task
from objectives.train import train

DIGITS = tuple(map(str, range(10)))  # classes of scikit-learn's digits
GREY, COLOUR = ((0.3,), (0.35,)), ((0.5, 0.45, 0.4), (0.25, 0.24, 0.26))  # mean and deviation of pixels


def lively(architecture: AnyArchitecture, seed: int = 0) -> Network:
    """A network in evaluation mode of which no number has the value that it begins with, norms included."""
    torch.manual_seed(seed)
    network = build(architecture)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() < 2:
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5
                    if name.endswith(("weight", "var", "gain"))
                    else torch.randn_like(tensor)
                )
    return network.eval()


def exported(folder: Path, network: Network, *, classes: tuple[str, ...] = DIGITS, size: int = 8, **about: Any) -> Path:
    """The folder of an export of a network."""
    architecture = network.architecture
    mean, std = about.pop("pixels", GREY if architecture.in_channels == 1 else COLOUR)
    description = {
        "format": FORMAT,
        "architecture": architecture.to_json(),
        "input": {"size": size, "channels": architecture.in_channels, "mean": mean, "std": std},
        "classes": classes,
        **about,
    }
    weights = safetensors.torch.save({name: t.contiguous() for name, t in network.state_dict().items()})
    write_folder(folder, {WEIGHTS: weights, DESCRIPTION: json.dumps(description).encode()})
    return folder


def standing(family: str, width: float) -> str:
    """The place of a start of a family for digits, trained once for all tests, which name it."""
    folder = Path(tempfile.gettempdir()) / f"frontrunner-starts-{os.getuid()}" / f"{family}-{width:g}-{FORMAT}"
    if damaged(folder):
        folder.parent.mkdir(exist_ok=True)
        images = load(DataSpec("digits", n_train=500), torch.device("cpu"))
        plain = Pipeline(batch_size=50, epochs=6, lr=0.2, schedule="one_cycle", crop=False, flip=False, width=width)
        task = Task(DataSpec("digits"), family, stem_stride=1 if is_plain(family) else 2)
        training = train(plain, task, images, Seeds(7, 8, 9))
        while True:
            try:
                next(training)
            except StopIteration as end:
                network = end.value.model
                break
        exported(folder, network, pixels=(images.mean, images.std), family=family)
    return str(folder)
