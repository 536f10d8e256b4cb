"""What an ablation trains next: all of its pipelines once, then all once more; the seeds of a round are those of all.

Its trainings are trials of the study that never count and are no points: to Optuna they are PRUNED. Whoever is killed
on the way, the same ablation goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from statistics import fmean, median

from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from search.ablation.ingredients import WHOLE, Variant
from search.planning.budget import MARGIN, wall_per_second
from search.proposals import interest
from search.study import records, recovery
from search.study.snapshot import Snapshot
from search.study.study import Study

FEW, LATEST = 3, 10  # trainings, from which on a pace is told, and by which
Key = tuple[int, str]  # round, key of a variant


@dataclass(frozen=True)
class Course:
    """What is trained of one point."""

    point: int  # number of its first trial
    variants: tuple[Variant, ...]  # the whole pipeline first
    n_seeds: int  # rounds
    deadline: float = inf  # of time.monotonic(): nothing is begun that is not forecast to end before
    n_workers: int = 1  # that train at a time

    def are_over(self, now: Snapshot) -> bool:
        """Whether nothing is left that fits, and nothing runs."""
        return not self._runs(now, TrialState.RUNNING) and self._next(now) is None

    def claim(self, study: Study) -> OptunaTrial | None:
        """The next training; None where only what runs now is missing."""
        return study.patiently(lambda: self._claim(study))

    def line(self, now: Snapshot) -> str:
        """How far it is, in words."""
        done, total = self.done(now)
        seconds = self.wall_left(now)
        left = f", about {seconds / 60:.1f} min left" if seconds else ""
        return f"{done} of {total} trainings of trial {self.point}{left}"

    def done(self, now: Snapshot) -> tuple[int, int]:
        """(trainings that ended, all)."""
        return len(self._keys()) - len(self._lacking(now)), len(self._keys())

    def seconds_left(self, now: Snapshot) -> float:
        """Seconds of the device that it will still take, by forecast."""
        return sum(self.forecast(self._variant(key), now) for _, key in self._lacking(now))

    def wall_left(self, now: Snapshot) -> float:
        """Seconds on the wall that it will still take, by forecast."""
        at_a_time = max(1, min(self.n_workers, len(self._lacking(now))))
        return self.pace(now) * self.seconds_left(now) / at_a_time

    def pace(self, now: Snapshot) -> float:
        """Seconds on the wall of a training for each of the device: by this ablation, by the study where it has few."""
        times = [(trial.datetime_start, trial.datetime_complete, trial) for _, trial in ended(now, self.point)]
        found = [(end - start).total_seconds() / records.seconds(trial) for start, end, trial in times if start and end]
        return median(found[-LATEST:]) if len(found) >= FEW else wall_per_second(now)

    def forecast(self, variant: Variant, now: Snapshot) -> float:
        """Seconds that a variant takes: as in its rounds before, else as work goes."""
        runs = list(ended(now, self.point))
        mine = [records.seconds(trial) for (_, key), trial in runs if key == variant.key]
        if mine:
            return fmean(mine)
        whole = [records.seconds(trial) for (_, key), trial in runs if key == WHOLE]
        task, given = now.spec.task, now.given
        work = [interest.forecast(each.pipeline, task, given, None) for each in (variant, self.variants[0])]
        return (fmean(whole) if whole else records.seconds(now.trials[self.point])) * work[0] / work[1]

    def _keys(self) -> list[Key]:
        """All trainings in their order: from round to round the other way round, so that no drift is anybody's."""
        keys = [variant.key for variant in self.variants]
        return [(n, key) for n in range(self.n_seeds) for key in (keys if n % 2 == 0 else keys[::-1])]

    def _variant(self, key: str) -> Variant:
        return next(variant for variant in self.variants if variant.key == key)

    def _lacking(self, now: Snapshot) -> list[Key]:
        """Trainings that have not ended, in any way."""
        over = {key for key, trial in _tried(now, self.point) if trial.state.is_finished()}
        return [key for key in self._keys() if key not in over]

    def _runs(self, now: Snapshot, state: TrialState) -> list[FrozenTrial]:
        """The trainings of this ablation that wait, or run."""
        mine = set(self._keys())
        return [trial for key, trial in _tried(now, self.point) if key in mine and trial.state == state]

    def _next(self, now: Snapshot) -> FrozenTrial | Key | None:
        """What is to be trained next: what was interrupted comes first."""
        left = self.deadline - time.monotonic()
        pace = MARGIN * self.pace(now) if left < inf else 0.0

        def fits(key: str) -> bool:
            return left == inf or pace * self.forecast(self._variant(key), now) <= left

        waiting = self._runs(now, TrialState.WAITING)
        if (first := next((t for t in waiting if fits(t.user_attrs[records.ABLATION]["without"])), None)) is not None:
            return first
        begun = {key for key, _ in _tried(now, self.point)}
        return next((key for key in self._lacking(now) if key not in begun and fits(key[1])), None)

    def _claim(self, study: Study) -> OptunaTrial | None:
        with study.exclusive():
            recovery.recover(study)
            now = study.snapshot()
            found = self._next(now)
            if isinstance(found, tuple):
                number, key = found
                plain = self._variant(key).pipeline.to_json()
                study.enqueue_ablation({"of": self.point, "without": key, "round": number, "pipeline": plain})
                (found, *_) = [t for k, t in _tried(study.snapshot(), self.point) if k == (number, key)]
            return None if found is None else study.ask(found)


def ended(now: Snapshot, point: int) -> Iterator[tuple[Key, FrozenTrial]]:
    """The trainings of an ablation that came to their end."""
    return ((key, trial) for key, trial in _tried(now, point) if records.is_ended_ablation(trial))


def failed(now: Snapshot, point: int) -> Iterator[tuple[Key, FrozenTrial]]:
    """The trainings of an ablation that ended before."""
    over = ((key, trial) for key, trial in _tried(now, point) if trial.state.is_finished())
    return ((key, trial) for key, trial in over if not records.is_ended_ablation(trial))


def _tried(now: Snapshot, point: int) -> list[tuple[Key, FrozenTrial]]:
    """The trainings of an ablation, but for those that were tried again."""
    retried = {trial.user_attrs.get(records.RETRY_OF) for trial in now.trials}
    return [
        ((told["round"], told["without"]), trial)
        for trial in now.trials
        if (told := trial.user_attrs.get(records.ABLATION)) and told["of"] == point and trial.number not in retried
    ]
