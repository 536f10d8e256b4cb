"""One trial, from the question to the record, with scripted trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import pytest
from optuna.trial import TrialState

from objectives.errors import DeviceLost
from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from search import trial
from search.crew import Crew
from search.study import records
from search.study.recovery import MAX_RETRIES
from search.study.study import Study
from search.views import summary
from search.views.display import Display
from search.views.training import shadow
from search.workers.seam import TrialFault, WorkerLost
from tests.search.conftest import Scripted, report

NEVER = math.inf
GOOD = [(1.0, 0.6), (2.0, 0.8), (3.0, 0.9), (4.0, 0.95)]


def steady(seconds: float, last: float) -> list[tuple[float, float]]:
    """Four epochs that share their gain evenly in the error, so that all curves have the same gain ratio."""
    return [(seconds * e / 4, 1 - (1 - last) ** (e / 4)) for e in range(1, 5)]


def run_all(study: Study, objective: Scripted) -> list[str]:
    return [trial.run(study, study.ask(), objective, Display(), NEVER)[1] for _ in objective.trainings]


def test_a_finished_training_is_a_point_with_its_curve_and_its_network(new_study: Callable[..., Study]) -> None:
    study, objective = new_study(), Scripted([GOOD])
    assert run_all(study, objective) == ["complete"]
    (done,) = study.trials()
    assert (done.state, done.values) == (TrialState.COMPLETE, [4.0, 0.95])
    assert [(p.epoch, p.train_seconds, p.accuracy) for p in records.curve(done)] == [
        (e, seconds, accuracy) for e, (seconds, accuracy) in enumerate(GOOD, 1)
    ]
    assert objective.exported == [study.networks.of(0)]
    assert records.pipeline(done) == objective.trained[0]
    assert {"train_flops", "inference_flops", "n_parameters", "peak_memory_bytes"} <= set(done.user_attrs)
    assert study.optuna.best_trials[0].number == 0


def test_a_hopeless_training_is_stopped_with_its_curve_and_never_at_its_last_epoch(
    new_study: Callable[..., Study],
) -> None:
    study = new_study()
    objective = Scripted([*[steady(4.0, 0.9)] * 10, steady(400.0, 0.5), [*steady(4.0, 0.9)[:-1], (4.0, 0.21)]])
    reasons = run_all(study, objective)
    assert reasons == ["complete"] * 10 + ["dominated", "complete"]
    stopped = study.trials()[10]
    assert (stopped.state, stopped.values) == (TrialState.PRUNED, None)
    assert 1 <= len(records.curve(stopped)) < 4
    assert {point.epochs for point in records.curve(stopped)} == {4}  # of the run, whatever its settings ask for
    assert study.optuna.get_trials(deepcopy=False)[10].intermediate_values == {}


def test_halving_stops_what_half_of_the_others_beat(new_study: Callable[..., Study]) -> None:
    study = new_study(sampler="random", stopping="halving")
    assert run_all(study, Scripted([*[steady(4.0, 0.9)] * 10, steady(400.0, 0.5)]))[-1] == "unpromising"
    assert (study.trials()[10].state, len(study.snapshot().stopped)) == (TrialState.PRUNED, 1)


def test_value_stops_what_brings_less_than_new_trials_do(new_study: Callable[..., Study]) -> None:
    # Every proposal halves the seconds: the front grows. One that needs long for a little more is not worth it.
    study = new_study(sampler="random", stopping="value", fastest=1.0, slowest=1e4, useful=0.2)
    faster = [steady(1000.0 / 2**k, 0.9) for k in range(8)]
    assert run_all(study, Scripted([*faster, steady(2000.0, 0.905)]))[-1] == "unpromising"
    assert study.snapshot().growth > 0
    patient = new_study("patient", sampler="random", stopping="value", fastest=1.0, slowest=1e4, useful=0.2)
    run_all(patient, Scripted([steady(1000.0, 0.9)] * 16))
    assert patient.snapshot().growth == 0  # new trials bring nothing: what may bring a little goes on
    assert run_all(patient, Scripted([steady(2000.0, 0.905)])) == ["complete"]


def test_stopping_none_lets_it_run_and_notes_what_it_would_have_done(new_study: Callable[..., Study]) -> None:
    study = new_study(stopping="none")
    assert set(run_all(study, Scripted([*[steady(4.0, 0.9)] * 10, steady(400.0, 0.5)]))) == {"complete"}
    assert study.trials()[10].user_attrs[records.WOULD_STOP]["reason"] == "dominated"
    (line,) = shadow.lines(study.snapshot())
    assert line.startswith("Early stopping (front) would have ended 1 of 11 runs before their end: 0 of these joined")
    late = [*steady(400.0, 0.5)[:-1], (400.0, 0.99)]  # nobody could have known
    assert run_all(study, Scripted([late])) == ["complete"]
    assert "ended 2 of 12 runs before their end: 1 of these joined" in "\n".join(summary.lines(study.snapshot()))


def test_where_trials_are_stopped_nothing_is_said_of_what_stopping_would_have_done(
    new_study: Callable[..., Study],
) -> None:
    study = new_study()
    run_all(study, Scripted([*[steady(4.0, 0.9)] * 10, steady(400.0, 0.5)]))
    assert shadow.lines(study.snapshot()) == []


@pytest.mark.parametrize("sampler", ["nsga2", "gp"])
def test_samplers_that_ignore_stopped_trials_are_told_a_violated_constraint(
    sampler: str, new_study: Callable[..., Study]
) -> None:
    study = new_study(sampler=sampler)
    assert run_all(study, Scripted([*[steady(4.0, 0.9)] * 10, steady(400.0, 0.5)]))[-1] == "dominated"
    stopped = study.trials()[10]
    assert stopped.state == TrialState.COMPLETE
    assert max(stopped.constraints.values()) > 0
    assert 10 not in {point.trial for point in study.snapshot().front} | {t.number for t in study.optuna.best_trials}
    assert records.n_counted(study.trials()) == 11


def test_a_result_below_the_floor_is_complete_but_never_on_the_front(new_study: Callable[..., Study]) -> None:
    study = new_study()
    run_all(study, Scripted([[(0.1, 0.12)], GOOD]))
    collapsed = study.trials()[0]
    assert collapsed.state == TrialState.COMPLETE
    assert [point.trial for point in study.snapshot().front] == [1]
    assert [t.number for t in study.optuna.best_trials] == [1]
    assert not study.networks.of(0).exists()


@pytest.mark.parametrize("what", ["nan", "inf", "accuracy", "balanced", "seconds"])
def test_an_impossible_report_ends_the_trial_as_diverged(what: str, new_study: Callable[..., Study]) -> None:
    broken = {
        "nan": {"loss": math.nan, "diverged": True},
        "inf": {"seconds": math.inf},
        "accuracy": {"accuracy": 1.5},
        "balanced": {"balanced_accuracy": math.nan},
        "seconds": {"seconds": 0.0},
    }[what]

    class Broken(Scripted):
        def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
            values = {"seconds": 2.0, "accuracy": 0.9} | broken
            yield report(1, 4, 1.0, 0.5)
            yield report(2, 4, values.pop("seconds"), values.pop("accuracy"), **values)
            raise AssertionError("the training went on")

    study = new_study()
    assert trial.run(study, study.ask(), Broken([]), Display(), NEVER)[1] == "diverged"
    assert study.trials()[0].state == TrialState.PRUNED
    assert study.snapshot().front == ()


def test_out_of_memory_is_recorded_counted_and_not_tried_again(new_study: Callable[..., Study]) -> None:
    study = new_study()
    run_all(study, Scripted([TrialFault("out_of_memory", "of 80 GiB nothing is left"), GOOD]))
    failed, _ = study.trials()
    assert failed.state == TrialState.FAIL
    assert (records.reason(failed), failed.user_attrs[records.MESSAGE]) == (
        "out_of_memory",
        "of 80 GiB nothing is left",
    )
    assert records.n_counted(study.trials()) == 2


def test_a_crash_is_tried_once_more_with_the_same_pipeline_and_seeds(new_study: Callable[..., Study]) -> None:
    study = new_study()
    crash = TrialFault("crash", "signal SIGSEGV")
    objective = Scripted([crash, crash, GOOD])
    assert run_all(study, objective) == ["crash", "crash", "complete"]
    assert objective.trained[0] == objective.trained[1] != objective.trained[2]
    assert objective.seeds[0] == objective.seeds[1] != objective.seeds[2]
    assert records.n_counted(study.trials()) == 2  # the crash that was tried again does not count


def test_a_trial_whose_worker_is_lost_each_time_is_given_up_and_counted_once(new_study: Callable[..., Study]) -> None:
    study = new_study()
    objective = Scripted([*[WorkerLost("its node died")] * (MAX_RETRIES + 1), GOOD])
    assert run_all(study, objective) == [*[records.LOST] * MAX_RETRIES, "crash", "complete"]
    first, *again, other = objective.trained
    assert again == [first] * MAX_RETRIES
    assert other != first
    assert records.n_counted(study.trials()) == 2


def test_a_device_that_is_lost_with_its_machine_leaves_the_trial_to_the_next_one(
    new_study: Callable[..., Study],
) -> None:
    class Moving(Scripted):
        def facts(self) -> dict[str, object]:
            raise WorkerLost("its node died")

        def ready(self) -> bool:
            return True

    study, objective = new_study(), Moving([DeviceLost("uncorrectable ECC error"), GOOD])
    Crew(study, Display(), n_trials=1, deadline=NEVER).work([objective])
    assert objective.trained[0] == objective.trained[1]
    assert [records.reason(t) for t in study.trials()] == ["complete"]


def test_an_interrupted_trial_goes_back_to_the_queue_as_it_was(new_study: Callable[..., Study]) -> None:
    study = new_study()
    objective = Scripted([KeyboardInterrupt(), GOOD])
    with pytest.raises(KeyboardInterrupt):
        trial.run(study, study.ask(), objective, Display(), NEVER)
    assert [t.state for t in study.trials()] == [TrialState.WAITING]
    assert trial.run(study, study.ask(), objective, Display(), NEVER) == (0, "complete")
    assert objective.trained[0] == objective.trained[1]
    assert len(study.trials()) == 1


def test_a_trial_that_is_overtaken_by_the_deadline_goes_back_to_the_queue(new_study: Callable[..., Study]) -> None:
    study = new_study()
    with pytest.raises(trial.OutOfTime):
        trial.run(study, study.ask(), Scripted([GOOD]), Display(), deadline=0.0)
    assert [t.state for t in study.trials()] == [TrialState.WAITING]
    assert records.n_counted(study.trials()) == 0


def test_networks_are_kept_for_the_front_and_the_four_most_accurate(new_study: Callable[..., Study]) -> None:
    study = new_study(stopping="none")
    accuracies = (0.5, 0.6, 0.55, 0.8, 0.75, 0.76, 0.77)  # of which the second and the fourth are on the front
    for n, accuracy in enumerate(accuracies):
        trial.run(study, study.ask(), Scripted([[(1.0 if n == 1 else 2.0 + n, accuracy)]]), Display(), NEVER)
    kept = [study.networks.of(n).name for n in (1, 3, 4, 5, 6)]
    assert sorted(p.name for p in study.networks.folder.iterdir()) == kept


def test_the_balanced_accuracy_is_maximised_where_the_study_says_so(new_study: Callable[..., Study]) -> None:
    study = new_study()
    object.__setattr__(study, "spec", study.spec.model_copy(update={"metric": "balanced"}))

    class Unbalanced(Scripted):
        def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
            yield report(1, 1, 1.0, 0.9, balanced_accuracy=0.4)

    trial.run(study, study.ask(), Unbalanced([]), Display(), NEVER)
    assert study.trials()[0].values == [1.0, 0.4]
    assert study.trials()[0].user_attrs["accuracy"] == 0.9
