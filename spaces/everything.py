"""Every strategy that there is, whether or not it pays on its own: for those who compare methods.

But for FixedArchitecture: its stages are what another run found.
"""

from __future__ import annotations

from objectives.pipeline import Pipeline
from spaces import acceleration
from spaces.base import Given, Parameters, Trial
from spaces.ingredients import EVERYTHING

INGREDIENTS = EVERYTHING


def sample(trial: Trial, given: Given) -> Pipeline:
    """A pipeline with at most one instance of each strategy."""
    return acceleration.pipeline(trial, given, INGREDIENTS)


def anchors(given: Given) -> dict[str, Parameters]:
    """Those of the default space."""
    return acceleration.known(given, INGREDIENTS)
