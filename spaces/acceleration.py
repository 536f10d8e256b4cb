"""The whole space of acceleration pipelines on one page. Conditions are `if`s; dotted names are groups."""

from __future__ import annotations

from math import log2
from typing import cast

from objectives.pipeline import LrRule, NumberFormatName, Pipeline, ScheduleName
from objectives.strategies.base import Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.net2net import Net2Net
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from spaces.base import BASELINE, Given, Parameters, Trial, baseline


def sample(trial: Trial, given: Given) -> Pipeline:
    """A pipeline: settings first, then at most one instance of each strategy, in the order in which they apply."""
    batch_size = 2 ** trial.suggest_int("batch.log2_size", *_log2(given.batch_size))
    strategies = (net2net(trial), prune_train(trial), progressive_resolution(trial), ema(trial))
    return Pipeline(
        number_format=cast("NumberFormatName", trial.suggest_categorical("number_format", given.number_formats)),
        batch_size=batch_size,
        lr=trial.suggest_float("lr", 0.02, 2.0, log=True),
        lr_rule=cast("LrRule", trial.suggest_categorical("batch.lr_rule", ("none", "sqrt", "linear"))),
        ghost_batch=ghost_batch(trial, batch_size),
        momentum=trial.suggest_float("momentum", 0.8, 0.98),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 5e-3, log=True),
        epochs=trial.suggest_int("epochs", *given.epochs, log=True),
        schedule=cast("ScheduleName", trial.suggest_categorical("schedule", ("one_cycle", "cosine", "step"))),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        crop=bool(trial.suggest_categorical("augment.crop", (True, False))),
        flip=given.flip and bool(trial.suggest_categorical("augment.flip", (True, False))),
        cutout=float(trial.suggest_categorical("augment.cutout", (0.0, 0.25, 0.5))),
        depth=trial.suggest_int("depth", *given.depth),
        width=trial.suggest_float("width", *given.width, step=0.25),
        strategies=tuple(strategy for strategy in strategies if strategy is not None),
    )


def anchors(given: Given) -> dict[str, Parameters]:
    """BASELINE, its twins in bf16 and with progressive resolution, a long one-cycle run, and that pruned and grown."""
    reference = baseline(given)
    parameters: Parameters = {
        "number_format": reference.number_format,
        "batch.log2_size": round(log2(reference.batch_size)),
        "batch.lr_rule": reference.lr_rule,
        "batch.ghost": reference.ghost_batch,
        "lr": reference.lr,
        "momentum": reference.momentum,
        "weight_decay": reference.weight_decay,
        "epochs": reference.epochs,
        "schedule": reference.schedule,
        "label_smoothing": reference.label_smoothing,
        "augment.crop": reference.crop,
        "augment.flip": reference.flip,
        "augment.cutout": reference.cutout,
        "depth": reference.depth,
        "width": reference.width,
        "resolution": False,
        "ema": False,
        "grow": False,
        "prune": False,
    }
    known = {BASELINE: parameters}
    if "bf16" in given.number_formats:
        known["BASELINE in bf16"] = parameters | {"number_format": "bf16"}
    known["progressive resolution"] = parameters | {
        "resolution": True,
        "resolution.start": 0.5,
        "resolution.until": 0.5,
        "resolution.steps": 2,
    }
    long = parameters | {
        "number_format": "bf16" if "bf16" in given.number_formats else reference.number_format,
        "batch.log2_size": 6,
        "lr": 0.4,
        "epochs": given.epochs[1],
        "schedule": "one_cycle",
        "label_smoothing": 0.1,
        "augment.crop": False,
    }
    known["long one-cycle"] = long
    known["PruneTrain"] = long | {"prune": True, "prune.lpr": 0.35, "prune.interval": 2, "prune.round_to": 8}
    known["Net2Net"] = long | {"grow": True, "grow.start_width": 0.5, "grow.at": 0.3, "grow.rewarm": False}
    return known


def ghost_batch(trial: Trial, batch_size: int) -> int:
    """Samples per ghost batch; asked only where a batch holds several."""
    if batch_size < 128:
        return 0
    return int(trial.suggest_categorical("batch.ghost", (0, 32, 64)))


def net2net(trial: Trial) -> Strategy | None:
    """Starts narrow and grows once."""
    if not trial.suggest_categorical("grow", (False, True)):
        return None
    at = trial.suggest_float("grow.at", 0.1, 0.6)
    rewarms = trial.suggest_categorical("grow.rewarm", (False, True))
    return Net2Net(
        start_width=trial.suggest_float("grow.start_width", 0.25, 0.75),
        at=at,
        until=at,
        lr_after=trial.suggest_float("grow.lr_after", 0.1, 1.0) if rewarms else 0.0,
    )


def prune_train(trial: Trial) -> Strategy | None:
    """Channels that a group lasso kills are removed."""
    if not trial.suggest_categorical("prune", (False, True)):
        return None
    return PruneTrain(
        lpr=trial.suggest_float("prune.lpr", 0.1, 0.6),
        interval=trial.suggest_int("prune.interval", 1, 5),
        round_to=int(trial.suggest_categorical("prune.round_to", (1, 8))),
    )


def progressive_resolution(trial: Trial) -> Strategy | None:
    """Smaller images in early epochs."""
    if not trial.suggest_categorical("resolution", (False, True)):
        return None
    return ProgressiveResolution(
        start=trial.suggest_float("resolution.start", 0.4, 0.9),
        until=trial.suggest_float("resolution.until", 0.2, 0.8),
        steps=trial.suggest_int("resolution.steps", 1, 3),
    )


def ema(trial: Trial) -> Strategy | None:
    """Averaged weights."""
    if not trial.suggest_categorical("ema", (False, True)):
        return None
    return Ema(horizon=trial.suggest_float("ema.horizon", 0.1, 3.0, log=True))


def _log2(bounds: tuple[int, int]) -> tuple[int, int]:
    return round(log2(bounds[0])), round(log2(bounds[1]))
