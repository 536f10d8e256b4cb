"""What is read at once is what Optuna reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from search import trial
from search.database import reading, storage
from search.study import queue, records
from search.study.study import Study
from search.views.display import Display
from search.workers.seam import TrialFault
from tests.search.conftest import Scripted

PARAMS = {
    "a": (0.25, FloatDistribution(0.0, 1.0, step=0.25)),
    "b": (3, IntDistribution(1, 9, log=True)),
    "c": (None, CategoricalDistribution(["x", None, 2.5, True])),
}


def test_every_trial_is_what_optuna_has(new_study: Callable[..., Study], tmp_path: Path) -> None:
    study = new_study()
    queue.enqueue_anchors(study)
    objective = Scripted([[(1.0, 0.5), (2.0, 0.9)], [(9.0, 0.3)], TrialFault("crash", "ü\n"), [(4.0, math.nan)]])
    for _ in objective.trainings:
        trial.run(study, study.ask(), objective, Display(), math.inf)
    study.enqueue_afresh(study.trials()[0], {records.CONFIRM_OF: 0})
    study.ask()
    other = new_study("other")
    for made in (study, other):
        for state, values in ((TrialState.COMPLETE, [math.inf, -math.inf]), (TrialState.PRUNED, None)):
            made.optuna.add_trial(
                create_trial(
                    state=state,
                    values=values,
                    params={name: value for name, (value, _) in PARAMS.items()},
                    distributions={name: kind for name, (_, kind) in PARAMS.items()},
                    intermediate_values={3: math.inf, 1: 0.5},
                    user_attrs={"long": "x" * 5000, "nested": [{"ä": None}]},
                    system_attrs={"constraints": [-1.0]},
                )
            )
    database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db", create=False)
    for made in (study, other):
        found = optuna.load_study(study_name=made.name, storage=database.optuna)
        expected = found.get_trials()
        assert reading.trials(database.optuna.engine, found._study_id) == expected
        assert [each.number for each in expected] == [*range(len(expected))]
    assert {each.state for each in study.trials()} == {*TrialState}


def test_what_is_told_between_two_queries_is_read_whole_or_not_at_all(new_study: Callable[..., Study]) -> None:
    study = new_study()
    queue.enqueue_anchors(study)
    engine = study.database.optuna.engine
    n_queries = 0
    for at in range(1, 9):  # told before the query of that number
        asked = study.optuna.ask()

        def tell(*_: object, at: int = at, number: int = asked.number) -> None:
            nonlocal n_queries
            n_queries += 1
            if n_queries == at:
                study.optuna.tell(number, [1.0, 0.5])

        n_queries = 0
        event.listen(engine, "before_cursor_execute", tell)
        try:
            found = reading.trials(engine, study.optuna._study_id)[asked.number]
        finally:
            event.remove(engine, "before_cursor_execute", tell)
        assert (found.state == TrialState.COMPLETE) == (found.values is not None)
        assert found.state in (TrialState.COMPLETE, TrialState.RUNNING)
