"""`Shown`: a point of a study as figures and pages show it, with the intervals of what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from objectives.words import counted
from search.pareto.front import Outcome, front
from search.pareto.intervals import Estimate, wilson
from search.pareto.kinds import Kind
from search.study import records
from search.study.snapshot import Snapshot


@dataclass(frozen=True)
class Shown:
    """A finished run: means of fresh seeds where it has some, else what the search measured."""

    trial: FrozenTrial
    cost: Estimate  # what the study minimises
    accuracy: Estimate  # with the interval of seeds, or that of the number of images
    n_seeds: int  # fresh ones; 0: one run, chosen for its luck
    is_alike: bool  # as accurate as a cheaper point of the front, for all that is known
    kind: Kind  # of the study
    is_disturbed: bool  # other work disturbed it whenever it was timed: no claim is made of its seconds

    @property
    def number(self) -> int:
        """Of the trial."""
        return self.trial.number

    @property
    def in_words(self) -> str:
        """Accuracy and cost with their intervals."""
        return f"{percent(self.accuracy)} {joined(self.kind)} {in_words(self.cost, self.kind)}"

    @property
    def lines(self) -> tuple[str, ...]:
        """All that is said of it beside the pointer."""
        cost, accuracy = self.trial.values
        searched = f"{accuracy:.2%} {joined(self.kind)} {self.kind.brief(cost, 3)}"
        source = (
            f"means of {counted(self.n_seeds, 'fresh seed')}; the search measured {searched}"
            if self.n_seeds
            else "one run; the interval is that of the number of images"
        )
        alike = ("not known to be more accurate than a cheaper point",) if self.is_alike else ()
        disturbed = ("other work disturbed the device when it was timed",) if self.is_disturbed else ()
        return (f"trial {self.number}: {self.in_words}", source, *alike, *disturbed, records.in_words(self.trial))


def joined(kind: Kind) -> str:
    """The word between an accuracy and its cost."""
    return "after" if kind.trains else "with"


def shown(trial: FrozenTrial, now: Snapshot) -> Shown:
    """A finished run, as it is shown."""
    found, is_alike = now.confirmed_of(trial), trial.number in now.alike
    if found is not None:
        return Shown(trial, found.cost, found.accuracy, found.n, is_alike, now.kind, found.is_disturbed)
    cost, accuracy = trial.values
    images = Estimate(accuracy, wilson(accuracy, now.n_sure))
    return Shown(trial, Estimate(cost, None), images, 0, is_alike, now.kind, now.is_disturbed(trial))


def on_front(now: Snapshot) -> list[Shown]:
    """The points of the front, by rising cost in the search."""
    return [shown(trial, now) for trial in now.front_trials]


def baseline(now: Snapshot) -> Shown | None:
    """BASELINE, on the front or not."""
    return None if now.baseline is None else shown(now.baseline, now)


def plain_front(now: Snapshot) -> list[Shown]:
    """The front of the runs without any strategy, by rising seconds; of reductions, which have none, nothing."""
    if not now.kind.trains:
        return []
    outcomes = [Outcome(trial.number, *trial.values) for trial in now.plain]
    return [shown(now.trials[each.trial], now) for each in front(outcomes)]


def stairs(points: Sequence[Shown]) -> list[tuple[float, float]]:
    """(cost, accuracy) where the best that can be had so far rises."""
    means = [Outcome(each.number, each.cost.mean, each.accuracy.mean) for each in points]
    return [(each.cost, each.accuracy) for each in front(means)]


def percent(estimate: Estimate) -> str:
    """An accuracy in words."""
    if estimate.interval is None:
        return f"{estimate.mean:.2%}"
    low, high = estimate.interval
    return f"{estimate.mean:.2%} ({100 * low:.1f} to {100 * high:.1f})"


def in_words(estimate: Estimate, kind: Kind) -> str:
    """A cost in words."""
    half = "" if estimate.half is None else f" ±{number(estimate.half, kind, 2)}"
    return f"{number(estimate.mean, kind)}{half} {kind.unit}"


def number(cost: float, kind: Kind, digits: int = 3) -> str:
    """A cost without its unit."""
    return kind.brief(cost, digits).partition(" ")[0]
