"""`Snapshot`: a study as of one moment. Its trials are read once; what follows from them is derived when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial

from objectives.pipeline import Pipeline
from objectives.strategies.transfer import Transfer
from search.database.storage import Database
from search.pareto.choice import Candidate
from search.pareto.curves import Curve
from search.pareto.expectation import Runs, expected, worth_another
from search.pareto.front import Box, Outcome, front, hypervolume
from search.pareto.intervals import as_many, wilson
from search.pareto.kinds import Kind
from search.study import confirmation, records, repeats
from search.study.confirmation import SHARE, Confirmed
from search.study.networks import Networks
from search.study.spec import StudySpec
from spaces.base import BASELINE, Given
from spaces.restricted import Restrictions

WEIGHED = 100  # points, the most accurate ones, of which one is chosen by what its like came to
RIVALS = 4  # of these, the choice among them: any may be the choice after the next run


def restrictions(spec: StudySpec, attributes: Mapping[str, Any]) -> Restrictions:
    """What may not be chosen: by the study file, and flips once mirror images have refuted them."""
    own = spec.restrictions
    refuted = attributes.get(records.FLIPS, {}).get("refuted", False)
    return replace(own, fix={**own.fix, "augment.flip": False}) if refuted else own


@dataclass(frozen=True)
class Snapshot:
    """What views, stopping and proposals are given of a study."""

    name: str
    spec: StudySpec
    floor: float  # accuracy below which a result counts for nothing
    given: Given  # to its space
    trials: tuple[FrozenTrial, ...]  # by number
    attributes: Mapping[str, Any]  # user attributes of the study
    database: Database  # where it lies
    artifacts: Path  # the folder of exported networks
    read: dict[int, Curve] = field(default_factory=dict, repr=False, compare=False)  # of finished runs, which stay

    @property
    def kind(self) -> Kind:
        """What it minimises beside its accuracy."""
        return self.spec.what

    @property
    def base(self) -> Mapping[str, Any] | None:
        """What is known of the network that is made smaller; None where none is."""
        found: Mapping[str, Any] | None = self.attributes.get(records.BASE)
        return found

    @cached_property
    def restrictions(self) -> Restrictions:
        """What may not be chosen now."""
        return restrictions(self.spec, self.attributes)

    @cached_property
    def points(self) -> list[FrozenTrial]:
        """The finished runs; of a trial and its repeats the one that counts."""
        return records.points(self.trials)

    @cached_property
    def curves(self) -> list[Curve]:
        """The learning curves of the finished runs."""
        self.read.update({t.number: records.curve(t) for t in self.points if t.number not in self.read})
        return [self.read[trial.number] for trial in self.points]

    @cached_property
    def stopped(self) -> list[Curve]:
        """The learning curves of the runs that were stopped."""
        return [curve for trial in self.trials if records.is_stopped(trial) and (curve := records.curve(trial))]

    @cached_property
    def growth(self) -> float:
        """Share of the box that the later half of the proposals added to the front, per second that they took."""
        ended = [trial for trial in self.trials if trial.state.is_finished() and records.is_proposed(trial)]
        recent = {trial.number for trial in ended[len(ended) // 2 :]}
        seconds = sum(records.seconds(self.trials[number]) for number in recent)
        if self.box is None or seconds <= 0:
            return 0.0
        before = [each for each in self.outcomes if records.first(self.trials[each.trial]) not in recent]
        return (hypervolume(self.outcomes, self.box) - hypervolume(before, self.box)) / seconds

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The finished runs at or above the floor: the candidates for the front."""
        return records.outcomes(self.points, self.floor)

    @cached_property
    def front(self) -> tuple[Outcome, ...]:
        """The Pareto front, by rising cost."""
        return front(self.outcomes)

    @cached_property
    def front_trials(self) -> list[FrozenTrial]:
        """The trials of the front, by rising cost."""
        return [self.trials[point.trial] for point in self.front]

    @cached_property
    def baseline(self) -> FrozenTrial | None:
        """The finished run of BASELINE, or None."""
        return records.baseline(self.trials, BASELINE)

    @cached_property
    def plain(self) -> list[FrozenTrial]:
        """The finished runs at or above the floor whose pipelines have no strategy."""
        candidates = (self.trials[outcome.trial] for outcome in self.outcomes)
        return [trial for trial in candidates if not trial.user_attrs[records.PIPELINE].get("strategies")]

    def against_plain(self, trial: FrozenTrial) -> float | None:
        """Cost of the cheapest plain run that is at least as accurate, over that of a trial; None without one.

        Disturbed seconds are no claim, neither of the trial nor of the plain run.
        """
        if trial.user_attrs.get(records.NOISY):
            return None
        quiet = (plain for plain in self.plain if not plain.user_attrs.get(records.NOISY))
        seconds = [plain.values[0] for plain in quiet if plain.values[1] >= trial.values[1]]
        return min(seconds) / trial.values[0] if seconds else None

    @cached_property
    def counts(self) -> records.Counts:
        """How the trials ended."""
        return records.counts(self.trials)

    @cached_property
    def n_counted(self) -> int:
        """Trials that count towards the study's total."""
        return records.n_counted(self.trials)

    @cached_property
    def unsettled(self) -> set[int]:
        """Trials whose point may yet be replaced by a repeat."""
        return repeats.unsettled(self.trials, self.floor, self.spec.search.repeats)

    @cached_property
    def kept(self) -> set[int]:
        """Trials whose networks are kept: of the front, what repeats may bring back to it, what is yet to be tested.

        Of the choice and its closest rivals the latest network, on the front or not: what is trained on all images is
        as sure as a twin that was trained on a part of them.
        """
        found = repeats.kept(self.trials, self.floor, self.spec.search.repeats)
        rivals = sorted((self.trials[point.trial] for point in self.outcomes), key=self._rank, reverse=True)[:RIVALS]
        latest = {(self.fresh_of(point) or [point])[-1].number for point in rivals if point.number not in found}
        return found | latest | {trial.number for trial in self.untested}

    @cached_property
    def confirmed(self) -> dict[int, Confirmed]:
        """What fresh seeds say of the front and of BASELINE, by the number of the first trial of each."""
        tests = confirmation.tests(self.attributes)
        return confirmation.confirmed(self.trials, self.floor, self.n_sure, self.spec.metric, tests)

    @property
    def n_val(self) -> int:
        """Images that validate."""
        return int(self.attributes[records.IDENTITY]["data"]["n_val"])

    @property
    def n_sure(self) -> int:
        """Images from whose number an interval of an accuracy comes: fewer where uneven classes count alike."""
        by_class = self.attributes.get(records.ABOUT, {}).get("validated", ())
        return as_many(self.spec.metric, by_class, self.n_val)

    @cached_property
    def alike(self) -> set[int]:
        """Points of the front as accurate as a cheaper one, for all that fresh seeds, or images without them, tell."""
        by_cost = sorted(self.candidates, key=lambda each: each.cost)
        marks = confirmation.alike(each.interval for each in by_cost)
        return {each.trial for each, is_alike in zip(by_cost, marks, strict=True) if is_alike}

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The front with what is known of each point: means of fresh seeds, else what it was chosen for."""
        return [self._candidate(trial) for trial in self.front_trials]

    def _candidate(self, trial: FrozenTrial) -> Candidate:
        found = self.confirmed_of(trial)
        if found is None:
            cost, accuracy = trial.values
            return Candidate(trial.number, cost, accuracy, wilson(accuracy, self.n_sure), 0)
        reached = found.accuracy
        interval = reached.interval or wilson(reached.mean, self.n_sure)
        return Candidate(trial.number, found.cost.mean, reached.mean, interval, found.n, found.cost.interval)

    def network(self, trial: int) -> Path | None:
        """The folder of a trial's network; None where it is not on this machine."""
        folder = Networks(self.artifacts.absolute()).of(trial)
        return folder if folder.is_dir() else None

    @cached_property
    def _fresh(self) -> dict[int, list[FrozenTrial]]:
        return confirmation.runs(self.trials)

    def fresh_of(self, point: FrozenTrial) -> list[FrozenTrial]:
        """The fresh seeds of a point that trained to their end, whether it is on the front or not."""
        return self._fresh.get(records.first(point), [])

    def accuracy(self, point: FrozenTrial) -> float:
        """Of a point, on the front or not: the mean of its fresh seeds, where there are any."""
        return fmean(trial.values[1] for trial in self.fresh_of(point) or [point])

    def pipeline(self, trial: FrozenTrial) -> Pipeline:
        """The pipeline that a trial trained; what it begins from lies where that is now."""
        found, start = records.pipeline(trial), self.given.start
        if start is None:
            return found
        moved = (
            replace(each, source=start.source) if isinstance(each, Transfer) and each.digest == start.digest else each
            for each in found.strategies
        )
        return replace(found, strategies=tuple(moved))

    @cached_property
    def choice(self) -> FrozenTrial | None:
        """The pipeline to go with: one more run of it is expected to be the most accurate; None where none passes.

        Of equally accurate ones the cheapest.
        """
        return self.most_accurate(self.trials[outcome.trial] for outcome in self.outcomes)

    def most_accurate(self, points: Iterable[FrozenTrial]) -> FrozenTrial | None:
        """The point of which one more run is expected to be the most accurate; of equal ones the cheapest."""
        return max(points, key=self._rank, default=None)

    def _rank(self, point: FrozenTrial) -> tuple[float, float]:
        return round(self.expected(point), 6), -point.values[0]

    def expected(self, point: FrozenTrial) -> float:
        """The accuracy that one more run of a point is expected to reach; of those far behind what is known of each."""
        return self._expected.get(point.number, self.accuracy(point))

    @cached_property
    def _expected(self) -> dict[int, float]:
        found = expected(list(self._weighed.values()), self.n_sure)
        return dict(zip(self._weighed, found, strict=True))

    @cached_property
    def worth_another(self) -> dict[int, float]:
        """Decades of error that one more run of a point, by its number, is expected to improve the choice by."""
        found = worth_another(list(self._weighed.values()), self.n_sure)
        return dict(zip(self._weighed, found, strict=True))

    @cached_property
    def _weighed(self) -> dict[int, Runs]:
        """All runs of each of the most accurate points, by its number; where nothing was wrong, half an image was."""
        known = (self.trials[outcome.trial] for outcome in self.outcomes)  # another version may tell no pipeline
        points = sorted((t for t in known if records.PIPELINE in t.user_attrs), key=self.accuracy)[-WEIGHED:]
        most = 1 - 0.5 / self.n_val  # few images tell no less of an error: a lucky run would outweigh all others
        runs = [tuple(min(trial.values[1], most) for trial in (point, *self.fresh_of(point))) for point in points]
        alike = [records.apart_from_length(self.pipeline(point)) for point in points]
        return {point.number: Runs(*like, reached) for point, like, reached in zip(points, alike, runs, strict=True)}

    @cached_property
    def untested(self) -> list[FrozenTrial]:
        """Confirmations whose networks have not met the test split."""
        return confirmation.untested(self.trials, self.floor, confirmation.tests(self.attributes))

    def is_disturbed(self, point: FrozenTrial) -> bool:
        """Whether other work disturbed what is told of a point's seconds: all fresh seeds, or the run without them."""
        found = self.confirmed_of(point)
        return bool(point.user_attrs.get(records.NOISY)) if found is None else found.is_disturbed

    def confirmed_of(self, point: FrozenTrial) -> Confirmed | None:
        """What fresh seeds say of a point; None where it has none."""
        return self.confirmed.get(records.first(point))

    @property
    def n_splits(self) -> int:
        """Splits that a trial trains on side by side: several where every image validates once."""
        if (told := self.attributes.get(records.ABOUT, {}).get("n_splits")) is not None:
            return int(told)
        data = self.attributes[records.IDENTITY]["data"]  # of a study of an earlier version
        n_images = sum(n for _, n, _ in data.get("classes", ()))  # which earlier versions did not tell
        return round(n_images / (n_images - data["n_train"])) if data["n_val"] == n_images else 1

    @cached_property
    def box(self) -> Box | None:
        """What counts in the hypervolume; None for a study of a version that measured another way."""
        stored = self.attributes.get(records.BOX)
        return Box(**stored) if stored is not None else None

    def hypervolume(self, outcomes: Sequence[Outcome] | None = None) -> float | None:
        """The share of the box that the front, or given outcomes, dominate; None where there is no box."""
        return None if self.box is None else hypervolume(self.front if outcomes is None else outcomes, self.box)

    def n_left(self, n_trials: int) -> int:
        """Trials that are missing from a total of `n_trials`."""
        return max(0, n_trials - self.n_counted)

    def is_complete(self, n_trials: int, share: float = SHARE) -> bool:
        """Whether it has so many trials, and nothing is left to be timed again, or to be confirmed in the share."""
        search = self.spec.search
        return not (
            self.n_left(n_trials)
            or repeats.pending(self.trials, self.floor, search.repeats)
            or confirmation.pending(self.trials, self.floor, search.confirm, share)
        )

    def with_trial(self, trial: FrozenTrial) -> Snapshot:
        """This snapshot with a trial as it will be in the database."""
        trials = list(self.trials)
        trials[trial.number] = trial
        return replace(self, trials=tuple(trials))
