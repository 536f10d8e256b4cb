"""A study is created whole, resumed as what it is, and counts exactly."""

from __future__ import annotations

import copy
import math
import socket
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search import trial
from search.database import storage
from search.errors import StorageError, UsageError
from search.study import opening, records, spec, study
from search.study.study import Study
from search.views.display import Display
from spaces.base import BASELINE, baseline
from tests.search.conftest import FACTS, FORMATS, TOML, Scripted

GOOD = [(1.0, 0.6), (2.0, 0.8)]
DEAD = {"host": socket.gethostname(), "boot": "another boot", "pid": 1, "started": 0}


@pytest.mark.parametrize(("n_trials", "n_rungs"), [(17, 0), (18, 3)])
def test_a_ladder_is_queued_where_half_of_the_trials_are_left_to_search(
    n_trials: int, n_rungs: int, new_study: Callable[..., Study]
) -> None:
    made = new_study(n_trials=n_trials)
    made.enqueue_anchors()
    queued = [t.user_attrs[records.ANCHOR] for t in made.trials()]
    assert [name.startswith("ladder") for name in queued] == [False] * 6 + [True] * n_rungs


def test_the_anchors_are_the_first_trials_and_are_queued_once(new_study: Callable[..., Study]) -> None:
    made = new_study()
    made.enqueue_anchors()
    made.enqueue_anchors()
    objective = Scripted([GOOD] * 6)
    for _ in objective.trainings:
        trial.run(made, made.ask(), objective, Display(), math.inf)
    anchors = [t.user_attrs[records.ANCHOR] for t in made.trials()]
    assert anchors == [
        BASELINE,
        "BASELINE in bf16",
        "progressive resolution",
        "long one-cycle",
        "PruneTrain",
        "Net2Net",
    ]
    assert [p.number_format for p in objective.trained] == ["fp32", "bf16", "fp32", "bf16", "bf16", "bf16"]
    assert objective.trained[2].strategies


def test_the_dashboard_and_optuna_see_metric_names_and_directions(new_study: Callable[..., Study]) -> None:
    made = new_study()
    assert made.optuna.metric_names == list(records.METRICS)
    assert [d.name for d in made.optuna.directions] == ["MINIMIZE", "MAXIMIZE"]


def test_the_reference_is_fixed_when_the_baseline_has_run(new_study: Callable[..., Study]) -> None:
    made = new_study()
    made.enqueue_anchors()
    assert made.reference() is None
    assert made.hypervolume() is None
    objective = Scripted([GOOD] * 4)
    for _ in range(4):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    assert made.reference() == study.Reference(20.0, 0.2)
    again = opening.resumed("tiny", made.spec, opening.find("tiny", made.database), made.database, FACTS)
    assert again.reference() == made.reference()


def test_the_floor_is_twice_chance_but_at_least_a_fifth(new_study: Callable[..., Study]) -> None:
    assert new_study("ten").floor == 0.2
    assert new_study("given", floor=0.4).floor == 0.4


def changed(**paths: object) -> Mapping[str, Any]:
    facts = copy.deepcopy(FACTS)
    for path, value in paths.items():
        section, _, key = path.partition("__")
        if key:
            facts[section][key] = value
        else:
            facts[section] = value
    return facts


def other(value: object) -> object:
    return not value if isinstance(value, bool) else f"another {value}" if isinstance(value, str) else 77


MEASURED = {"device__model": "another processor", "data__content": "d", "timing_version": 2} | {
    f"{section}__{key}": other(value)
    for section in ("device", "data")
    for key, value in FACTS[section].items()
    if key != "name"  # of the data: the study file says it
}


@pytest.mark.parametrize("path", MEASURED)
def test_a_study_refuses_another_device_or_other_data(path: str, new_study: Callable[..., Study]) -> None:
    made, section, key = new_study(), *path.partition("__")[::2]
    was, now = FACTS[section][key] if key else FACTS[section], MEASURED[path]
    with pytest.raises(UsageError, match="--as NAME") as refused:
        opening.resumed("tiny", made.spec, made.optuna, made.database, changed(**{path: now}))
    assert f"{path.replace('__', '.')} was {was!r}, is {now!r}" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("began", "goes_on"), [(1, 2), (1, records.CLUSTER), (records.CLUSTER, 1)])
def test_a_study_refuses_other_company_for_its_workers(
    began: int | str, goes_on: int | str, new_study: Callable[..., Study]
) -> None:
    made = new_study()
    kept = opening.created("company", made.spec, made.database, FACTS, FORMATS, began)
    with pytest.raises(UsageError, match=f"workers was {began!r}, is {goes_on!r}: start a new study with --as NAME"):
        opening.resumed("company", made.spec, kept.optuna, made.database, FACTS, goes_on)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = [2, 4]", "epochs = [2, 5]", "space.epochs"),
        ("[search]", "[space.fix]\ngrow = true\n[search]", "space.grow"),
        ("[search]", "[space.exclude]\nschedule = 'step'\n[search]", "space.schedule"),
        ("depth = [1, 1]", "depth = [1, 1]\nname = 'number_formats'", "space.name"),
        ("[search]", "[space.exclude]\nschedule = ['step', 'cosine']\n[search]", "excluded.schedule"),
        ("'small'", "'thin'", "family"),
        ("n_trials = 7", "n_trials = 7\nseed = 1", "seed was 0, is 1"),
        ("[network]", "[network]\nstem_stride = 2", "stem_stride was 1, is 2"),
        ("[data]", "metric = 'balanced'\n[data]", "metric was 'plain', is 'balanced'"),
        ("[data]", "test_time_flip = true\n[data]", "test_time_flip was False, is True"),
        ("'digits'", "'cifar10'", "data.name was 'digits', is 'cifar10'"),
        ("n_train = 200", "n_train = 300", "data.n_train was 200, is 300"),
        ("batch_size = [32, 64]", "batch_size = [32, 128]", "space.batch.log2_size"),
        ("depth = [1, 1]", "depth = [1, 1]\nwidth = [0.5, 1.0]", "space.width"),
        ("depth = [1, 1]", "depth = [1, 1]\nexecutors = ['eager']", "space.executor"),
    ],
)
def test_a_study_refuses_a_changed_space(
    old: str, new: str, said: str, new_study: Callable[..., Study], study_file: Path
) -> None:
    made = new_study()
    text = TOML.replace('"', "'")
    assert old in text
    study_file.write_text(text.replace(old, new))
    _, now = spec.read(str(study_file))
    with pytest.raises(UsageError, match="--as NAME, or restore what it was") as refused:
        opening.resumed("tiny", now, made.optuna, made.database, FACTS)
    assert said in str(refused.value)


def test_budget_sampler_and_stopping_may_change(new_study: Callable[..., Study]) -> None:
    made = new_study()
    search = made.spec.search.model_copy(
        update={"n_trials": 9, "sampler": "random", "stopping": "none", "timeout": 3.0}
    )
    now = made.spec.model_copy(update={"search": search, "description": "other words"})
    assert opening.resumed("tiny", now, made.optuna, made.database, FACTS).n_left(9) == 9


def test_a_resumed_study_draws_new_pipelines(new_study: Callable[..., Study]) -> None:
    made = new_study(sampler="random")
    objective = Scripted([GOOD] * 12)
    for _ in range(6):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    again = opening.resumed("tiny", made.spec, opening.find("tiny", made.database), made.database, FACTS)
    for _ in range(6):
        trial.run(again, again.ask(), objective, Display(), math.inf)
    assert len({str(pipeline) for pipeline in objective.trained}) == 12


def test_a_trial_of_a_dead_process_fails_and_is_queued_once(new_study: Callable[..., Study]) -> None:
    made = new_study()
    made.enqueue_anchors()
    lost = made.ask()
    pipeline, seeds = made.pipeline(lost), made.seeds(lost)
    lost.set_user_attr(records.OWNER, DEAD)
    assert made.recover() == [0]
    assert made.recover() == []
    states = [t.state for t in made.trials()]
    assert states == [TrialState.FAIL, *[TrialState.WAITING] * 6]
    assert records.reason(made.trials()[0]) == records.LOST
    assert records.n_counted(made.trials()) == 0
    (retry,) = [t for t in made.trials() if t.user_attrs.get(records.RETRY_OF) == 0]
    assert retry.user_attrs[records.ANCHOR] == BASELINE
    while (tried := made.ask()).number != retry.number:
        made.optuna.tell(tried, state=TrialState.FAIL)
    assert (made.pipeline(tried), made.seeds(tried)) == (pipeline, seeds)


def test_an_anchor_killed_before_it_was_asked_is_the_same_anchor_again(new_study: Callable[..., Study]) -> None:
    made = new_study()
    made.enqueue_anchors()
    made.ask().set_user_attr(records.OWNER, DEAD)  # killed here, with no parameter suggested
    made.recover()
    while (tried := made.ask()).user_attrs.get(records.RETRY_OF) != 0:
        made.optuna.tell(tried, state=TrialState.FAIL)
    assert made.pipeline(tried) == baseline(made.given)


def test_a_reason_of_an_interrupted_try_is_forgotten(new_study: Callable[..., Study]) -> None:
    made = new_study()
    interrupted = made.ask()
    interrupted.set_user_attr(records.REASON, "dominated")  # interrupted between the record and the verdict
    made.requeue(interrupted)
    assert trial.run(made, made.ask(), Scripted([GOOD]), Display(), math.inf) == (0, "complete")
    assert [point.trial for point in made.front()] == [0]


def test_a_complete_study_is_shown_only_for_what_it_is(new_study: Callable[..., Study]) -> None:
    made = new_study()
    assert opening.opened("tiny", made.spec, made.optuna, made.database).floor == made.floor
    other = made.spec.model_copy(update={"data": made.spec.data.model_copy(update={"name": "cifar10"})})
    with pytest.raises(UsageError, match=r"data\.name was 'digits', is 'cifar10'"):
        opening.opened("tiny", other, made.optuna, made.database)


def test_restrictions_that_a_device_cannot_follow_are_refused(
    new_study: Callable[..., Study], study_file: Path
) -> None:
    study_file.write_text(TOML.replace("[search]", '[space.fix]\nnumber_format = "fp16"\n\n[search]'))
    with pytest.raises(UsageError, match='number_format = "fp16": it must be one of "fp32", "bf16"'):
        new_study()


def test_recovery_that_is_itself_killed_is_finished_by_the_next_start(new_study: Callable[..., Study]) -> None:
    made = new_study()
    lost = made.ask()
    lost.set_user_attr(records.OWNER, DEAD)
    made.retry(made.trials()[0])  # killed here: queued, but not yet failed
    assert made.recover() == [0]
    assert [t.state for t in made.trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_of_a_living_process_or_of_another_host_is_left_alone(new_study: Callable[..., Study]) -> None:
    made = new_study()
    made.ask()
    made.ask().set_user_attr(records.OWNER, DEAD | {"host": "elsewhere"})
    assert made.recover() == []


def test_a_trial_of_another_host_is_lost_once_its_heartbeats_have_stopped(new_study: Callable[..., Study]) -> None:
    made = new_study()
    for _ in range(2):
        asked = made.ask()
        asked.set_user_attr(records.OWNER, DEAD | {"host": "elsewhere"})
        made.heartbeat([asked._trial_id])
    assert made.recover() == []
    with sqlite3.connect(storage.sqlite_path(made.database.url)) as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour') WHERE trial_id = 1")
    assert made.recover() == [0]


def test_a_trial_that_takes_the_program_down_each_time_is_given_up_and_counted(new_study: Callable[..., Study]) -> None:
    made = new_study()
    for _ in range(study.MAX_RETRIES + 1):
        made.ask().set_user_attr(records.OWNER, DEAD)
        made.recover()
    assert [records.reason(t) for t in made.trials()] == [records.LOST] * study.MAX_RETRIES + ["crash"]
    assert records.n_counted(made.trials()) == 1


def test_collecting_removes_networks_that_no_front_names(new_study: Callable[..., Study]) -> None:
    made = new_study()
    trial.run(made, made.ask(), Scripted([GOOD]), Display(), math.inf)
    for stray in ("trial-00007", ".trial-00008.123.partial"):
        (made.artifacts / stray).mkdir()
    made.collect()
    assert [p.name for p in made.artifacts.iterdir()] == [made.artifact(0).name]


def test_a_study_whose_creation_was_interrupted_is_made_anew(new_study: Callable[..., Study], tmp_path: Path) -> None:
    database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
    optuna.create_study(study_name="tiny", storage=database.optuna, directions=["minimize", "maximize"])
    assert opening.find("tiny", database) is None
    assert new_study().trials() == []


def test_a_study_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
    optuna.create_study(study_name="tiny", storage=database.optuna).ask()
    with pytest.raises(StorageError, match="choose another name with --as"):
        opening.find("tiny", database)


def test_two_creations_at_once_leave_one_study(new_study: Callable[..., Study]) -> None:
    made = new_study()
    with pytest.raises(StorageError, match="run the command again"):
        opening.created("tiny", made.spec, made.database, FACTS, FORMATS)


def test_workers_with_the_same_data_are_alike_though_one_has_no_cache() -> None:
    opening.check_alike("tiny", FACTS, [FACTS | {"warnings": ["no cache"], "about": "as ever"}])
    with pytest.raises(UsageError, match=r"devices that differ: data.content was 'c', is 'd'"):
        opening.check_alike("tiny", FACTS, [changed(data__content="d")])
