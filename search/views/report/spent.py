"""Where the seconds of a study went, and how its trials ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing.points import Shown

MEANINGS = {
    "dominated": "stopped early: even an optimist expected another run to be as accurate in less time",
    "below_floor": "stopped early: even an optimist expected it to stay below the accuracy floor",
    "unpromising": "stopped early: expected to add less to the front than a new trial would",
    "diverged": "a loss, logit, weight or statistic was no finite number",
    "out_of_memory": "the device was too small for it",
    "hang": "it told nothing for too long and was ended",
    "crash": "its process died; it was tried once more",
    "worker_lost": "lost with the process or machine that ran it; queued again, not counted",
}
MOST_CHARACTERS = 200  # of a message that is shown


@dataclass(frozen=True)
class Share:
    """A part of the seconds."""

    name: str
    n: int  # trials
    seconds: float  # of the device
    share: float  # of all, in [0, 1]


@dataclass(frozen=True)
class Ending:
    """A reason for which trials did not train to their end."""

    reason: str
    meaning: str
    n: int
    example: str  # what one of them said; empty where none did


@dataclass(frozen=True)
class Part:
    """What a run of the front spent its time on."""

    trial: int
    steps: float  # seconds of the device, charged
    between_epochs: float | None  # likewise: surgery and what else strategies do there; None: an earlier version
    evaluation: float  # not charged
    wall: float | None  # of what was charged, by the clock on the wall


def shares(now: Snapshot) -> list[Share]:
    """The seconds of all trainings, by what they came to."""
    on_front = {point.trial for point in now.front}
    kinds: dict[str, list[FrozenTrial]] = {
        name: []
        for name in (
            *("on the front", "not on the front", "stopped early"),
            *("failed or lost", "timed again", "fresh seeds", "taken apart", "still running"),
        )
    }
    for trial in now.trials:
        if trial.state != TrialState.WAITING:
            kinds[_kind(trial, on_front)].append(trial)
    total = sum(records.seconds(trial) for trial in now.trials) or 1.0
    sums = {name: sum(map(records.seconds, trials)) for name, trials in kinds.items()}
    return [Share(name, len(kinds[name]), sums[name], sums[name] / total) for name in kinds if kinds[name]]


def _kind(trial: FrozenTrial, on_front: Iterable[int]) -> str:
    if not trial.state.is_finished():
        return "still running"
    if trial.number in on_front:
        return "on the front"
    if records.is_confirmation(trial):
        return "fresh seeds"
    if records.is_ablation(trial):
        return "taken apart"
    if records.is_repeat(trial):
        return "timed again"
    if records.is_stopped(trial):
        return "stopped early"
    if records.is_finished_run(trial):
        return "not on the front"
    return "failed or lost"


def endings(now: Snapshot) -> list[Ending]:
    """The trials that did not train to their end, by reason, the most frequent first."""
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in now.trials:
        if trial.state.is_finished() and not records.is_finished_run(trial) and not records.is_ended_ablation(trial):
            groups.setdefault(records.reason(trial), []).append(trial)
    found = []
    for reason, trials in sorted(groups.items(), key=lambda each: -len(each[1])):
        said = next(
            (f"trial {t.number}: {message}" for t in trials if (message := t.user_attrs.get(records.MESSAGE))), ""
        )
        short = said if len(said) <= MOST_CHARACTERS else f"{said[: MOST_CHARACTERS - 3]}..."
        found.append(Ending(reason.replace("_", " "), MEANINGS.get(reason, ""), len(trials), short))
    return found


def parts(points: Iterable[Shown]) -> list[Part]:
    """What trainings of the front spent their time on; nothing of reductions, which do not tell their steps apart."""
    found = []
    for each in (point for point in points if point.kind.is_timed):
        attributes, (seconds, _) = each.trial.user_attrs, each.trial.values
        between = attributes.get(records.BOUNDARY_SECONDS)
        wall = attributes.get(records.WALL_SECONDS)
        found.append(Part(each.number, seconds - (between or 0.0), between, attributes.get("eval_seconds", 0.0), wall))
    return found
