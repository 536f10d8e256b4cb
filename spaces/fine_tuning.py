"""Ingredients of runs that start from a trained network: what of it stays, how fast it learns, how its head begins.

They belong behind what sets weights and behind PruneTrain, and before what averages weights.
"""

from __future__ import annotations

from objectives.networks.plain import sections
from objectives.strategies.base import Strategy
from objectives.strategies.discriminative_rates import DiscriminativeRates
from objectives.strategies.frozen_stages import FrozenStages
from objectives.strategies.linear_probe import LinearProbe
from spaces.base import Given, Trial
from spaces.run import Ingredients, Run, last_boundary


def frozen_stages(trial: Trial, given: Given, run: Run) -> Strategy:
    """Early stages that keep what they have learnt, for good or until they thaw."""
    parts = trial.suggest_int("frozen.parts", 1, len(sections(run.full)))
    thaws = run.epochs > 1 and trial.suggest_categorical("frozen.thaws", (False, True))
    until = min(trial.suggest_float("frozen.until", 0.3, 0.9), last_boundary(run)) if thaws else 1.0
    has_statistics = run.full.fewest_values(run.size) is not None
    adapts = has_statistics and trial.suggest_categorical("frozen.adapted", (False, True))
    return FrozenStages(parts, until, "adapted" if adapts else "kept")


def linear_probe(trial: Trial, given: Given, run: Run) -> Strategy:
    """A head that starts as a linear probe."""
    return LinearProbe()


def discriminative_rates(trial: Trial, given: Given, run: Run) -> Strategy:
    """Layers that learn the more slowly the further they are from the head."""
    return DiscriminativeRates(
        body=trial.suggest_float("rates.body", 0.03, 1.0, log=True), decay=trial.suggest_float("rates.decay", 0.2, 0.9)
    )


FINE_TUNING: Ingredients = {
    "frozen": (FrozenStages, frozen_stages),
    "probe": (LinearProbe, linear_probe),  # of features with the statistics that they are to have
    "rates": (DiscriminativeRates, discriminative_rates),
}


def can_act(switch: str, run: Run) -> bool:
    """Whether an ingredient has an effect in such a run: the head is not all of its network."""
    return switch == "probe" or bool(sections(run.full))
