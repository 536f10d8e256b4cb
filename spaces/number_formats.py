"""A control space: BASELINE in each number format and for each number of epochs, all else equal."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from objectives.pipeline import NumberFormatName, Pipeline
from spaces.base import BASELINE, Given, Parameters, Trial, baseline


def sample(trial: Trial, given: Given) -> Pipeline:
    """BASELINE with another number format or another number of epochs."""
    return replace(
        baseline(given),
        number_format=cast("NumberFormatName", trial.suggest_categorical("number_format", given.number_formats)),
        epochs=trial.suggest_int("epochs", *given.epochs, log=True),
    )


def anchors(given: Given) -> dict[str, Parameters]:
    """BASELINE in every number format."""
    epochs = baseline(given).epochs
    known: dict[str, Parameters] = {BASELINE: {"number_format": "fp32", "epochs": epochs}}
    for name in given.number_formats:
        if name != "fp32":
            known[f"BASELINE in {name}"] = {"number_format": name, "epochs": epochs}
    return known
