"""A network that Frontrunner wrote into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.contenders.job import Job, Ready
from objectives.data.cache.stored import converted
from objectives.data.decoding import decode
from objectives.export import ExportedModel, load_model

AT_ONCE = 250  # images: bounds the memory of predictions


def exported(job: Job) -> Ready:
    """The network that Frontrunner wrote into the folder `shown`."""
    return _ready(load_model(job.shown))


def alone(job: Job) -> Ready:
    """The same, of images alone where it takes mirror images, too."""
    return _ready(replace(load_model(job.shown), mirrored=False))


def both(job: Job) -> Ready:
    """The same, of each image and its mirror image together."""
    return _ready(replace(load_model(job.shown), mirrored=True))


def _ready(model: ExportedModel) -> Ready:
    torch.set_num_threads(1)

    def predict(files: Sequence[Path]) -> list[str]:
        pixels = np.stack([decode(str(file), model.size)[0] for file in files])
        x = torch.from_numpy(converted(pixels, model.channels)).permute(0, 3, 1, 2)
        found = torch.cat([model.probabilities(part) for part in x.split(AT_ONCE)])
        return [model.classes[i] for i in found.argmax(1).tolist()]

    return Ready(predict, {})
