"""Studies in a world, through the same code as real ones, against a simulated clock."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from objectives.pipeline import Pipeline, Report
from search import trial
from search.database import storage
from search.pareto.front import Box, Outcome, front, hypervolume
from search.proposals.draws import Draw
from search.simulation.simulated import SimulatedObjective
from search.simulation.worlds import Recorded, Row, World
from search.study import opening, queue, records
from search.study.snapshot import Snapshot
from search.study.spec import StudySpec
from spaces import SPACES
from spaces.base import Given, Trial
from spaces.restricted import anchor_pipelines, sample

SHARE, TIMES = 0.1, 3  # of the seconds of a table; of those that known pipelines take
N_DRAWS = 3000  # pipelines drawn at random, by which the best front of a world is known besides those that were tried


@dataclass(frozen=True)
class Setting:
    """What simulated studies have in common: all that a recorded one says but its trainings."""

    spec: StudySpec
    facts: Mapping[str, Any]
    box: Box
    given: Given  # to its space: its number formats and the network to start from among it
    number_formats: Mapping[str, str | None]

    @classmethod
    def of(cls, recorded: Snapshot) -> Setting:
        """The setting of a recorded study."""
        assert recorded.box is not None
        known = recorded.attributes
        facts = {**known[records.IDENTITY], "about": None, "images": {}, "skipped": [], "warnings": []}
        facts |= {records.START: known[records.START]} if known.get(records.START) else {}
        return cls(recorded.spec, facts, recorded.box, recorded.given, known[records.FORMATS])


@dataclass(frozen=True)
class Step:
    """A trial of a simulated study that has ended."""

    clock: float  # simulated seconds of training since the study began
    outcome: Outcome | None  # as it was observed; None where it was stopped
    pipeline: Pipeline
    is_proposed: bool = True  # and no known pipeline


def table(recorded: Snapshot) -> tuple[Row, ...]:
    """The trainings of a study that ran to their end."""
    rows = []
    for ended in recorded.points:
        curve = records.curve(ended)
        shares = tuple((point.fraction, point.accuracy) for point in curve)
        rows.append(Row(ended.user_attrs[records.PIPELINE], ended.values[0], ended.values[1], shares))
    return tuple(rows)


def world(recorded: Snapshot, kind: str) -> Recorded:
    """The world of a recorded study, by one kind of model."""
    assert recorded.box is not None
    return Recorded(table(recorded), recorded.box.n_images, "process" if kind == "process" else "trees")


def simulated(setting: Setting, world: World, spread: float, budget: float, **search: Any) -> list[Step]:
    """The trials of a study that had `budget` simulated seconds.

    `search`: what differs from the setting's `[search]` section: sampler, stopping, seed.
    """
    fixed = {"fastest": setting.box.fastest, "slowest": setting.box.slowest, "useful": setting.box.useful}
    changed = setting.spec.search.model_copy(
        update={"n_trials": 10**6, "repeats": 0, "timeout": None, **fixed, **search}
    )
    spec = setting.spec.model_copy(update={"search": changed})
    steps: list[Step] = []
    with tempfile.TemporaryDirectory(prefix="frontrunner-simulated-") as folder:
        database = storage.open_storage(f"sqlite:///{folder}/studies.db")
        study = opening.created("simulated", spec, database, setting.facts, setting.number_formats)
        queue.enqueue_anchors(study)
        objective = SimulatedObjective(world, setting.facts, spread)
        while objective.seconds < budget:
            number, _ = trial.run(study, study.ask(), objective, _Silent(), math.inf)
            ended = study.trials()[number]
            finished = records.is_finished_run(ended)
            outcome = Outcome(number, ended.values[0], ended.values[1]) if finished else None
            steps.append(Step(objective.seconds, outcome, records.pipeline(ended), records.is_proposed(ended)))
        database.optuna.engine.dispose()
    return steps


def usual(recorded: Snapshot, setting: Setting, world: World) -> float:
    """The seconds that a simulated study has unless said: a share of the table's, and enough to propose something."""
    space = SPACES[setting.spec.space.name]
    anchors = true_outcomes(world, list(anchor_pipelines(space, setting.given, setting.spec.restrictions).values()))
    table_seconds = math.fsum(point.values[0] for point in recorded.points)
    return max(SHARE * table_seconds, TIMES * math.fsum(each.cost for each in anchors))


def progress(steps: Sequence[Step], world: World, box: Box, clocks: Sequence[float]) -> list[float]:
    """The share of the box that the front found by each of the clocks truly dominates, noise apart."""
    pipelines = {step.outcome.trial: step.pipeline for step in steps if step.outcome is not None}
    true = dict(zip(pipelines, true_outcomes(world, list(pipelines.values())), strict=True))
    found = []
    for clock in clocks:
        ended = [step.outcome for step in steps if step.outcome is not None and step.clock <= clock]
        inside = [outcome for outcome in ended if outcome.accuracy >= box.useful]
        found.append(hypervolume([true[point.trial] for point in front(inside)], box))
    return found


def true_outcomes(world: World, pipelines: Sequence[Pipeline]) -> list[Outcome]:
    """What pipelines come to in the mean."""
    truths = world.truths(pipelines) if pipelines else []
    return [Outcome(i, 10**each.log_seconds, max(0.0, 1 - 10**each.log_error)) for i, each in enumerate(truths)]


def known(setting: Setting, world: World, tried: Sequence[Pipeline]) -> tuple[list[Outcome], list[Outcome]]:
    """(what the anchors truly come to, what they, draws of the space and what was tried come to)."""
    given, spec = setting.given, setting.spec
    space, rng = SPACES[spec.space.name], np.random.default_rng(0)
    anchors = list(anchor_pipelines(space, given, spec.restrictions).values())
    drawn = [sample(space, cast("Trial", Draw(rng)), given, spec.restrictions) for _ in range(N_DRAWS)]
    return true_outcomes(world, anchors), true_outcomes(world, [*anchors, *drawn, *tried])


class _Silent:
    """Nobody watches."""

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None: ...
    def epoch_finished(self, number: int, report: Report, accuracy: float) -> None: ...
    def trial_finished(self, number: int, reason: str, message: str) -> None: ...
    def say(self, line: str) -> None: ...


def opened(url: str, name: str) -> Snapshot:
    """A recorded study."""
    return opening.stored(name, storage.open_storage(url, create=False)).snapshot()
