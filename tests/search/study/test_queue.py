"""A claim that is asked again, as the answer of a server was lost, leaves no trial behind that nobody runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
from optuna.trial import TrialState

from search.database.storage import Database
from search.study import queue, records
from search.study.study import Study


@contextmanager
def losing(database: Database, number: int) -> Iterator[list[int]]:
    """The answer to a commit of that number, of those that write, is lost: it is done, and looks as if it were not.

    The commits so far.
    """
    commits: list[int] = []
    dialect = database.optuna.engine.dialect
    commit, n_changes = dialect.do_commit, dict[int, int]()  # of a connection, by id

    def lose(connection: Any) -> None:
        commit(connection)
        if connection.total_changes == n_changes.get(id(connection)):
            return
        n_changes[id(connection)] = connection.total_changes
        commits.append(len(commits))
        if commits[-1] == number:
            raise sqlite3.OperationalError("server closed the connection unexpectedly")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialect, "do_commit", lose)
        yield commits


@pytest.mark.parametrize(
    ("sampler", "queued"),
    [
        ("pareto", False),
        pytest.param("pareto", True, marks=pytest.mark.long),  # twelve seconds
        pytest.param("tpe", False, marks=pytest.mark.long),  # as Optuna's own samplers ask
        pytest.param("random", True, marks=pytest.mark.long),
    ],
)
def test_of_a_claim_whose_answer_is_lost_one_trial_runs(
    sampler: str, queued: bool, new_study: Callable[..., Study]
) -> None:
    number, n_commits = 0, 1
    while number < n_commits:
        study = new_study(name=f"tiny-{number}", sampler=sampler)
        if queued:
            queue.enqueue_anchors(study)
        with losing(study.database, number) as commits:
            claimed = queue.claim(study, 8)
        assert claimed is not None
        trials = study.trials()
        assert [t.number for t in trials if t.state == TrialState.RUNNING] == [claimed.number]
        assert trials[claimed.number].user_attrs[records.PIPELINE] == study.pipeline(claimed).to_json()
        assert records.n_counted(trials) == 0
        number, n_commits = number + 1, max(n_commits, len(commits))
    assert n_commits >= (1 if sampler == "pareto" and not queued else 3)


@pytest.mark.parametrize("sampler", ["pareto", "random"])
def test_a_trial_that_was_put_back_and_taken_by_another_run_is_left_to_it(
    sampler: str, new_study: Callable[..., Study]
) -> None:
    study = new_study(sampler=sampler)
    mine = queue.claim(study, 8)
    assert mine is not None
    study.requeue(mine)
    theirs = queue.claim(study, 8)
    assert theirs is not None
    assert theirs.number == mine.number
    theirs.set_user_attr(records.OWNER, {**theirs.user_attrs[records.OWNER], "host": "elsewhere"})
    study.requeue(mine)  # once more: the answer to the first was lost
    assert study.trials()[mine.number].state == TrialState.RUNNING


def test_a_question_to_our_sampler_is_one_commit(new_study: Callable[..., Study]) -> None:
    study = new_study(sampler="pareto", fastest=1.0, slowest=100.0)
    statements: list[str] = []
    engine = study.database.optuna.engine
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda *told: statements.append(told[2].split()[0].upper())
    )
    sqlalchemy.event.listen(engine, "commit", lambda _: statements.append("COMMIT"))
    for _ in range(3):
        statements.clear()
        assert study.ask() is not None
        written = "".join(word[0] for word in statements if word in ("INSERT", "UPDATE", "DELETE", "COMMIT"))
        assert len([part for part in written.split("C") if part]) == 1
