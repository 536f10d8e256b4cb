"""What a space is given and what it may ask: `Given`, `Trial`, `Space`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from objectives import feasibility
from objectives.networks import families
from objectives.pipeline import Pipeline
from objectives.starts.origin import Origin
from objectives.task import DataSpec, Task

Value = bool | int | float | str  # of one parameter
Parameters = dict[str, Value]  # dotted name -> value

BASELINE = "BASELINE"  # name of the anchor that everything is compared with


@dataclass(frozen=True)
class Reducing:
    """What a study fixes that makes a trained network smaller; ranges are (least, most)."""

    base: Pipeline = Pipeline()  # how that network was trained
    epsilon: tuple[float, float] = (0.001, 0.01)  # validation accuracy that may be lost
    epochs: tuple[int, int] = (1, 5)  # of retraining
    iterations: tuple[int, int] = (5, 20)  # attempts


@dataclass(frozen=True)
class Given:
    """What a study fixes before anything is sampled."""

    family: str  # one of families.ALL
    number_formats: tuple[str, ...]  # those worth using on the device
    epochs: tuple[int, int]  # fewest and most; of the schedule
    batch_size: tuple[int, int]  # smallest and largest, powers of two
    depth: tuple[int, int]  # blocks per stage, fewest and most
    width: tuple[float, float]  # multiplier of the family's widths, least and most
    flip: bool  # whether a horizontal flip keeps the label
    data: str = ""  # name of the data set: known-good pipelines belong to one
    executors: tuple[str, ...] = ()  # how steps may be run, where the study says so
    stem_stride: int = 1
    size: int = 32  # pixels: side of the images
    n_train: int = 10_000  # training images; where nobody knows yet, many
    unevenness: float = 1.0  # images of the largest class for each of the smallest
    reducing: Reducing | None = None  # where a trained network is made smaller, and none is trained
    start: Origin | None = None  # a trained network that pipelines may begin from

    @property
    def crops(self) -> bool:
        """Whether images are large enough to be shifted by an eighth of their side; series are not shifted."""
        return self.size >= 8 and self.are_images

    @property
    def are_images(self) -> bool:
        """Whether the network reads images."""
        return not families.takes_series(self.family)

    @property
    def rate(self) -> float:
        """What learning rates are multiplied by: see `families.rate`."""
        return families.rate(self.family)


class Trial(Protocol):
    """The part of an Optuna trial that a space uses."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


class Least:
    """A trial of which all values are the least, or the first."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        return choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return low

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return low


class Narrowed:
    """A trial that is asked for a part of what a space offers: of a choice the values that `left` names, of a number
    the range between them. What has one value left is asked as a choice of one; `spaces.restricted` never asks those.
    """

    def __init__(self, trial: Trial, left: Mapping[str, tuple[Value, ...]]) -> None:
        self._trial, self._left = trial, left

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        return self._trial.suggest_categorical(name, self._left.get(name, choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        least, most = self._between(name, low, high)
        return self._trial.suggest_int(name, int(least), int(most), step=step, log=log)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._trial.suggest_float(name, *self._between(name, low, high), step=step, log=log)

    def _between(self, name: str, low: float, high: float) -> tuple[float, float]:
        left = self._left.get(name, (low, high))
        least, most = (min(max(low, float(end)), high) for end in (left[0], left[-1]))
        return least, most


class Space(Protocol):
    """What may be chosen: a module of this package with these two functions."""

    def sample(self, trial: Trial, given: Given) -> Pipeline:
        """The pipeline that the trial chooses."""

    def anchors(self, given: Given) -> Mapping[str, Parameters]:
        """Known pipelines to try first, BASELINE foremost, as parameters of `sample`."""


def obstacle(pipeline: Pipeline, given: Given) -> str | None:
    """Why a pipeline cannot train on the study's images, in one line, or None where it can."""
    task = Task(DataSpec(given.data), given.family, given.stem_stride)
    return feasibility.obstacle(pipeline, task, given.size, given.n_train)


def baseline(given: Given) -> Pipeline:
    """BASELINE: the ordinary way to train the family, in strict fp32. "Against the baseline" means this pipeline."""
    depth = min(max(families.baseline_depth(given.family), given.depth[0]), given.depth[1])
    return Pipeline(
        number_format="fp32",
        batch_size=128,
        lr=0.1 * given.rate,
        lr_rule="none",
        momentum=0.9,
        weight_decay=5e-4,
        epochs=round(sum(given.epochs) / 2),
        schedule="step",
        crop=given.crops,
        flip=given.flip,
        depth=depth,
        width=1.0,
    )
