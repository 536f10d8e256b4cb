"""What all attempts of a reduction have in common: `Terms`. The base, its data, and how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.device.comparison import admitted
from objectives.device.formats import FORMATS, NumberFormat
from objectives.errors import DataError
from objectives.evaluation import Evaluation, evaluate
from objectives.export import ExportedModel
from objectives.networks.network import Network, build
from objectives.networks.norms.gains import folded
from objectives.pipeline import Pipeline
from objectives.reduction.settings import Reduction


@dataclass(frozen=True)
class Terms:
    """The base of a reduction and what it is reduced with."""

    dataset: Dataset  # normalised as the base takes it
    settings: Reduction
    pipeline: Pipeline  # that the base was trained with
    mirrored: bool  # accuracies are those of an image and its mirror image taken together
    number_format: NumberFormat

    @classmethod
    def of(cls, base: ExportedModel, dataset: Dataset, settings: Reduction) -> Terms:
        """The terms of a reduction of `base` by `settings`, on the device of the data.

        Raises:
            DataError: the base takes other images, or tells other classes.
            ValueError: its pipeline is not known to this version, or the criterion cannot judge what is to be cut.
        """
        if settings.inputs and settings.criterion == "similarity":
            raise ValueError(
                "criterion = similarity compares the weights that produce neurons, and nothing produces inputs: "
                "leave inputs out, or choose another criterion"
            )
        pipeline = Pipeline.from_json(cast("Mapping[str, object]", base.about["pipeline"]))
        fitting = as_taken(base, dataset)
        layers = base.network.architecture.layers(dataset.size)
        number_format = admitted(FORMATS[pipeline.number_format], layers, dataset.train.x.device)
        return cls(fitting, settings, pipeline, base.mirrored, number_format)

    @cached_property
    def normalise(self) -> Normalisation:
        """Maps pixels to what the network takes."""
        return Normalisation(self.dataset, self.device)

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        return self.dataset.train.x.device

    def trainable(self, network: Network) -> Network:
        """A copy of a network as its pipeline trains it, on the device, in evaluation mode.

        But for normalised weights: what is smaller is judged and trained by the weights that it computes with.
        """
        network = folded(network)
        made = build(network.architecture, self.pipeline.ghost_batch)
        made.load_state_dict(network.state_dict())
        return made.to(self.device).eval()

    def evaluated(self, model: Network) -> Evaluation:
        """How good a network is on the validation images."""
        return evaluate(
            model.eval(),
            self.dataset.val,
            self.normalise,
            self.number_format,
            batch_size=min(self.pipeline.batch_size, len(self.dataset.train.y)),
            mirrored=self.mirrored,
        )


def as_taken(base: ExportedModel, dataset: Dataset) -> Dataset:
    """The data normalised as a network takes them: what a reduction of it trains on, and what is exported with it.

    Raises:
        DataError: the network takes other images, or tells other classes.
    """
    if (dataset.size, dataset.channels) != (base.size, base.channels):
        raise DataError(
            f"{dataset.name} has images of {dataset.size} pixels and {dataset.channels} channels, "
            f"the network takes {base.size} and {base.channels}: reduce it with the data that it was trained on"
        )
    if dataset.classes != base.classes:
        raise DataError(
            f"{dataset.name} has the classes {_some(dataset.classes)}, the network tells {_some(base.classes)}: "
            "reduce it with the data that it was trained on"
        )
    if base.mirrored and not dataset.flip:
        raise DataError(f"the network sees mirror images, but one of {dataset.name} may have another label")
    return replace(dataset, mean=base.mean, std=base.std)


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:3]) + (f" and {len(classes) - 3} more" if len(classes) > 3 else "")
