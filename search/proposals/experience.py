"""What a study has learned so far, as proposals see it; and the next proposal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, cast

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from objectives.pipeline import Pipeline
from search.pareto.forecast import forecast
from search.pareto.front import Box, error_rate
from search.proposals import filling, interest
from search.proposals.draws import Candidate
from search.proposals.proposal import Goal, Memory, Pair, Settings, Tried, learned, propose
from search.study import records
from search.study.snapshot import Snapshot
from spaces import SPACES
from spaces.base import Trial
from spaces.ingredients import EVERYTHING
from spaces.restricted import sample

PLAIN_EVERY = 8  # of the proposals one is plain, without any strategy, to have something to compare with
MOST = 250  # trials that are looked at: the front, then the latest
# Decades of error that a decade of forecast seconds is expected to take, before anything is known. Of 167 trainings of
# noisy digits the line through all falls by 0.33. With this one as a start the models explain .24, .29, .31 of what is
# left out after 10, 15, 20 trainings, where without any they explained 0, 0, .22; from 40 on they explain as much.
LEARNING = 0.2
FAILED_SPREAD = 0.3  # decades: what is told of a run that broke is a guess


@dataclass
class Experience:
    """What is kept between the questions of one process; it may be lost."""

    memory: Memory = field(default_factory=Memory)
    plain_memory: Memory = field(default_factory=Memory)
    expected: dict[int, Pair] = field(default_factory=dict)  # by number of trial

    def next(
        self, now: Snapshot, seed: int, most: float = math.inf, n_startup: int | None = None
    ) -> Candidate[Pipeline]:
        """The pipeline to train next, with its parameters; one that is predicted to take `most` seconds at most."""
        assert now.box is not None
        settings = Settings(per_cost=float(now.kind.trains))  # FLOPs of what comes out are not what a trial takes
        settings = settings if n_startup is None else replace(settings, n_startup=n_startup)
        n_proposed = sum(records.is_proposed(trial) for trial in now.trials)
        plain = now.kind.is_timed and n_proposed % PLAIN_EVERY == PLAIN_EVERY - 1
        settled = dict.fromkeys(EVERYTHING, False) if plain else {}
        rng, expect, choose = np.random.default_rng(seed), _expecting(now), choosing(now)
        tried = self.tried(now, expect, plain=plain)
        memory = self.plain_memory if plain else self.memory
        return propose(choose, tried, goal(now.box), rng, expect, settings, memory, settled, math.log10(most))

    def fill(self, now: Snapshot, seconds: float) -> Candidate[Pipeline] | None:
        """Of the runs like the best ones that take about so many seconds the one that the models think best of."""
        expect, choose = _expecting(now), choosing(now)

        def nominal(pipeline: Pipeline) -> float:
            return float(10 ** expect(pipeline)[0])

        found = filling.candidates(choose, now.points, seconds, nominal, now.given.epochs, now.n_sure)
        if not found:
            return None
        models = learned(self.tried(now, expect, plain=False), Settings(), self.memory)
        means, _ = models.predict([c.params for c, _ in found], [expect(c.chosen) for c, _ in found])
        losses = means[:, 1] + np.array([loss for _, loss in found])
        return found[int(np.argmin(losses))][0]

    def tried(self, now: Snapshot, expect: Callable[[Pipeline], Pair], *, plain: bool) -> list[Tried]:
        """The trials of a study, by number: at most `MOST`, and those that run. `plain`: only such are rivals."""
        front = {point.trial for point in now.front}
        points = {trial.number for trial in now.points}
        seen = [t for t in now.trials if _is_whole(t) and (t.number in points or not _is_other_run(t))]
        latest = {trial.number for trial in seen[-MOST:]}
        found: list[tuple[FrozenTrial, Pair]] = []
        for trial in seen:
            if trial.number not in latest | front or trial.state == TrialState.WAITING:
                continue
            if trial.number not in self.expected:
                self.expected[trial.number] = expect(records.pipeline(trial))
            found.append((trial, self.expected[trial.number]))
        assert now.box is not None
        told = [(t, expected, _told(t, now)) for t, expected in found]
        shift = median([v[0][0] - e[0] for _, e, v in told if v is not None] or [0.0])
        tried = []
        for trial, expected, values in told:
            if values is None and trial.state != TrialState.RUNNING:  # broke: as bad as can be, after a likely time
                values = (expected[0] + shift, 0.0), (FAILED_SPREAD, FAILED_SPREAD)
            value, spread = values if values is not None else (None, (0.0, 0.0))
            rival = trial.number in points and not (plain and trial.user_attrs[records.PIPELINE].get("strategies"))
            tried.append(
                Tried(trial.params, trial.distributions, value, spread, expected, rival, not records.is_proposed(trial))
            )
        return tried


def _expecting(now: Snapshot) -> Callable[[Pipeline], Pair]:
    """What is expected of a pipeline before anything has run."""
    task = now.spec.task

    def expect(pipeline: Pipeline) -> Pair:
        seconds = math.log10(interest.forecast(pipeline, task, now.given, None))
        return seconds, -LEARNING * seconds

    return expect


def choosing(now: Snapshot) -> Callable[[Any], Pipeline]:
    """What a trial makes of the study's space."""
    space = SPACES[now.spec.space.name]
    return lambda trial: sample(space, cast("Trial", trial), now.given, now.restrictions)


def goal(box: Box) -> Goal:
    """A box in decades of its cost and of error, both minimised."""
    errors = [math.log10(error_rate(accuracy, box.n_images)) for accuracy in (1.0, box.useful)]
    return Goal((math.log10(box.fastest), errors[0]), (math.log10(box.slowest), errors[1]))


def _is_whole(trial: FrozenTrial) -> bool:
    """Whether it chose a pipeline, and was not lost with its process: its retry says what that comes to."""
    return bool(trial.params) and records.PIPELINE in trial.user_attrs and not records.is_free(trial)


def _is_other_run(trial: FrozenTrial) -> bool:
    """Whether the trial times another one again, or was: of those only points count. Confirmations all tell."""
    finished = records.is_finished_run(trial) and not records.is_confirmation(trial)
    return records.is_repeat(trial) or finished


def _has_curve(trial: FrozenTrial) -> bool:
    """Whether a trial left a curve that says something: none that has diverged in its first epoch need have."""
    points = trial.user_attrs.get(records.CURVE, ())
    return bool(points) and all(0 < seconds < math.inf and 0 <= accuracy <= 1 for _, seconds, accuracy, _ in points)


def _told(trial: FrozenTrial, now: Snapshot) -> tuple[Pair, Pair] | None:
    """(values, their spread) of a run that ended or was stopped, in decades; None where nothing is known."""
    assert now.box is not None
    n_images = now.box.n_images
    if records.is_finished_run(trial):
        cost, accuracy = trial.values
        return (math.log10(cost), math.log10(error_rate(accuracy, n_images))), (0.0, 0.0)
    if trial.state == TrialState.RUNNING or not _has_curve(trial) or not now.kind.is_timed:
        return None
    curve = records.curve(trial)
    ahead = forecast(curve, now.curves, n_images)
    if records.reason(trial) == "diverged":
        return (ahead.log_seconds, 0.0), (0.0, 0.0)
    return (ahead.log_seconds, ahead.log_error), (0.02, ahead.error_spread)
