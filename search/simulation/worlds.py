"""Worlds to search in without a device: what a pipeline would take and reach, if it were trained there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log10
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from objectives.pipeline import Pipeline
from objectives.task import Task
from objectives.work import n_steps, step_work
from search.pareto.front import error_rate
from search.proposals.gaussian_process import Hyperparameters, Process, fitted
from search.simulation.features import Features, Plain

Array = NDArray[np.float64]
Kind = Literal["trees", "process"]

N_TREES = 200
FOLDS = 5
LEAST_ERROR = 1e-4


@dataclass(frozen=True)
class Truth:
    """What a training comes to in the mean over its seeds, and on the way."""

    log_seconds: float  # log10
    log_error: float  # log10 of the share of images that are wrong
    errors: tuple[float, ...]  # at the end of each epoch, over that at the end of the run


class World(Protocol):
    """What a pipeline takes and reaches."""

    def truths(self, pipelines: Sequence[Pipeline]) -> list[Truth]: ...


@dataclass(frozen=True)
class Row:
    """A recorded training that ran to its end."""

    pipeline: Plain
    seconds: float
    accuracy: float
    curve: tuple[tuple[float, float], ...]  # (share of the run, accuracy) after each epoch


@dataclass(frozen=True)
class Recorded:
    """A model of recorded trainings: trees (extremely randomised, Geurts 2006), or a Gaussian process.

    How errors fall on the way is that of the recorded training most alike.
    """

    table: tuple[Row, ...]
    n_images: int  # of the validation split
    kind: Kind = "trees"

    def truths(self, pipelines: Sequence[Pipeline]) -> list[Truth]:
        rows = self._features.rows([pipeline.to_json() for pipeline in pipelines])
        per_epoch, errors = (model.predict(rows) for model in self._models)
        return [
            Truth(float(s) + log10(pipeline.epochs), min(float(e), 0.0), self._shape(row, pipeline.epochs))
            for s, e, row, pipeline in zip(per_epoch, errors, rows, pipelines, strict=True)
        ]

    @cached_property
    def explained(self) -> tuple[float, float]:
        """R^2 of both targets, log10 seconds an epoch and log10 error, on trainings left out: five-fold."""
        x, targets = self._features.rows([row.pipeline for row in self.table]), self._targets
        fold = np.random.default_rng(0).permutation(len(x)) % FOLDS
        found = []
        for y in targets:
            guessed = np.empty_like(y)
            for k in range(FOLDS):
                guessed[fold == k] = _model(self.kind, x[fold != k], y[fold != k]).predict(x[fold == k])
            found.append(float(1 - np.square(guessed - y).mean() / y.var()))
        return found[0], found[1]

    @cached_property
    def _features(self) -> Features:
        return Features.of([row.pipeline for row in self.table])

    @cached_property
    def _targets(self) -> tuple[Array, Array]:
        seconds = [log10(row.seconds / row.pipeline["epochs"]) for row in self.table]
        return np.array(seconds), np.array([log10(error_rate(row.accuracy, self.n_images)) for row in self.table])

    @cached_property
    def _rows(self) -> Array:
        return self._features.rows([row.pipeline for row in self.table])

    @cached_property
    def _models(self) -> tuple[Any, Any]:
        seconds, errors = self._targets
        return _model(self.kind, self._rows, seconds), _model(self.kind, self._rows, errors)

    def _shape(self, row: Array, epochs: int) -> tuple[float, ...]:
        nearest = self.table[int(np.square(self._rows - row).sum(1).argmin())]
        shares = [share for share, _ in nearest.curve]
        errors = [error_rate(accuracy, self.n_images) for _, accuracy in nearest.curve]
        asked = [(epoch + 1) / epochs for epoch in range(epochs)]
        return tuple(float(e) for e in np.interp(asked, shares, np.array(errors) / errors[-1]))


@dataclass(frozen=True)
class Analytic:
    """A world made of formulas over settings: power laws of training and width, strategies that help and cost.

    It is no model of anything; it is there because no searcher is made of the same stuff.
    """

    task: Task
    size: int
    n_train: int

    def truths(self, pipelines: Sequence[Pipeline]) -> list[Truth]:
        return [self._truth(pipeline) for pipeline in pipelines]

    def _truth(self, pipeline: Pipeline) -> Truth:
        steps = n_steps(pipeline, self.n_train)
        seconds = log10(steps * step_work(pipeline, self.task, self.size) / 1e10)
        best_lr = 0.4 * (pipeline.batch_size / 128) ** 0.5
        detuned = log10(pipeline.peak_lr / best_lr) ** 2 + 4 * (pipeline.momentum - 0.9) ** 2
        power = steps**0.55 * pipeline.width**0.5 * (1.2 if pipeline.schedule == "one_cycle" else 1.0)
        error = 0.02 / pipeline.width**0.4 + 4.0 / max(power, 4.5) * (1 + 1.5 * detuned)
        for strategy in pipeline.strategies:
            kind = type(strategy).__name__
            seconds += {"Net2Net": -0.1, "PruneTrain": -0.12, "ProgressiveResolution": -0.1, "Freeze": -0.06}.get(
                kind, 0
            )
            seconds += {"HaarStem": -0.2, "Whitening": 0.02}.get(kind, 0.0)
            error *= {"Whitening": 0.75, "IdentityInit": 0.9, "HaarStem": 1.2, "PruneTrain": 1.1, "Freeze": 1.15}.get(
                kind, 1.0
            )
        shares = np.arange(1, pipeline.epochs + 1) / pipeline.epochs
        late = 3.0 if pipeline.schedule == "step" else 1.5
        shape = tuple(float(each) for each in (1 + 3 * (1 - shares) ** late))
        return Truth(seconds, log10(min(0.9, max(error, LEAST_ERROR))), shape)


class _Model:
    """Our Gaussian process behind the interface of scikit-learn's models."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def predict(self, x: Array) -> Array:
        return self._process.predict(x)[0]


def _model(kind: Kind, x: Array, y: Array) -> Any:
    if kind == "process":
        return _Model(fitted(x, y, np.zeros(len(y)), Hyperparameters.prior(x.shape[1])))
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(N_TREES, min_samples_leaf=2, max_features=0.5, random_state=0).fit(x, y)
