"""The samplers that propose pipelines: Optuna's, seeded for every question."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

OURS = "pareto"  # the one that proposes without Optuna: see proposals.proposal


def question(seed: int, n_trials: int, n_waiting: int) -> int:
    """The seed of one question, asked when the study of that seed has so many trials.

    The storage keeps no sampler state: a resumed study would otherwise repeat the draws of the run before, and runs
    that start at once would draw alike.
    """
    return int(np.random.SeedSequence((seed, n_trials, n_waiting)).generate_state(1)[0])


def sampler(name: str, seed: int) -> BaseSampler:
    """Optuna's sampler of that name for one question."""
    match name:
        case "random":
            return RandomSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(population_size=16, seed=seed)
        case "tpe":
            with experimental():
                return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
        case _:
            raise ValueError(f"unknown sampler {name!r}: choose one of {OURS}, tpe, nsga2, random")


def learns_from_pruned(name: str) -> bool:
    """Whether the sampler sees PRUNED trials without values; others are told a value and a violated constraint."""
    return name != "nsga2"


@contextmanager
def experimental() -> Iterator[None]:
    """Silences Optuna's warnings about features of it that we use on purpose; constraints.txt pins their behaviour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
