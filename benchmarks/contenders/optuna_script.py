"""Optuna as its tutorial has it: a search for a small convolutional network, the best one is kept."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contenders.job import BATCH, LARGE, VALIDATION, Job, Ready, pixels_of

EPOCHS = 10  # of a trial, as in the tutorial
AT_ONCE = 64  # images: bounds the memory of predictions


class TimeUp(Exception):
    """The budget is spent."""


def with_optuna(job: Job) -> Ready:
    """A search for a small convolutional network: TPE and median pruning, the best network of all epochs is kept."""
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    x, y, classes = _tensors(job.files)
    order = torch.randperm(len(y))
    n_val = round(VALIDATION * len(y))
    fitting = Fitting(job, x[order[n_val:]], y[order[n_val:]], x[order[:n_val]], y[order[:n_val]], len(classes))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=job.seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    with suppress(TimeUp):
        study.optimize(fitting)
    best = fitting.best
    about = {"trials": len(study.trials), "parameters": study.trials[best.trial].params}
    return Ready(lambda files: _classes(best.model, files, classes), about, best.accuracy, tuple(fitting.curve))


@dataclass(frozen=True)
class Best:
    """The most accurate network so far."""

    accuracy: float
    trial: int
    model: nn.Module


class Fitting:
    """The objective of the Optuna script: validation accuracy of a network that a trial chose."""

    def __init__(self, job: Job, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, n_classes: int) -> None:
        self.job, self.x, self.y, self.x_val, self.y_val, self.n_classes = job, x, y, x_val, y_val, n_classes
        self.curve: list[tuple[float, float]] = []
        self._best: Best | None = None
        self._evaluation_seconds = 0.0

    @property
    def best(self) -> Best:
        """The most accurate network so far."""
        assert self._best is not None
        return self._best

    def __call__(self, trial: optuna.Trial) -> float:
        model = network(trial, self.x, self.n_classes)
        rate = trial.suggest_float("lr", 1e-5, 1e-1, log=True)  # the tutorial's range
        kind = trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"])
        options = {"momentum": 0.9, "nesterov": True} if kind == "SGD" else {}
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=rate, **options)
        for epoch in range(EPOCHS):
            self._train(model, optimizer)
            accuracy = self._accuracy(model)
            if self._best is None or accuracy > self._best.accuracy:
                self._best = Best(accuracy, trial.number, copy.deepcopy(model))
            self.curve.append((time.process_time(), self._best.accuracy))
            if self._is_up:
                raise TimeUp
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    def _train(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """One epoch, or what there is time for."""
        model.train()
        for chosen in torch.randperm(len(self.y)).split(BATCH)[: len(self.y) // BATCH]:
            x, mirrored = self.x[chosen], torch.rand(len(chosen), 1, 1, 1) < 0.5
            optimizer.zero_grad()
            F.cross_entropy(model(torch.where(mirrored, x.flip(3), x)), self.y[chosen]).backward()
            optimizer.step()
            if self._is_up:
                return

    def _accuracy(self, model: nn.Module) -> float:
        began = time.process_time()
        right = (_logits(model, self.x_val).argmax(1) == self.y_val).sum()
        self._evaluation_seconds = time.process_time() - began
        return int(right) / len(self.y_val)

    @property
    def _is_up(self) -> bool:
        """Whether there is time for nothing but an evaluation."""
        return self.job.left <= self._evaluation_seconds


def network(trial: optuna.Trial, x: Tensor, n_classes: int) -> nn.Sequential:
    """Two to four blocks of convolution, normalisation and pooling, each as wide as the trial says.

    Large images are halved at once, and memory is channels_last: on a CPU 1.5 times as fast.
    """
    layers: list[nn.Module] = [nn.BatchNorm2d(x.shape[1], affine=False)]  # normalises the images
    channels = x.shape[1]
    for i in range(trial.suggest_int("n_layers", 2, 4)):
        wide = trial.suggest_int(f"channels_{i}", 16, 128, step=16)  # others are slower than the next larger
        layers += [
            nn.Conv2d(channels, wide, 3, 1 if i or x.shape[-1] < LARGE else 2, 1),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = wide
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * channels, n_classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _tensors(files: Sequence[Path]) -> tuple[Tensor, Tensor, list[str]]:
    """Images [n, channels, height, width] in [0, 1], their labels, the names of these."""
    classes = sorted({file.parent.name for file in files})
    labels = torch.tensor([classes.index(file.parent.name) for file in files])
    return _scaled(files), labels, classes


def _scaled(files: Sequence[Path]) -> Tensor:
    return torch.from_numpy(pixels_of(files)).permute(0, 3, 1, 2).float() / 255


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(AT_ONCE)])


def _classes(model: nn.Module, files: Sequence[Path], classes: Sequence[str]) -> list[str]:
    return [classes[i] for i in _logits(model, _scaled(files)).argmax(1).tolist()]
