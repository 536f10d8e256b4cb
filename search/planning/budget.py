"""What is begun next while minutes run out: pure functions over a study.

But for the first trial of all, nothing is begun that is not forecast to end in time.

First known pipelines, the cheapest first, then the search; when that has had its share, the longest run that the rest
has room for; then the best one again with a fresh seed, its rivals likewise where the choice gains by it, and on all
images what was chosen. What is left confirms others.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from statistics import median

from optuna.trial import FrozenTrial, TrialState

from objectives.pipeline import Pipeline
from search.planning.promise import expected, n_whole
from search.proposals import interest
from search.proposals.filling import LONGER
from search.study import confirmation, records
from search.study.snapshot import Snapshot
from spaces import SPACES
from spaces.base import BASELINE
from spaces.restricted import anchor_pipeline

SEARCH_SHARE = 0.3  # of the minutes, until the longest run begins
FILL_SHARE = 1 / 5  # ... that the longest run takes, about: see `_most`, with a fifth of the images to validate
BASELINE_SHARE = 1 / 20
ANCHOR_SHARE = 1 / 8  # what a known pipeline may take
CLOSING = (3.0, 0.02)  # seconds, share of the minutes: to export, to draw figures, to tell the result
# What the search must have time for to begin, of the cheapest runs: two proposals, which was all that two minutes had,
# came to 67 and 74 % where known pipelines had 87 and 88, and to 60 and 57 where they had 63 and 64
# (benchmarks/ten_minutes.md).
LEAST_PROPOSED = 8
STARTUP_SHARE, MOST_STARTUP = 0.05, 8  # proposals that try every strategy, before models lead
LEAST_FILL = 0.05  # share of the minutes, below which a longest run buys nothing
MOST_FILLS = 3
# Seconds on the wall for a second of the device before anything has run: evaluation, workers, questions; of three runs.
OVERHEAD = 1.25
LEAST_GAIN = 0.0005  # decades of error, of the choice: below, fresh seeds are for the points of the front
MARGIN = 1.15  # of what is forecast: what is begun must end
RESERVE = 1.1  # ... of what comes last: where neighbours come no fresh seed is begun, and `to_refit` shortens


@dataclass(frozen=True)
class Queued:
    """A trial that waits is begun."""

    trial: FrozenTrial


@dataclass(frozen=True)
class Search:
    """A pipeline is proposed."""

    most: float  # device seconds that it may be predicted to take
    n_startup: int  # proposals that try every strategy, before models lead


@dataclass(frozen=True)
class Fill:
    """The run is begun that the rest has room for."""

    seconds: float  # of the device


@dataclass(frozen=True)
class Confirm:
    """A point is trained again with a fresh seed."""

    point: FrozenTrial


Step = Queued | Search | Fill | Confirm


@dataclass(frozen=True)
class Budget:
    """Seconds on the wall, from the command to the last network."""

    began: float  # time.monotonic()
    seconds: float
    n_before: int = 0  # trials that the study had when they began
    is_refitted: bool = False  # whether the best pipeline was trained on all images

    @property
    def deadline(self) -> float:
        """When nothing trains any more, by time.monotonic(): what comes then is to tell and to draw."""
        return self.began + self.seconds - min(max(CLOSING[0], CLOSING[1] * self.seconds), self.seconds / 4)

    def left(self) -> float:
        """What is left to train in."""
        return self.deadline - time.monotonic()

    def next_step(self, now: Snapshot) -> Step | None:
        """What to begin now."""
        left, n_before, is_refitted = self.left(), self.n_before, self.is_refitted
        return next_step(now, left, self.seconds, n_before=n_before, is_refitted=is_refitted)


def to_refit(now: Snapshot, left: float) -> FrozenTrial | None:
    """The most accurate point that there is time to train on all images; None where there is none.

    None, too, where all images would not make it better than the network of the best that is there.
    """
    best, pace, whole = now.choice, wall_per_second(now) / now.n_splits, 1 / (1 - validating(now))
    points = (now.trials[outcome.trial] for outcome in now.outcomes)
    found = now.most_accurate(point for point in points if pace * point.values[0] <= left)
    if best is None or found is None or expected(now.expected(found), whole) < now.expected(best):
        return None
    return found


def in_time(now: Snapshot, point: FrozenTrial, left: float) -> Pipeline:
    """How a point is trained on all images: where time is short in fewer epochs, but as many steps as it had."""
    pace, whole = wall_per_second(now) / now.n_splits, 1 / (1 - validating(now))
    pipeline, longer = now.pipeline(point), min(whole, left / (MARGIN * pace * point.values[0]))
    return replace(pipeline, epochs=max(1, math.floor(pipeline.epochs * max(longer, 1.0) / whole + 1e-9)))


def spare(now: Snapshot, point: FrozenTrial, left: float) -> float:
    """Seconds on the wall beside a training of a point on all images, in as many steps as it had."""
    return float(left - MARGIN * wall_per_second(now) / now.n_splits * point.values[0])


def next_step(now: Snapshot, left: float, total: float, *, n_before: int = 0, is_refitted: bool = False) -> Step | None:
    """What to begin with `left` of `total` seconds on the wall; None when the last training is due, or all is done.

    `n_before`: trials that the study had when these seconds began.
    """
    if left <= 0:
        return None
    pace, best = wall_per_second(now), now.choice
    if is_refitted:
        return _to_confirm(now, left, pace)
    most, since = _most(now, best, left, pace), now.trials[n_before:]
    fills = [trial for trial in since if records.FILL in trial.user_attrs and not records.is_free(trial)]
    if (waiting := _queued(now, most, 0.0 if fills else total / pace)) is not None:
        return Queued(waiting)
    cheapest = min((trial.values[0] for trial in now.points), default=math.inf)
    if best is None:
        return Search(most, 1) if most > cheapest else None
    if _is_searching(now, left, total, pace * cheapest) and most > cheapest:
        n_startup = int(STARTUP_SHARE * total / (pace * cheapest))
        return Search(most, min(n_startup, MOST_STARTUP))
    is_over = len(fills) == MOST_FILLS or any(trial.state == TrialState.RUNNING for trial in fills)
    is_over |= any(trial.user_attrs.get(records.CONFIRM_OF) == records.first(best) for trial in since)
    least = best.values[0] * (LONGER if records.FILL in best.user_attrs else 1.0) if fills else cheapest
    if not is_over and most * pace > LEAST_FILL * total and most > least:
        return Fill(most)
    return _to_choose(now, best, left, pace)


def _is_searching(now: Snapshot, left: float, total: float, cheapest: float) -> bool:
    """Whether pipelines are proposed now: in the share of the search, if it has time for enough of the cheapest kind.

    Where something has been proposed before, models know of it, and go on.
    """
    time_left = SEARCH_SHARE * total - (total - left)
    has_begun = any(records.is_proposed(t) and records.FILL not in t.user_attrs for t in now.trials)
    return time_left > 0 and (has_begun or time_left >= LEAST_PROPOSED * cheapest)


def _most(now: Snapshot, best: FrozenTrial | None, left: float, pace: float) -> float:
    """Device seconds of a run that may become the best, so that it, or the best so far, can still end what follows."""
    whole = 1 / (1 - validating(now))  # images in all, for each that is trained on
    kept = finale(now, best, pace) if best is not None else 0.0
    return min(left / (MARGIN + (1 + whole) * RESERVE), (left - kept) / MARGIN) / pace


def least_minutes(now: Snapshot, took: float, tried: float) -> float:
    """Minutes that would do for a first network where `tried` were too few, in so many seconds on the wall."""
    first = now.box.fastest if now.box is not None else took  # device seconds
    least = math.ceil((took + OVERHEAD * wall_per_second(now) * first) / 6)
    return max(least, math.floor(10 * tried + 1 + 1e-9)) / 10


def finale(now: Snapshot, best: FrozenTrial, pace: float) -> float:
    """Seconds on the wall that the rest takes if this one is the best: fresh seeds, and all images."""
    if refitted(now) == best.number:
        return 0.0
    whole = 1 / (1 - validating(now))
    n = whole / now.n_splits + (0 if now.fresh_of(best) else 1)
    return float(RESERVE * pace * best.values[0] * n)


def refitted(now: Snapshot) -> int | None:
    """Number of the trial whose pipeline was trained on all images; None where none was, as it is asked for now."""
    told = now.attributes.get(records.REFIT)
    if not told or (told.get("flip_gain", 0.0) > 0 and not now.spec.search.refit_test_time_flip):
        return None  # the first is also where it tells both sides of an image, which the study file no longer wants
    return int(told["trial"])


def wall_per_second(now: Snapshot) -> float:
    """Seconds on the wall that a trial takes for each device second of its training."""
    ratios: list[tuple[float, float]] = []
    for trial in now.points:
        if trial.datetime_complete is not None and trial.datetime_start is not None and trial.values[0] > 0:
            took = (trial.datetime_complete - trial.datetime_start).total_seconds()
            ratios.append((trial.values[0], took / trial.values[0]))
    if not ratios:
        return OVERHEAD * now.n_splits
    longest = sorted(ratios)[-5:]  # of short ones what does not grow with them is the larger part
    return max(1.0, float(median(ratio for _, ratio in longest)))


def rate(now: Snapshot) -> float:
    """Device seconds of runs for each second of their nominal forecasts."""
    task, given = now.spec.task, now.given
    found = [t.values[0] / interest.forecast(now.pipeline(t), task, given, None) for t in now.points]
    return float(median(found)) if found else math.nan


def _pipeline(now: Snapshot, trial: FrozenTrial) -> Pipeline:
    """The pipeline of a trial that waits."""
    if records.PIPELINE in trial.user_attrs:
        return records.pipeline(trial)
    return anchor_pipeline(SPACES[now.spec.space.name], now.given, now.restrictions, trial.user_attrs[records.ANCHOR])


def _queued(now: Snapshot, most: float, seconds: float) -> FrozenTrial | None:
    """What waits and fits: what was interrupted, then known pipelines; the first of a study is begun anyway.

    `seconds`: device seconds of which known pipelines may take a share; none once a longest run was begun.
    """
    waiting = [t for t in now.trials if t.state == TrialState.WAITING and records.is_searched(t)]
    if not waiting or not now.points:
        return waiting[0] if waiting else None
    scale = rate(now)
    for trial in waiting:
        name = trial.user_attrs.get(records.ANCHOR)
        share = BASELINE_SHARE if name == BASELINE else ANCHOR_SHARE
        limit = min(most, share * seconds) if name is not None else most
        if scale * interest.forecast(_pipeline(now, trial), now.spec.task, now.given, None) <= limit:
            return trial
    return None


def _to_confirm(now: Snapshot, left: float, pace: float) -> Step | None:
    """The first of the front that lacks fresh seeds, the cheapest first, as far as they fit; before, what waits.

    That which was trained on all images comes before where it has none: what is told of that network is its accuracy.
    """
    for trial in confirmation.waiting(now.trials):
        if MARGIN * pace * now.trials[trial.user_attrs[records.CONFIRM_OF]].values[0] <= left:
            return Queued(trial)
    begun, of_all = confirmation.n_begun(now.trials), refitted(now)
    points = confirmation.lacking(now.trials, now.floor, max(1, now.spec.search.confirm))
    points.sort(key=lambda each: each.number != of_all or begun[records.first(each)] > 0)  # else as they were
    for point in points:
        if MARGIN * pace * point.values[0] <= left and point.user_attrs.get(records.ANCHOR) != BASELINE:
            return Confirm(point)
    return None


def _to_choose(now: Snapshot, best: FrozenTrial, left: float, pace: float) -> Step | None:
    """The fresh seed to train before the best is trained on all images: its own, then its rivals'; None: no more.

    None, too, where it would leave no room for that: the best may be another one after each.
    """
    waiting = {each.user_attrs[records.CONFIRM_OF]: each for each in confirmation.waiting(now.trials)}
    first, again = records.first(best), None
    on_all = 0.0 if refitted(now) == best.number else RESERVE / now.n_splits  # in as many steps as it had
    if first not in waiting and confirmation.n_begun(now.trials)[first]:
        again = _rival(now, best, left, pace)
    elif (MARGIN + on_all) * pace * best.values[0] <= left:
        again = best
    if again is None:
        return None
    interrupted = waiting.get(records.first(again))
    return Confirm(again) if interrupted is None else Queued(interrupted)


def _rival(now: Snapshot, best: FrozenTrial, left: float, pace: float) -> FrozenTrial | None:
    """The point by whose next fresh seed the choice of the best is expected to gain most; None where that is little.

    After it there is time to train either of the two on all images.
    """
    begun, most = confirmation.n_begun(now.trials), max(1, now.spec.search.confirm)
    whole = 1 / (1 - validating(now)) / now.n_splits

    def is_able(point: FrozenTrial) -> bool:
        seconds = point.values[0] + whole * max(point.values[0], best.values[0])
        return begun[records.first(point)] < most and MARGIN * pace * seconds <= left

    worth = {number: gain for number, gain in now.worth_another.items() if gain >= LEAST_GAIN}
    able = filter(is_able, (now.trials[number] for number in worth))
    return max(able, key=lambda point: worth[point.number], default=None)


def validating(now: Snapshot) -> float:
    """Share of the images that validate, of one split."""
    data = now.attributes[records.IDENTITY]["data"]
    return float(1 - data["n_train"] / n_whole(data, now.n_splits))
