"""A table is recorded by real runs of the program, goes on where it was, and searches in it are reproducible."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from search.database import storage
from search.simulation import simulate
from search.study import opening, records
from search.study.study import Study
from tests.search.conftest import Done
from tests.search.place import Place
from tests.search.proposals.test_effects import filled


@pytest.mark.long
def test_a_record_is_a_study_of_its_own_that_draws_at_random_and_stops_nothing(place: Place) -> None:
    done = place.run("record", "--study", "tiny", "--n-trials", "12", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert "'tiny-record'" in done.err
    recorded = opening.stored("tiny-record", storage.open_storage(place.url))
    search = recorded.spec.search
    assert (search.sampler, search.stopping, search.repeats, search.confirm) == ("random", "none", 0, 0)
    assert [records.reason(t) for t in recorded.trials()] == ["complete"] * 12
    again = place.run("record", "--study", "tiny", "--n-trials", "14", "--device", "cpu", "--json")
    assert again.code == 0
    assert len(recorded.trials()) == 14


@pytest.fixture
def table(new_study: Callable[..., Study]) -> Study:
    return filled(new_study("table", fastest=1.0, slowest=100.0), 40)


@pytest.mark.long
@pytest.mark.parametrize("model", ["trees", "process"])
def test_searches_in_a_table_are_reproducible_and_never_lose_what_they_found(
    model: str, table: Study, command: Callable[[str], Done]
) -> None:
    line = f"simulate --study table --storage {table.database.url} --model {model} --seconds 60 --seeds 2"
    one, two = command(line), command(line)
    assert one.code == 0, one.err
    assert one.out == two.out
    rows = [line.split() for line in one.out.splitlines()[1:3]]
    assert "nothing was proposed" not in one.out
    assert [row[0] for row in rows] == ["0", "1"]
    assert rows[0] != rows[1]
    assert all(int(row[1]) > 3 and 0 <= float(row[-1]) <= 1 for row in rows)
    assert "the best front known of this world" in one.out


def test_a_simulated_study_is_offered_what_the_recorded_one_was(table: Study) -> None:
    table.optuna.set_user_attr(records.FORMATS, {"fp32": None, "fp16": None, "bf16": "slower than fp32"})
    recorded = opening.stored("table", table.database).snapshot()
    setting = simulate.Setting.of(recorded)
    assert setting.given == recorded.given
    steps = simulate.simulated(setting, simulate.world(recorded, "trees"), 0.0, 50.0, seed=0, sampler="random")
    assert {step.pipeline.number_format for step in steps} == {"fp32", "fp16"}


def test_unless_said_there_is_time_to_propose_something_and_else_it_is_said(
    table: Study, command: Callable[[str], Done]
) -> None:
    recorded = table.snapshot()
    setting, world = simulate.Setting.of(recorded), simulate.world(recorded, "trees")
    usual = simulate.usual(recorded, setting, world)
    steps = simulate.simulated(setting, world, 0.04, 0.6 * usual, seed=0)
    assert sum(step.is_proposed for step in steps) > 3
    done = command(f"simulate --study table --storage {table.database.url} --seconds 0.1 --seeds 1 --spread 0")
    assert done.code == 0, done.err
    assert done.out.count("In all studies known pipelines took all of the 0.1 s: nothing was proposed") == 1


def test_the_model_of_a_table_explains_what_it_has_not_seen(table: Study) -> None:
    for kind in ("trees", "process"):
        seconds, error = simulate.world(table.snapshot(), kind).explained
        assert seconds > 0.5
        assert error > 0.3


def test_too_small_a_table_is_refused(new_study: Callable[..., Study], command: Callable[[str], Done]) -> None:
    small = filled(new_study("table", fastest=1.0, slowest=100.0), 7)
    done = command(f"simulate --study table --storage {small.database.url}")
    assert done.code == 2
    assert done.err.strip().count("\n") == 0
    assert "has 7 trainings that ran to the end, a table needs 30: " in done.err
