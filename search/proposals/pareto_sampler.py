"""`ParetoSampler`: an Optuna sampler for studies of two objectives, by expected hypervolume improvement per cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite, log10
from threading import Lock
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.proposals.draws import Candidate, Draw, drawn
from search.proposals.proposal import Goal, Memory, Pair, Settings, Tried, propose

MARGIN = 0.1  # of the extent of what was seen: the box of improvement reaches so far beyond it
# Of the extent of what was seen: what is told of a trial that was pruned or failed is a guess. In three problems of
# which a third or half breaks, four seeds each, .3 found as much as .5 (98 to 100 %) with half of the breaks, .1 83 to
# 100 %; where such trials were left out, half to all of the proposals broke.
BROKEN_SPREAD = 0.3


class ParetoSampler(BaseSampler):
    """Proposes what promises the most hypervolume per cost, for any Optuna study of two objectives.

    The first trials are drawn so that each choice of each categorical parameter is tried twice. Then two Gaussian
    processes (Matern 5/2, a length scale per parameter, learnt noise) model both objectives, and of some hundred
    candidates the one is proposed that is expected to enlarge the front of their means most, in proportion to its
    predicted cost where the first objective is one. Trials that were pruned, or failed, or have a value that is not
    finite, count as the worst that was seen. Define-by-run spaces need no special care: hand over the part of
    the objective that asks the trial, and candidates are what it would choose. Without it they are drawn from the
    parameters that earlier trials had.

    A study of one objective, or of three, is sampled at random.

        def choose(trial):
            kind = trial.suggest_categorical("kind", ["trees", "boosting"])
            n = trial.suggest_int("n_estimators", 10, 500, log=True)
            rate = trial.suggest_float("learning_rate", 0.01, 1, log=True) if kind == "boosting" else None
            return kind, n, rate

        sampler = ParetoSampler(choose, logarithmic=(True, False), seed=0)
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    """

    def __init__(
        self,
        space: Callable[[Any], object] | None = None,
        *,
        logarithmic: tuple[bool, bool] = (False, False),
        first_is_cost: bool = False,
        box: tuple[Pair, Pair] | None = None,
        n_startup_trials: int = 8,
        seed: int | None = None,
    ) -> None:
        """A sampler.

        Args:
            space: asks the trial for all parameters, as the objective will; its result does not matter.
            logarithmic: which objectives are modelled by their logarithm: they must be positive then.
            first_is_cost: the first objective is what a trial costs, and is minimised; improvement counts per cost. It
                is modelled by its logarithm.
            box: (least, most interesting) values of both objectives, as the study has them: what is better than the
                best counts as the best, what is worse than the worst for nothing. Absent: what was seen, and a margin.
            n_startup_trials: trials before the models lead.
            seed: of all draws.

        Raises:
            ValueError: no trial to start with, a cost that is not modelled by its logarithm, a box without an inside.
        """
        if n_startup_trials < 1:
            raise ValueError(f"n_startup_trials is {n_startup_trials}: it must be at least 1")
        if first_is_cost and not logarithmic[0]:
            raise ValueError("first_is_cost, but logarithmic[0] is False: improvement per cost needs it to be True")
        if box is not None:
            _check_box(box, logarithmic)
        self._space, self._logarithmic, self._box = space, logarithmic, box
        self._settings = Settings(n_startup=n_startup_trials, per_cost=float(first_is_cost))
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._memory = Memory()
        self._proposed: dict[int, Candidate[object]] = {}  # by id of the trial
        self._lock = Lock()  # `n_jobs` threads share a sampler

    def reseed_rng(self) -> None:
        self._rng = np.random.default_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The distributions of what is proposed: those of the parameters that the space asks for on that way."""
        if len(study.directions) != 2:
            return {}
        with self._lock:
            space = self._space or _one_of(_structures(study), self._rng)
            found = self._proposed[trial._trial_id] = self._candidate(study, space)
        return {name: each for name, each in found.distributions.items() if not each.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values that are proposed."""
        with self._lock:
            found = self._proposed.pop(trial._trial_id, None)
            if not search_space:
                return {}
            if found is None or any(found.distributions.get(name) != each for name, each in search_space.items()):
                found = self._candidate(study, _asking(search_space))
        return {name: found.params[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A draw at random: for what was not foreseen."""
        with self._lock:
            return drawn(param_distribution, self._rng)

    def _candidate(self, study: Study, space: Callable[[Any], object]) -> Candidate[object]:
        if len(study.directions) != 2:
            draw = Draw(self._rng)
            space(draw)
            return Candidate(draw.params, draw.distributions, None)
        if self._settings.per_cost and study.directions[0] == StudyDirection.MAXIMIZE:
            raise ValueError("first_is_cost, but the study maximises objective 0: a cost is minimised")
        seen = [each for each in _seen(study) if each.params]
        tried = [self._tried(each, study.directions) for each in seen]
        goal = self._goal(tried, study.directions)
        tried = _with_broken(tried, [each.state.is_finished() for each in seen])
        return propose(space, tried, goal, self._rng, settings=self._settings, memory=self._memory)

    def _tried(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> Tried:
        found = Tried(trial.params, trial.distributions)
        if trial.state != TrialState.COMPLETE or trial.values is None or not all(map(isfinite, trial.values)):
            return found
        first, second = (self._scaled(trial.values[i], i, directions[i]) for i in (0, 1))
        return replace(found, values=(first, second))

    def _scaled(self, value: float, which: int, direction: StudyDirection) -> float:
        """An objective as it is modelled: minimised."""
        if self._logarithmic[which]:
            if value <= 0:
                raise ValueError(f"objective {which} is {value}: what is modelled by its logarithm must be positive")
            value = log10(value)
        return -value if direction == StudyDirection.MAXIMIZE else value

    def _goal(self, tried: Sequence[Tried], directions: Sequence[StudyDirection]) -> Goal:
        if self._box is not None:
            ends = np.array([[self._scaled(end[i], i, directions[i]) for i in (0, 1)] for end in self._box])
            return _between(ends.min(0), ends.max(0))
        values = np.array([each.values for each in tried if each.values is not None] or [(0.0, 0.0), (1.0, 1.0)])
        best, worst = values.min(0), values.max(0)
        margin = MARGIN * np.maximum(worst - best, 1e-9)
        return _between(best - margin, worst + margin)


def _check_box(box: tuple[Pair, Pair], logarithmic: tuple[bool, bool]) -> None:
    for i, (one, other) in enumerate(zip(*box, strict=True)):
        if not (isfinite(one) and isfinite(other) and one != other):
            raise ValueError(f"box is from {one} to {other} in objective {i}: it must be from one number to another")
        if logarithmic[i] and min(one, other) <= 0:
            raise ValueError(f"box reaches {min(one, other)} in objective {i}, whose logarithm is modelled: above 0")


def _with_broken(tried: Sequence[Tried], ended: Sequence[bool]) -> list[Tried]:
    """The trials, of which those that ended without values have the worst ones that were seen, if any were.

    Samplers that do not see them propose the like of them over and over.
    """
    values = np.array([each.values for each in tried if each.values is not None])
    if not len(values):
        return list(tried)
    worst, spread = values.max(0).tolist(), (BROKEN_SPREAD * np.ptp(values, axis=0)).tolist()
    return [
        replace(each, values=(worst[0], worst[1]), spread=(spread[0], spread[1]), is_rival=False)
        if is_over and each.values is None
        else each
        for each, is_over in zip(tried, ended, strict=True)
    ]


def _between(best: Any, worst: Any) -> Goal:
    return Goal((float(best[0]), float(best[1])), (float(worst[0]), float(worst[1])))


def _seen(study: Study) -> list[FrozenTrial]:
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
    return study._get_trials(deepcopy=False, states=states, use_cache=True)


def _structures(study: Study) -> list[Mapping[str, BaseDistribution]]:
    """What trials were asked for; of those that did not come to their end, who knows what was left to ask, in need."""
    seen = [each for each in _seen(study) if each.distributions]
    whole = [each for each in seen if each.state == TrialState.COMPLETE]
    return [each.distributions for each in whole or seen]


def _one_of(structures: Sequence[Mapping[str, BaseDistribution]], rng: np.random.Generator) -> Callable[[Any], object]:
    """A space that asks for what some earlier trial was asked for."""

    def space(draw: Draw) -> None:
        if structures:
            _asking(structures[int(rng.integers(len(structures)))])(draw)

    return space


def _asking(distributions: Mapping[str, BaseDistribution]) -> Callable[[Any], object]:
    """A space that asks for these parameters."""

    def space(draw: Draw) -> None:
        for name, distribution in distributions.items():
            draw.suggest(name, distribution)

    return space
