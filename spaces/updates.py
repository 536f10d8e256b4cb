"""Ingredients that act within the steps of a run: on batches, products, gradients and what the optimizer does."""

from __future__ import annotations

from typing import Literal, cast

from objectives.strategies.base import Strategy
from objectives.strategies.batch_growth import BatchGrowth
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.column_row_sampling import ColumnRowSampling
from objectives.strategies.gradient_approximation import GradientApproximation
from objectives.strategies.gradient_clipping import GradientClipping
from objectives.strategies.inconsistent_sgd import InconsistentSGD
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.muon import Muon
from objectives.strategies.pruned_activation_gradients import PrunedActivationGradients
from objectives.strategies.regime_adaptation import RegimeAdaptation
from objectives.strategies.structure_and_strength import StructureAndStrength
from spaces.base import Given, Trial
from spaces.run import Run


def batch_growth(trial: Trial, given: Given, run: Run) -> Strategy:
    """Batches that grow."""
    at = trial.suggest_float("batches.at", 0.2, 0.8)
    steps = trial.suggest_int("batches.steps", 1, 3) if run.epochs > 2 else 1
    return BatchGrowth(
        at=at,
        until=at if steps == 1 else trial.suggest_float("batches.until", 0.8, 0.9),
        steps=steps,
        rate="scaled" if trial.suggest_categorical("batches.scaled", (False, True)) else "kept",
        momentum="corrected" if trial.suggest_categorical("batches.corrected", (False, True)) else "kept",
    )


def regime_adaptation(trial: Trial, given: Given, run: Run) -> Strategy:
    """Epochs for as many updates as small batches make."""
    return RegimeAdaptation(share=trial.suggest_float("regime.share", 0.5, 1.0))


def gradient_approximation(trial: Trial, given: Given, run: Run) -> Strategy:
    """Gradients of weights of which a part is not computed."""
    mode = trial.suggest_categorical("approximate.mode", ("batch", "skip", "early"))
    return GradientApproximation(
        mode=cast("Literal['batch', 'skip', 'early']", mode),
        share=trial.suggest_float("approximate.share", 0.25, 0.75),
        until=trial.suggest_float("approximate.until", 0.5, 1.0) if run.epochs > 1 else 1.0,
    )


def gradient_clipping(trial: Trial, given: Given, run: Run) -> Strategy:
    """Long gradients shortened."""
    return GradientClipping(norm=trial.suggest_float("clip.norm", 0.1, 10.0, log=True))


def inconsistent_sgd(trial: Trial, given: Given, run: Run) -> Strategy:
    """Batches of a high loss trained on for longer."""
    return InconsistentSGD(
        sigmas=trial.suggest_float("isgd.sigmas", 0.5, 3.0),
        stop=trial.suggest_int("isgd.stop", 1, 5),
        pace=trial.suggest_float("isgd.pace", 0.1, 10.0, log=True),
    )


def column_row_sampling(trial: Trial, given: Given, run: Run) -> Strategy:
    """Layers that read a part of their channels."""
    largest = trial.suggest_categorical("sampling.choice", ("largest", "drawn")) == "largest"
    return ColumnRowSampling(
        share=trial.suggest_float("sampling.share", 0.3, 0.9),
        choice="largest" if largest else "drawn",
        until=trial.suggest_float("sampling.until", 0.5, 1.0) if run.epochs > 1 else 1.0,
    )


def pruned_activation_gradients(trial: Trial, given: Given, run: Run) -> Strategy:
    """Small gradients that become 0 at random: to see what that costs, it saves no time."""
    return PrunedActivationGradients(share=trial.suggest_float("sparse.share", 0.5, 0.99))


def structure_and_strength(trial: Trial, given: Given, run: Run) -> Strategy:
    """Kernels that keep their direction and learn their strength."""
    return StructureAndStrength(until=trial.suggest_float("structure.until", 0.2, 1.0) if run.epochs > 1 else 1.0)


def muon(trial: Trial, given: Given, run: Run) -> Strategy:
    """Orthogonalised momentum for convolutions."""
    return Muon(
        lr=trial.suggest_float("muon.lr", 0.02, 1.0, log=True), momentum=trial.suggest_float("muon.momentum", 0.5, 0.95)
    )


def bias_learning_rate(trial: Trial, given: Given, run: Run) -> Strategy:
    """Biases that learn faster."""
    return BiasLearningRate(factor=trial.suggest_float("bias.factor", 2.0, 64.0, log=True))


def lookahead(trial: Trial, given: Given, run: Run) -> Strategy:
    """Slow weights that fast ones return to."""
    return Lookahead(
        interval=trial.suggest_int("lookahead.interval", 3, 10), pull=trial.suggest_float("lookahead.pull", 0.3, 0.9)
    )
