"""An objective that trains nothing: seconds and accuracies are those of a world, its clock is the sum of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from objectives.pipeline import Pipeline, Reading, Report
from objectives.task import Seeds, Task
from search.simulation.worlds import World

SECONDS_SPREAD = 0.025  # decades between fresh seeds of a pipeline, median of 217 pairs (benchmarks/search.md)


@dataclass
class SimulatedObjective:
    """Trains pipelines in a world."""

    world: World
    known: Mapping[str, Any]  # the facts of the study that was recorded
    spread: float  # standard deviation, in decades, of the errors of equal pipelines with other seeds
    seconds: float = 0.0  # that trainings took so far, stopped ones as well

    def facts(self) -> dict[str, object]:
        return dict(self.known)

    def number_formats(self) -> dict[str, str | None]:
        raise NotImplementedError("a simulated study has the number formats of the one that was recorded")

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        """One report per epoch. Noise is drawn once a run: its curve is shifted as a whole."""
        (truth,), rng = self.world.truths([pipeline]), np.random.default_rng(seeds.init)
        total = 10 ** (truth.log_seconds + SECONDS_SPREAD * rng.standard_normal())
        shift, n_images = self.spread * rng.standard_normal(), int(self.known["data"]["n_val"])
        before = 0.0
        for epoch, ratio in enumerate(truth.errors, start=1):
            seconds = total * epoch / pipeline.epochs
            self.seconds += seconds - before
            before = seconds
            error = min(0.95, 10 ** (truth.log_error + shift) * ratio)
            accuracy = 1 - rng.binomial(n_images, error) / n_images
            yield _report(epoch, pipeline.epochs, seconds, accuracy)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def test(self, folder: Path) -> dict[str, Any] | None:
        return None

    def reference(self, n_steps: int) -> Reading:
        return Reading(1e-3)

    def probe(self, pipeline: Pipeline, task: Task | None = None) -> float:
        raise NotImplementedError("a simulated study has the box of the one that was recorded")

    def mirrored(self, seconds: float) -> dict[str, Any]:
        raise NotImplementedError("a simulated study has the flips of the one that was recorded")

    def both_sides(self, folder: Path) -> dict[str, Any]:
        raise NotImplementedError("a simulated study trains on no images")

    def close(self) -> None:
        pass


def _report(epoch: int, epochs: int, seconds: float, accuracy: float) -> Report:
    return Report(
        *(epoch, epochs, seconds, accuracy, accuracy, True, 1.0, False, seconds),
        *(0.0, 0.0, 0.0, 1.0, 1.0, 1, 0, 0, 0),
    )
