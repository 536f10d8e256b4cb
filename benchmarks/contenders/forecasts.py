"""What a plan had forecast of a run of `search.run --minutes`, beside what came."""

from __future__ import annotations

import tomllib
from pathlib import Path
from statistics import median

import optuna
from optuna.storages import RDBStorage

from search.planning.budget import FILL_SHARE, OVERHEAD
from search.planning.plan import ERR
from search.study import records

Pair = list[float]  # forecast, came; where nothing came: only the forecast


def forecast(studies: Path, minutes: float, wall_seconds: float) -> dict[str, Pair]:
    """Of a folder with one study: device seconds of its first, a typical, and its longest run, trials, seconds in all.

    What was forecast is read from the study file that the plan was written to; `wall_seconds`: what the run took.
    """
    (file,) = studies.glob("*.toml")
    told = tomllib.loads(file.read_text())["search"]
    storage = RDBStorage(f"sqlite:///{studies / 'optuna.db'}")
    try:
        trials = optuna.load_study(study_name=file.stem, storage=storage).get_trials(deepcopy=False)
    finally:
        storage.engine.dispose()
    ended = [trial for trial in trials if trial.state.is_finished() and records.is_searched(trial)]
    longest = [trial.values[0] for trial in ended if records.FILL in trial.user_attrs and trial.values]
    others = [trial for trial in ended if records.FILL not in trial.user_attrs]
    proposed = [t.values[0] for t in others if t.values and records.ANCHOR not in t.user_attrs]
    first = [t.values[0] for t in sorted(others, key=lambda t: t.datetime_start or t.number) if t.values]  # type: ignore[arg-type, return-value]
    first_seconds, n_trials = told["fastest"] / (1 - ERR), float(round(told["n_trials"] / (1 + ERR)))
    return {
        "first": [first_seconds, *first[:1]],
        "longest": [FILL_SHARE * 60 * minutes / OVERHEAD, *longest[:1]],
        "trials": [n_trials, float(len(others))],
        "end": [60 * minutes, wall_seconds],
        "proposed": [median(proposed)] if proposed else [],
    }
