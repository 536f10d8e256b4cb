"""What to try next: of many candidates that the space would choose, the one that is worth most for its cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log
from statistics import median
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from search.pareto.improvement import expected_improvement
from search.proposals import startup
from search.proposals.draws import Candidate, Draw, candidate
from search.proposals.encoding import Encoding
from search.proposals.gaussian_process import Hyperparameters, Process, fitted, standard

T = TypeVar("T")
Array = NDArray[np.float64]
Pair = tuple[float, float]  # one of each objective

LEAST_ENDED = 3  # trials that a model takes
NEGLIGIBLE = 1e-6  # of the box: where nothing is expected to improve by more, the cost of a trial decides nothing


@dataclass(frozen=True)
class Tried:
    """A trial as proposals see it. Both objectives are minimised, on the scale on which they are modelled."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    values: Pair | None = None  # what came of it; None: it runs
    spread: Pair = (0.0, 0.0)  # standard deviations of a forecast; 0 where the values were measured
    expected: Pair = (0.0, 0.0)  # before it ran
    is_rival: bool = True  # of what is proposed: its values, if any, are to be improved on
    is_given: bool = False  # an anchor: not proposed by anyone


@dataclass(frozen=True)
class Goal:
    """The box in which improvement counts."""

    best: Pair
    worst: Pair

    def shares(self, values: Array) -> Array:
        """Where values [n, 2] lie: 0 the worst, 1 the best, in both coordinates."""
        worst, best = np.array(self.worst), np.array(self.best)
        return np.asarray((worst - values) / (worst - best))

    @property
    def extent(self) -> Array:
        """[2]: of the box, on the scale of the values."""
        return np.asarray(np.array(self.worst) - np.array(self.best))


@dataclass(frozen=True)
class Settings:
    """How a proposal is sought."""

    n_startup: int = 8  # trials proposed before a model leads
    n_random: int = 120  # candidates drawn at random
    n_near: int = 80  # ... near the parameters of points on the front
    n_refined: int = 3  # the best of these are improved by ...
    n_mutations: int = 12  # ... so many draws near each
    most_rows: int = 250  # trials that the models see: the front, then the latest
    # Power of the predicted cost (10 to the first objective) that a trial's worth is divided by; 0: all are equal.
    per_cost: float = 1.0


@dataclass
class Memory:
    """What one question leaves for the next: hyperparameters, by column, of both models. It may be lost."""

    learnt: list[Mapping[str, float]] = field(default_factory=lambda: [{}, {}])
    n_rows: int = 0  # when they were learnt

    def start(self, which: int, names: Sequence[str]) -> Hyperparameters:
        """Where to seek the hyperparameters of a model with these columns."""
        known, prior = self.learnt[which], Hyperparameters.prior(len(names))
        scales = np.array(
            [known.get(name, scale) for name, scale in zip(names, prior.scales, strict=True)], dtype=float
        )
        return Hyperparameters(scales, known.get("", prior.amplitude), known.get("noise", prior.noise))

    def keep(self, which: int, names: Sequence[str], learnt: Hyperparameters) -> None:
        """Remembers what a model learnt."""
        scales = {name: float(scale) for name, scale in zip(names, learnt.scales, strict=True)}
        self.learnt[which] = {**scales, "": learnt.amplitude, "noise": learnt.noise}


@dataclass(frozen=True)
class Models:
    """What is believed of both objectives."""

    encoding: Encoding
    processes: tuple[Process, Process]

    def predict(self, params: Sequence[Mapping[str, Any]], expected: Sequence[Pair]) -> tuple[Array, Array]:
        """(mean, standard deviation) of both objectives, noise apart: [n, 2] each."""
        rows = self.encoding.rows(params)
        found = [process.predict(rows) for process in self.processes]
        means = np.stack([mean for mean, _ in found], axis=1) + np.array(expected).reshape(-1, 2)
        return means, np.sqrt(np.stack([variance for _, variance in found], axis=1))

    def contrast(
        self, one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
    ) -> list[tuple[float, float]]:
        """(mean, standard deviation) of the mean of one less that of the other, of both objectives, forecasts apart."""
        rows = self.encoding.rows([*one, *other])
        weights = np.concatenate([np.full(len(one), 1 / len(one)), np.full(len(other), -1 / len(other))])
        return [process.combined(rows, weights) for process in self.processes]


def propose(
    space: Callable[[Any], T],
    tried: Sequence[Tried],
    goal: Goal,
    rng: np.random.Generator,
    expect: Callable[[T], Pair] = lambda chosen: (0.0, 0.0),
    settings: Settings | None = None,
    memory: Memory | None = None,
    settled: Mapping[str, Any] | None = None,
    most: float = inf,
) -> Candidate[T]:
    """What the space is to choose next.

    Args:
        space: an Optuna objective's part that asks a trial; what it returns is handed on.
        tried: all trials so far, by number; those that run as well.
        goal: where improvement counts.
        expect: what is expected of a choice before anything has run, of both objectives: only differences between
            choices matter, as models learn what is added to it.
        settings: how it is sought.
        memory: what the question before left.
        settled: parameters that have one value in what is proposed.
        most: of the first objective, that it may be predicted to have; where nothing is below, what is least.
    """
    settings, memory = settings or Settings(), memory or Memory()
    if (first := begin(space, tried, rng, expect, settings, settled, most)) is not None:
        return first
    drawn = [candidate(space, Draw(rng, None, settled)) for _ in range(settings.n_random)]
    models = learned(tried, settings, memory)
    front = _front(models, [each for each in tried if each.values is not None and each.is_rival], goal)
    parents = [each.params for each in front[0]]
    drawn += [
        candidate(space, Draw(rng, parents[i % len(parents)], settled))
        for i in range(settings.n_near if parents else 0)
    ]
    known = {*_keys(tried)}
    drawn = _untried(drawn, known)
    worth = _worth(models, drawn, front[1], goal, expect, settings)
    for best in np.argsort(-worth)[: settings.n_refined]:
        near = [candidate(space, Draw(rng, drawn[int(best)].params, settled)) for _ in range(settings.n_mutations)]
        drawn += _untried(near, known)
    worth = np.concatenate([worth, _worth(models, drawn[len(worth) :], front[1], goal, expect, settings)])
    if most < inf:
        costs = models.predict([each.params for each in drawn], [expect(each.chosen) for each in drawn])[0][:, 0]
        worth = np.where(costs <= most, worth, -inf) if costs.min() <= most else -costs
    return drawn[int(np.argmax(worth))]


def begin(
    space: Callable[[Any], T],
    tried: Sequence[Tried],
    rng: np.random.Generator,
    expect: Callable[[T], Pair],
    settings: Settings,
    settled: Mapping[str, Any] | None = None,
    most: float = inf,
) -> Candidate[T] | None:
    """A trial of the start-up, as `propose` would make it; None once that is over."""
    n_proposed, n_ended = sum(not each.is_given for each in tried), sum(each.values is not None for each in tried)
    if n_proposed >= 3 * settings.n_startup and n_ended >= LEAST_ENDED:
        return None
    tries = startup.tries([(each.params, each.distributions) for each in tried])
    drawn = _untried([candidate(space, Draw(rng, None, settled)) for _ in range(settings.n_random)], {*_keys(tried)})
    drawn = _affordable(drawn, tried, expect, most)
    lacks = any(any(startup.missing(each, tries)) for each in drawn)
    if n_proposed >= settings.n_startup and n_ended >= LEAST_ENDED and not lacks:
        return None
    return startup.covering(drawn, [expect(each.chosen)[0] for each in drawn], tries)


def learned(tried: Sequence[Tried], settings: Settings, memory: Memory) -> Models:
    """Both models, of what has ended; what runs is believed to end as they predict (kriging believer)."""
    ended = _rows([each for each in tried if each.values is not None], settings.most_rows)
    running = [each for each in tried if each.values is None][-settings.most_rows :]  # some may have lost their worker
    encoding = Encoding.of([each.distributions for each in tried], [each.params for each in (*ended, *running)])
    x = encoding.rows([each.params for each in ended])
    values = np.array([each.values for each in ended]) - np.array([each.expected for each in ended])
    variances = np.square([each.spread for each in ended])
    due = len(ended) - memory.n_rows >= max(2, len(ended) // 20) or len(ended) < memory.n_rows
    found: list[Process] = []
    for which in (0, 1):
        start = memory.start(which, encoding.names)
        y, variance = values[:, which], variances[:, which]
        process = fitted(x, y, variance, start) if due else Process(x, y, variance, start, standard(y))
        memory.keep(which, encoding.names, process.learnt)
        found.append(process.believing(encoding.rows([each.params for each in running])) if running else process)
    memory.n_rows = len(ended) if due else memory.n_rows
    return Models(encoding, (found[0], found[1]))


def _affordable(
    drawn: list[Candidate[T]], tried: Sequence[Tried], expect: Callable[[T], Pair], most: float
) -> list[Candidate[T]]:
    """The candidates whose first objective, as trials compare with what was expected of them, is at most `most`."""
    ended = [each.values[0] - each.expected[0] for each in tried if each.values is not None]
    if most == inf or not ended:
        return drawn
    costs = [expect(each.chosen)[0] + median(ended) for each in drawn]
    return [each for each, cost in zip(drawn, costs, strict=True) if cost <= max(most, min(costs))]


def _keys(chosen: Iterable[Tried | Candidate[Any]]) -> list[str]:
    """Equal for equal parameters, each."""
    return [repr(sorted(each.params.items())) for each in chosen]


def _untried(drawn: Sequence[Candidate[T]], known: Collection[str]) -> list[Candidate[T]]:
    """The candidates whose keys are not known, or all where every one is: a draw near a parent may be its equal."""
    return [each for each, key in zip(drawn, _keys(drawn), strict=True) if key not in known] or list(drawn)


def _rows(ended: Sequence[Tried], most: int) -> list[Tried]:
    """What the models see: all, or the front and the latest."""
    if len(ended) <= most:
        return list(ended)
    best = {i for i, _ in _pareto([(each.values or (0.0, 0.0)) for each in ended])}
    latest = [i for i in range(len(ended) - 1, -1, -1) if i not in best]
    return [ended[i] for i in sorted([*best, *latest[: max(0, most - len(best))]])]


def _front(models: Models, rivals: Sequence[Tried], goal: Goal) -> tuple[list[Tried], Array]:
    """(trials, coordinates in the goal) of the front of what the models believe of those that have ended.

    Not of what was measured: that is the front of the luckiest.
    """
    if not rivals:
        return [], np.zeros((0, 2))
    means, _ = models.predict([each.params for each in rivals], [each.expected for each in rivals])
    chosen = _pareto([(float(a), float(b)) for a, b in means])
    return [rivals[i] for i, _ in chosen], goal.shares(means[[i for i, _ in chosen]])


def _pareto(values: Sequence[Pair]) -> list[tuple[int, Pair]]:
    """(index, values) of what no other dominates; both are minimised."""
    found: list[tuple[int, Pair]] = []
    for i in sorted(range(len(values)), key=lambda i: values[i]):
        if not found or values[i][1] < found[-1][1][1]:
            found.append((i, values[i]))
    return found


def _worth(
    models: Models,
    candidates: Sequence[Candidate[T]],
    front: Array,
    goal: Goal,
    expect: Callable[[T], Pair],
    settings: Settings,
) -> Array:
    """The logarithm of the improvement expected of candidates, per cost: [n]."""
    if not candidates:
        return np.zeros(0)
    means, spreads = models.predict([c.params for c in candidates], [expect(c.chosen) for c in candidates])
    gain = expected_improvement(goal.shares(means), spreads / goal.extent, front)
    cost = settings.per_cost * log(10) * np.maximum(means[:, 0], goal.best[0])
    return np.asarray(np.log(gain + NEGLIGIBLE) - (cost if gain.max() > NEGLIGIBLE else 0.0))
