"""A trained network for the tests of what is made of it."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from objectives.data.dataset import Dataset, load
from objectives.networks.network import Network
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task
from objectives.train import train

PIPELINE = Pipeline(batch_size=32, lr=0.2, epochs=3, schedule="one_cycle", crop=False, flip=False, width=0.5)


@functools.cache
def trained(family: str = "small") -> tuple[Network, Dataset]:
    """A small network that tells digits apart, and these; whoever changes it takes a copy."""
    dataset = load(DataSpec("digits", n_train=500), torch.device("cpu"))
    task = Task(DataSpec("digits"), family, stem_stride=2 if family == "small" else 1)
    pipeline = PIPELINE if family == "small" else replace(PIPELINE, lr=0.05)  # without batch norms
    running = train(pipeline, task, dataset, Seeds(1, 2, 3))
    while True:
        try:
            next(running)
        except StopIteration as end:
            model: Network = end.value.model
            return model, dataset
