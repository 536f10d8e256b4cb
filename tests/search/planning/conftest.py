"""A study as a plan makes one, and what it would look like after runs of known seconds and accuracies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from objectives.pipeline import Pipeline
from search.database import storage
from search.planning import costs, plan
from search.planning.plan import Images
from search.proposals import interest
from search.proposals.draws import Draw, candidate
from search.study import opening, queue, records, spec
from search.study.snapshot import Snapshot
from search.study.study import Study
from spaces import SPACES
from spaces.restricted import sample
from tests.search.conftest import FACTS, FORMATS

BEGAN = datetime(2026, 1, 1)
IMAGES = Images("digits", 200, 50, 10, 1, 8, 8, False, "digits are no mirror images")


@dataclass(frozen=True)
class Run:
    """A run of the search that came to its end."""

    seconds: float  # of the device
    accuracy: float
    anchor: str | None = None
    confirm_of: int | None = None
    fill: bool = False
    state: TrialState = TrialState.COMPLETE
    wall: float = 1.0  # seconds on the wall for each of the device


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A new study of a plan for five minutes, its anchors in the queue."""
    made = plan.chosen("mine", 5.0, IMAGES, costs.nominal(plan.to_probe(8)[0], 1e10), "cpu")
    (tmp_path / "mine.toml").write_text(made.study_file())
    name, read = spec.read(str(tmp_path / "mine.toml"))
    database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
    found = opening.created(name, read, database, FACTS, FORMATS)
    queue.enqueue_anchors(found, in_minutes=True)
    return found


def choosing(now: Snapshot) -> Callable[[Any], Pipeline]:
    """What a trial makes of the space."""
    space = SPACES[now.spec.space.name]
    return lambda trial: sample(space, trial, now.given, now.spec.restrictions)


def nominal(now: Snapshot, pipeline: Pipeline) -> float:
    """Seconds that are forecast before anything has run."""
    return interest.forecast(pipeline, now.spec.task, now.given, None)


def after(now: Snapshot, runs: Sequence[Run], *, waiting: bool = False) -> Snapshot:
    """The study after these runs; `waiting`: before what is in its queue."""
    trials = [ended(now, number, run) for number, run in enumerate(runs)]
    for trial in now.trials if waiting else ():
        moved = optuna.trial.create_trial(
            state=TrialState.WAITING, user_attrs=trial.user_attrs, system_attrs=trial.system_attrs
        )
        moved.number = len(trials)
        trials.append(moved)
    return replace(now, trials=tuple(trials))


def ended(now: Snapshot, number: int, run: Run) -> FrozenTrial:
    drawn = candidate(choosing(now), Draw(np.random.default_rng(number)))
    attributes: dict[str, object] = {records.PIPELINE: drawn.chosen.to_json(), records.QUESTION: str(number)}
    if run.anchor is not None:
        attributes[records.ANCHOR] = run.anchor
    if run.confirm_of is not None:
        attributes[records.CONFIRM_OF] = run.confirm_of
    if run.fill:
        attributes[records.FILL] = True
    made = optuna.trial.create_trial(
        state=run.state,
        params=dict(drawn.params),
        distributions=dict(drawn.distributions),
        values=[run.seconds, run.accuracy] if run.state == TrialState.COMPLETE else None,
        user_attrs=attributes,
    )
    made.number, made.datetime_start = number, BEGAN
    if run.state.is_finished():
        made.datetime_complete = BEGAN + timedelta(seconds=run.wall * run.seconds)
    return made
