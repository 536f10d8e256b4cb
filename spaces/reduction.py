"""How a trained network is made smaller: settings of SNARE (Viehmann 2020), for studies of kind `reduce`."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from objectives.pipeline import Pipeline
from objectives.reduction.settings import CriterionName, Reduction, RetrainingName
from spaces.base import BASELINE, Given, Parameters, Reducing, Trial

# The control, pruning at random, is no choice: what it wins it wins by luck.
CRITERIA = ("taylor", "taylor_sum", "activation", "l1_own", "l1_next", "l1_both", "similarity")
MOST_WEIGHT = 4.0  # of a layer's parameters or FLOPs beside its neurons; 4: they alone decide


def sample(trial: Trial, given: Given) -> Pipeline:
    """The pipeline of the base with the reduction that the trial chooses."""
    reducing = given.reducing or Reducing()
    return replace(reducing.base, strategies=(), reduction=reduction(trial, reducing))


def reduction(trial: Trial, reducing: Reducing) -> Reduction:
    """The settings that the trial chooses."""
    return Reduction(
        epsilon=trial.suggest_float("epsilon", *reducing.epsilon, log=True),
        beta=trial.suggest_float("score.beta", 0.0, MOST_WEIGHT, step=0.5),
        gamma=trial.suggest_float("score.gamma", 0.0, MOST_WEIGHT, step=0.5),
        criterion=cast("CriterionName", trial.suggest_categorical("criterion", CRITERIA)),
        operation=float(trial.suggest_categorical("operation", (0.64, 0.32))),
        retraining=cast("RetrainingName", trial.suggest_categorical("retrain", ("full", "blocks"))),
        epochs=trial.suggest_int("retrain.epochs", *reducing.epochs),
        lr=trial.suggest_float("retrain.lr", 0.1, 2.0, log=True),
        iterations=trial.suggest_int("iterations", *reducing.iterations, log=True),
    )


def anchors(given: Given) -> dict[str, Parameters]:
    """BASELINE, the defaults of `Reduction` as far as the study's ranges have them, and it with one thing changed.

    By FLOPs alone, by parameters alone (the thesis' other two regularisations), by the sum of weights, which needs no
    image, and by blocks.
    """
    reducing, plain = given.reducing or Reducing(), Reduction()
    reference: Parameters = {
        "epsilon": _within(plain.epsilon, reducing.epsilon),
        "score.beta": plain.beta,
        "score.gamma": plain.gamma,
        "criterion": plain.criterion,
        "operation": plain.operation,
        "retrain": plain.retraining,
        "retrain.epochs": int(_within(plain.epochs, reducing.epochs)),
        "retrain.lr": plain.lr,
        "iterations": reducing.iterations[1],
    }
    return {
        BASELINE: reference,
        "by FLOPs": reference | {"score.beta": 0.0},
        "by parameters": reference | {"score.gamma": 0.0},
        "by the sum of weights": reference | {"criterion": "l1_own"},
        "block by block": reference | {"retrain": "blocks"},
    }


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, ends[0]), ends[1])
