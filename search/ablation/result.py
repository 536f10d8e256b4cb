"""What an ablation says: by what each ingredient changed seconds and accuracy, in pairs that share their seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from optuna.trial import FrozenTrial

from objectives.pipeline import Pipeline
from search.ablation.course import ended, failed
from search.ablation.ingredients import WHOLE, said
from search.pareto.intervals import Difference, Interval, of_differences
from search.study import records
from search.study.confirmation import ACCURACIES
from search.study.snapshot import Snapshot
from spaces.base import BASELINE

Runs = tuple[FrozenTrial, ...]  # a pair of trainings, or one
LEAST_QUIET = 2  # pairs that nothing disturbed, from which on the others' seconds are left out


@dataclass(frozen=True)
class Effect:
    """What an ingredient did: the whole pipeline against itself without it."""

    key: str  # of the ingredient; BASELINE: all of them
    has: str  # as the whole pipeline has it, in words
    instead: str  # ... as the other one has it
    n_pairs: int
    seconds: float  # means of the other one, over these pairs, seconds without those that were disturbed; of the device
    accuracy: float
    decades: Difference  # of seconds, by the ingredient: below 0 it is faster with it
    gain: Difference  # of accuracy, in [-1, 1]: above 0 it is more accurate with it
    is_disturbed: bool  # other work disturbed most of what was timed
    failures: tuple[str, ...] = ()  # why it did not train to its end without it

    @property
    def factor(self) -> tuple[float, Interval | None]:
        """(what seconds are multiplied by, its interval)."""
        ends = self.decades.interval
        return 10**self.decades.mean, ends and (10 ** ends[0], 10 ** ends[1])

    @property
    def points(self) -> tuple[float, Interval | None]:
        """(percentage points that it brings, their interval)."""
        ends = self.gain.interval
        return 100 * self.gain.mean, ends and (100 * ends[0], 100 * ends[1])


@dataclass(frozen=True)
class Ablation:
    """A point of a study, taken apart."""

    point: int  # number of its first trial
    n_rounds: int  # of the whole pipeline that came to their end
    seconds: float  # of the whole pipeline, means of these; seconds without those that were disturbed
    accuracy: float
    effects: tuple[Effect, ...]  # of single ingredients; what saves most seconds first, what has no pair last
    together: Effect | None  # all of them at once, against BASELINE
    is_disturbed: bool = False  # other work disturbed most of what the whole pipeline's seconds come from
    failures: tuple[str, ...] = ()  # why the whole pipeline did not train to its end, in other rounds

    @property
    def has_pairs(self) -> bool:
        """Whether anything is known of an ingredient by itself."""
        return any(each.n_pairs for each in self.effects)

    @property
    def interplay(self) -> tuple[float, float] | None:
        """(decades of seconds, accuracy) of all at once that are not the sum of each by itself; None where unknown."""
        if self.together is None or not self.together.n_pairs or not all(each.n_pairs for each in self.effects):
            return None
        return (
            self.together.decades.mean - math.fsum(each.decades.mean for each in self.effects),
            self.together.gain.mean - math.fsum(each.gain.mean for each in self.effects),
        )


def ablations(now: Snapshot) -> list[Ablation]:
    """All points of a study that were taken apart, as far as they are, by number."""
    points = {t.user_attrs[records.ABLATION]["of"] for t in now.trials if records.is_ablation(t)}
    return [found for point in sorted(points) if (found := ablation(now, point)) is not None]


def ablation(now: Snapshot, point: int) -> Ablation | None:
    """What is known of a point; None where the whole pipeline has not come to an end yet."""
    runs: dict[str, dict[int, FrozenTrial]] = {}
    for (number, key), trial in ended(now, point):
        runs.setdefault(key, {})[number] = trial
    broken: dict[str, list[str]] = {}
    for (_, key), trial in failed(now, point):
        broken.setdefault(key, []).append(records.reason(trial).replace("_", " "))
    whole = runs.pop(WHOLE, {})
    if not whole:
        return None
    failures = tuple(broken.pop(WHOLE, ()))
    keys = [key for key in _pipelines(now, point) if key in {*runs, *broken}]
    effects = _effects(keys, whole, runs, broken, _pipelines(now, point), ACCURACIES[now.spec.metric])
    together = next((each for each in effects if each.key == BASELINE), None)
    single = sorted((e for e in effects if e is not together), key=lambda e: (not e.n_pairs, e.decades.mean))
    timed = _timed([(trial,) for trial in whole.values()])
    seconds = fmean(records.seconds(trial) for (trial,) in timed)
    accuracy = fmean(_accuracy(trial, ACCURACIES[now.spec.metric]) for trial in whole.values())
    is_disturbed = timed != _quiet(timed)
    return Ablation(point, len(whole), seconds, accuracy, tuple(single), together, is_disturbed, failures)


def _pipelines(now: Snapshot, point: int) -> dict[str, Pipeline]:
    """The pipelines that were tried, by key."""
    told = [trial.user_attrs[records.ABLATION] for trial in now.trials if records.is_ablation(trial)]
    return {each["without"]: Pipeline.from_json(each["pipeline"]) for each in told if each["of"] == point}


def _effects(
    keys: Sequence[str],
    whole: Mapping[int, FrozenTrial],
    runs: Mapping[str, Mapping[int, FrozenTrial]],
    broken: Mapping[str, list[str]],
    pipelines: Mapping[str, Pipeline],
    metric: str,
) -> list[Effect]:
    """The effect of each key, all of whose intervals have one spread."""
    pairs = {key: [(whole[n], t) for n, t in sorted(runs.get(key, {}).items()) if n in whole] for key in keys}
    timed = {key: _timed(pairs[key]) for key in keys}
    known = [key for key in keys if pairs[key]]
    decades = of_differences([[_decades(*pair) for pair in timed[key]] for key in known])
    gains = of_differences(
        [[_accuracy(one, metric) - _accuracy(other, metric) for one, other in pairs[key]] for key in known]
    )
    estimates = dict(zip(known, zip(decades, gains, strict=True), strict=True))
    nothing = Difference(0.0, None)
    return [
        Effect(
            key,
            said(key, pipelines[WHOLE]),
            said(key, pipelines[key]),
            len(pairs[key]),
            fmean(records.seconds(other) for _, other in timed[key]) if pairs[key] else math.nan,
            fmean(_accuracy(other, metric) for _, other in pairs[key]) if pairs[key] else math.nan,
            *estimates.get(key, (nothing, nothing)),
            timed[key] != _quiet(timed[key]),
            tuple(broken.get(key, ())),
        )
        for key in keys
    ]


def _quiet(runs: Sequence[Runs]) -> list[Runs]:
    """Those of which nothing was disturbed."""
    return [each for each in runs if not any(trial.user_attrs.get(records.NOISY) for trial in each)]


def _timed(runs: Sequence[Runs]) -> list[Runs]:
    """Those whose seconds count: the quiet ones, where there are enough."""
    quiet = _quiet(runs)
    return quiet if len(quiet) >= LEAST_QUIET else list(runs)


def _decades(one: FrozenTrial, other: FrozenTrial) -> float:
    return math.log10(records.seconds(one) / records.seconds(other))


def _accuracy(trial: FrozenTrial, metric: str) -> float:
    return float(trial.user_attrs[metric])
