"""The samplers that propose pipelines: Optuna's, seeded for every question, and told decades of seconds."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from search.study import records

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
                return _Logarithmic(TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed))
        case "gp":
            with experimental():
                return _Logarithmic(GPSampler(seed=seed, warn_independent_sampling=False))
        case _:
            raise ValueError(f"unknown sampler {name!r}: choose one of {OURS}, tpe, nsga2, gp, random")


class _Logarithmic(BaseSampler):
    """A sampler that is told the decimal logarithm of the first objective.

    Told seconds, TPE weighs a second at 1 s as it does at 100 s. It ranks by dominance first, which does not care, and
    by volume among equals only: to 10 proposals after 40 trials the scale made no difference below 5 decades.
    """

    def __init__(self, inner: BaseSampler) -> None:
        self._inner = inner

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._inner.infer_relative_search_space(_Decades.of(study), trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._inner.sample_relative(_Decades.of(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._inner.sample_independent(_Decades.of(study), trial, param_name, param_distribution)


class _Decades(optuna.Study):
    """A study as a sampler sees it whose first objective counts in decades."""

    @classmethod
    def of(cls, study: optuna.Study) -> optuna.Study:
        """The study, seen so."""
        seen = copy.copy(study)
        seen.__class__ = cls
        return seen

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        found = super()._get_trials(deepcopy, states, use_cache)
        return [_in_decades(trial) for trial in found if not records.is_ablation(trial)]


def _in_decades(trial: FrozenTrial) -> FrozenTrial:
    if trial.values is None or trial.values[0] <= 0:
        return trial
    seen = copy.copy(trial)
    seen.values = [math.log10(trial.values[0]), *trial.values[1:]]
    return seen


def learns_from_pruned(name: str) -> bool:
    """Whether the sampler sees PRUNED trials without values; others are told a value and a violated constraint."""
    return name not in ("nsga2", "gp")


@contextmanager
def experimental() -> Iterator[None]:
    """Silences Optuna's warnings about features of it that we use on purpose; constraints.txt pins their behaviour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
