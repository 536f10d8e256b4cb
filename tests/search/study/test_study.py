"""A study is created whole, resumed as what it is, and counts exactly."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from objectives.device.clock import TIMING_VERSION
from objectives.work import n_steps
from search import trial
from search.database import storage
from search.errors import StorageError, UsageError
from search.proposals import interest
from search.study import differences, opening, queue, records, recovery, spec
from search.study.files.unheeded import unheeded
from search.study.study import Study
from search.views import summary
from search.views.display import Display
from search.views.drawing import hypervolume
from spaces import SPACES
from spaces.base import BASELINE, baseline
from spaces.restricted import anchor_pipelines
from tests.search.conftest import FACTS, FORMATS, TOML, Scripted

GOOD = [(1.0, 0.6), (2.0, 0.8)]
DEAD = {"host": socket.gethostname(), "boot": "another boot", "pid": 1, "started": 0}


@pytest.mark.parametrize(("n_trials", "n_rungs"), [(15, 0), (16, 3)])
def test_a_ladder_is_queued_where_half_of_the_trials_are_left_to_search(
    n_trials: int, n_rungs: int, new_study: Callable[..., Study]
) -> None:
    made = new_study(n_trials=n_trials)
    queue.enqueue_anchors(made)
    queued = [t.user_attrs[records.ANCHOR] for t in made.trials()]
    assert sum(name.startswith("ladder") for name in queued) == n_rungs
    assert len(queued) == 5 + n_rungs
    pipelines = anchor_pipelines(SPACES["acceleration"], made.given, made.spec.restrictions)
    costs = [interest.forecast(pipelines[name], made.spec.task, made.given, None) for name in queued]
    if n_rungs:
        assert costs == sorted(costs)  # the cheapest first
    else:
        assert queued[0] == BASELINE
        assert costs[1:] == sorted(costs[1:])


def test_the_anchors_are_the_first_trials_and_are_queued_once(new_study: Callable[..., Study]) -> None:
    made = new_study()
    queue.enqueue_anchors(made)
    queue.enqueue_anchors(made)
    objective = Scripted([GOOD] * 5)
    for _ in objective.trainings:
        trial.run(made, made.ask(), objective, Display(), math.inf)
    anchors = [t.user_attrs[records.ANCHOR] for t in made.trials()]
    assert anchors == [BASELINE, "BASELINE in bf16", "progressive resolution", "long one-cycle", "Net2Net"]
    assert [p.number_format for p in objective.trained] == ["fp32", "bf16", "bf16", "bf16", "bf16"]
    assert objective.trained[2].strategies


def test_the_dashboard_and_optuna_see_metric_names_and_directions(new_study: Callable[..., Study]) -> None:
    made = new_study()
    assert made.optuna.metric_names == list(made.spec.what.metrics)
    assert [d.name for d in made.optuna.directions] == ["MINIMIZE", "MAXIMIZE"]


def test_the_box_is_fixed_when_a_study_is_created_and_never_changes(new_study: Callable[..., Study]) -> None:
    made = new_study(fastest=0.5, slowest=40.0)
    box = made.snapshot().box
    assert box is not None
    assert made.snapshot().hypervolume() == 0.0
    queue.enqueue_anchors(made)
    objective = Scripted([GOOD] * 4)
    for _ in range(4):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    again = opening.resumed("tiny", made.spec, opening.find("tiny", made.database), made.database, FACTS)
    assert again.snapshot().box == box
    assert 0 < again.snapshot().hypervolume() <= 1  # type: ignore[operator]


@pytest.mark.parametrize("probed", [1e-4, 0.01, 2.0])
def test_the_box_reaches_from_ten_baselines_to_the_cheapest_anchor(
    new_study: Callable[..., Study], probed: float
) -> None:
    made = new_study()
    pipelines = anchor_pipelines(SPACES["acceleration"], made.given, made.spec.restrictions)
    box = interest.box(made.spec, made.given, 0.2, FACTS["data"], lambda pipeline: probed)  # type: ignore[arg-type]
    steps = {name: n_steps(pipeline, made.given.n_train) for name, pipeline in pipelines.items()}
    assert box.slowest == pytest.approx(10 * steps[BASELINE] * probed)
    assert 0 < box.fastest < box.slowest / 2
    assert box.useful == 0.2


@pytest.mark.parametrize(
    "said", [{"fastest": 0.5}, {"slowest": 1e4}, {"useful": 0.7}, {"fastest": 1.0, "slowest": 9.0}]
)
def test_the_study_file_says_what_is_of_interest(new_study: Callable[..., Study], said: dict[str, float]) -> None:
    box = new_study(**said).snapshot().box
    assert {name: getattr(box, name) for name in said} == said


def test_a_study_that_was_measured_another_way_has_no_hypervolume(new_study: Callable[..., Study]) -> None:
    made = new_study()
    made.optuna.set_user_attr(records.BOX, None)
    assert made.snapshot().box is None
    assert made.snapshot().hypervolume() is None
    assert not any("hypervolume" in line for line in summary.lines(made.snapshot()))


@pytest.mark.parametrize(
    ("n_classes", "largest_share", "metric", "floor"),
    [
        (10, 0.1, "plain", 0.2125),
        (2, 0.5, "plain", 0.5625),
        (3, 0.34, "plain", 0.4225),
        (2, 0.9, "plain", 0.9125),
        (2, 0.9, "balanced", 0.5625),
        (1000, 0.002, "plain", 0.12675),
    ],
)
def test_the_floor_is_an_eighth_of_the_way_from_chance_to_perfection(
    n_classes: int, largest_share: float, metric: str, floor: float
) -> None:
    data = {"n_classes": n_classes, "largest_share": largest_share, "n_val": 500}
    assert opening.default_floor(metric, data) == pytest.approx(floor)


def test_the_floor_of_any_data_is_above_what_one_answer_for_all_reaches_and_within_reach() -> None:
    for n_classes, n_val in product(range(2, 1001), (1, 2, 7, 200, 5000)):
        for largest in {-(-n_val // n_classes), n_val // 2 + 1, n_val - 1, n_val}:  # images of the largest class
            share = largest / n_val
            data = {"n_classes": n_classes, "largest_share": round(share, 6), "n_val": n_val}
            assert 1 / n_classes < opening.default_floor("balanced", data) < 1
            floor = opening.default_floor("plain", data)
            assert 1 / n_classes < floor < 1
            assert share < floor or share == 1


def test_the_floor_of_the_study_file_goes_first_and_does_not_change(new_study: Callable[..., Study]) -> None:
    assert new_study("ten").floor == 0.2125
    made = new_study("given", floor=0.4)
    assert made.floor == 0.4
    assert opening.resumed("given", made.spec, made.optuna, made.database, FACTS).floor == 0.4
    other = made.spec.model_copy(update={"search": made.spec.search.model_copy(update={"floor": 0.3})})
    with pytest.raises(UsageError, match=r"a floor of 0\.4, the file says 0\.3: start a new study with .* --as NAME"):
        opening.resumed("given", other, made.optuna, made.database, FACTS)


@pytest.mark.parametrize("floor", [0.0, 0.5625, 0.9999, 1.0])
def test_a_study_of_any_floor_is_shown_also_where_nothing_reaches_it(
    floor: float, new_study: Callable[..., Study]
) -> None:
    """1.0 was the floor of two classes once."""
    made = new_study(stopping="none")
    made.optuna.set_user_attr(records.FLOOR, floor)
    made = opening.opened("tiny", made.spec, made.optuna, made.database)
    queue.enqueue_anchors(made)
    for _ in range(2):
        trial.run(made, made.ask(), Scripted([[(1.0, 0.3), (2.0, 0.55)]]), Display(), math.inf)
    shown = "\n".join(summary.lines(made.snapshot()))
    assert summary.table(made.snapshot())
    assert json.dumps(summary.as_json(made.snapshot()))
    assert hypervolume.figure(made.snapshot()).data
    assert ("Nothing reached the floor of" in shown) == (floor > 0.55)
    if floor > 0.55:
        assert f"{floor:.2%} accuracy" in shown
        assert "The best below it: trial 0, 55.00% after 2.00 s, BASELINE: fp32" in shown
        assert "set floor = ... under [search] in the study file" in shown


def test_a_study_that_was_timed_in_another_way_is_refused_with_the_reason(new_study: Callable[..., Study]) -> None:
    made = new_study()
    for now, said in [
        (TIMING_VERSION, "since then the last deployment of a run is charged; seconds on a CPU are CPU time"),
        (0, "(timing version 1, this is 0), and"),
    ]:
        with pytest.raises(
            UsageError, match=r"was timed in another way.*start a new study with .* --as NAME"
        ) as refused:
            opening.resumed("tiny", made.spec, made.optuna, made.database, FACTS | {"timing_version": now})
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
    assert max(differences.TIMING) == TIMING_VERSION  # a version without a reason is not one


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


MEASURED = {"device__model": "another processor", "data__content": "d"} | {
    f"{section}__{key}": other(value)
    for section in ("device", "data")
    for key, value in FACTS[section].items()
    if key != "name"  # of the data: the study file says it
}


DIGESTS = {
    "data__content": "does not match what was asked: data: images or their labels changed: start",
    "data__split": "does not match what was asked: data: the same images, but others of them are for validation: start",
}


@pytest.mark.parametrize("path", MEASURED)
def test_a_study_refuses_another_device_or_other_data(path: str, new_study: Callable[..., Study]) -> None:
    made, section, key = new_study(), *path.partition("__")[::2]
    was, now = FACTS[section][key] if key else FACTS[section], MEASURED[path]
    with pytest.raises(UsageError, match="--as NAME") as refused:
        opening.resumed("tiny", made.spec, made.optuna, made.database, changed(**{path: now}))
    assert DIGESTS.get(path, f"{path.replace('__', '.')} was {was!r}, is {now!r}") in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("began", "goes_on"), [(1, 2), (1, records.CLUSTER), (records.CLUSTER, 1)])
def test_a_study_refuses_other_company_for_its_workers(
    began: int | str, goes_on: int | str, new_study: Callable[..., Study]
) -> None:
    made = new_study()
    kept = opening.created("company", made.spec, made.database, FACTS, FORMATS, began)
    with pytest.raises(UsageError, match=f"workers was {began!r}, is {goes_on!r}: start a new study with .* --as NAME"):
        opening.resumed("company", made.spec, kept.optuna, made.database, FACTS, goes_on)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = [2, 4]", "epochs = [2, 3]", ": epochs was 2 to 4 (log), is 2 to 3 (log): start"),
        ("epochs = [2, 4]", "epochs = [2, 5]", "is 2 to 5 (log); space acceleration: parameters added: prune, prune."),
        ("[search]", "[space.fix]\ngrow = true\n[search]", "[space.fix] grow was absent, is True: start"),
        (
            "[search]",
            "[space.exclude]\nnumber_format = 'bf16'\n[search]",
            "[space.exclude] number_format was absent, is ['bf16']: start",
        ),
        (
            "depth = [1, 1]",
            "depth = [1, 1]\nname = 'number_formats'",
            "space was acceleration, is number_formats: start",
        ),
        (
            "[search]",
            "[space.exclude]\nhaar = [true]\nwhiten = [true]\n[search]",
            "[space.exclude] haar was absent, is ['True']; [space.exclude] whiten was absent, is ['True']: start",
        ),
        ("'small'", "'thin'", "family"),
        ("n_trials = 7", "n_trials = 7\nseed = 1", "seed was 0, is 1"),
        ("[network]", "[network]\nstem_stride = 2", "stem_stride was 1, is 2"),
        ("[data]", "metric = 'balanced'\n[data]", "metric was 'plain', is 'balanced'"),
        ("[data]", "test_time_flip = true\n[data]", "test_time_flip was False, is True"),
        ("'digits'", "'cifar10'", "data.name was 'digits', is 'cifar10'"),
        ("n_train = 200", "n_train = 300", "data.n_train was 200, is 300"),
        ("batch_size = [32, 64]", "batch_size = [32, 128]", "batch.log2_size was 5 to 6, is 5 to 7"),
        (
            "depth = [1, 1]",
            "depth = [1, 1]\nwidth = [0.5, 1.0]",
            ": width was 0.5 to 2 in steps of 0.25, is 0.5 to 1 in steps of 0.25: start",
        ),
        ("depth = [1, 1]", "depth = [1, 1]\nexecutors = ['eager']", ': executor was "auto", is "eager": start'),
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
    assert opening.resumed("tiny", now, made.optuna, made.database, FACTS).snapshot().n_left(9) == 9


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
    queue.enqueue_anchors(made)
    lost = made.ask()
    pipeline, seeds = made.pipeline(lost), made.seeds(lost)
    lost.set_user_attr(records.OWNER, DEAD)
    assert recovery.recover(made) == [0]
    assert recovery.recover(made) == []
    states = [t.state for t in made.trials()]
    assert states == [TrialState.FAIL, *[TrialState.WAITING] * 5]
    assert records.reason(made.trials()[0]) == records.LOST
    assert records.n_counted(made.trials()) == 0
    (retry,) = [t for t in made.trials() if t.user_attrs.get(records.RETRY_OF) == 0]
    assert retry.user_attrs[records.ANCHOR] == BASELINE
    while (tried := made.ask()).number != retry.number:
        made.optuna.tell(tried, state=TrialState.FAIL)
    assert (made.pipeline(tried), made.seeds(tried)) == (pipeline, seeds)


def test_an_anchor_killed_before_it_was_asked_is_the_same_anchor_again(new_study: Callable[..., Study]) -> None:
    made = new_study()
    queue.enqueue_anchors(made)
    made.ask().set_user_attr(records.OWNER, DEAD)  # killed here, with no parameter suggested
    recovery.recover(made)
    while (tried := made.ask()).user_attrs.get(records.RETRY_OF) != 0:
        made.optuna.tell(tried, state=TrialState.FAIL)
    assert made.pipeline(tried) == baseline(made.given)


def test_a_trial_that_was_lost_before_it_had_a_pipeline_teaches_nothing(new_study: Callable[..., Study]) -> None:
    made = new_study()
    half, whole = made.optuna.ask(), made.optuna.ask()  # killed when one parameter was chosen, and when all were
    half.suggest_float("lr", 0.2, 6.4, log=True)
    made.pipeline(whole)
    for lost in (half, whole):
        lost.set_user_attr(records.OWNER, DEAD)
    recovery.recover(made)
    for _ in range(4):
        made.optuna.tell(made.ask(), state=TrialState.FAIL)
    assert records.counts(made.trials()).by_reason[records.LOST] == 2


def test_a_reason_of_an_interrupted_try_is_forgotten(new_study: Callable[..., Study]) -> None:
    made = new_study()
    interrupted = made.ask()
    interrupted.set_user_attr(records.REASON, "dominated")  # interrupted between the record and the verdict
    made.requeue(interrupted)
    assert trial.run(made, made.ask(), Scripted([GOOD]), Display(), math.inf) == (0, "complete")
    assert [point.trial for point in made.snapshot().front] == [0]


def test_a_complete_study_is_shown_only_for_what_it_is(new_study: Callable[..., Study]) -> None:
    made = new_study()
    assert opening.opened("tiny", made.spec, made.optuna, made.database).floor == made.floor
    other = made.spec.model_copy(update={"data": made.spec.data.model_copy(update={"name": "cifar10"})})
    with pytest.raises(UsageError, match=r"data\.name was 'digits', is 'cifar10'"):
        opening.opened("tiny", other, made.optuna, made.database)
    for changed, said in (({"size": 20}, "data.size was 8, is 20"), ({"channels": 3}, "data.channels was 1, is 3")):
        other = made.spec.model_copy(update={"data": made.spec.data.model_copy(update=changed)})
        with pytest.raises(UsageError, match=re.escape(said)):
            opening.opened("tiny", other, made.optuna, made.database)


def test_what_is_switched_on_without_room_for_it_is_told(new_study: Callable[..., Study]) -> None:
    study = new_study()
    for fix, n_told in (({"whiten": True}, 0), ({"prune": True}, 1), ({"prune": False, "lr": 0.3}, 0)):
        changed = study.spec.model_copy(update={"space": study.spec.space.model_copy(update={"fix": fix})})
        told = unheeded(changed, study.given)
        assert len(told) == n_told, told
        assert all(re.fullmatch(r"\[space.fix\] prune = true holds in \d+ of 100 pipelines .*", each) for each in told)


@pytest.mark.parametrize(
    ("batches", "told"),
    [
        ([32, 64], None),
        ([128, 8192], None),
        (
            [256, 512],
            "[space] batch_size = [256, 512]: no batch is larger than the 200 images to train, so that all pipelines "
            "but BASELINE take 128, ",
        ),
    ],
)
def test_batches_that_are_all_larger_than_the_images_are_told(
    batches: list[int], told: str | None, new_study: Callable[..., Study], study_file: Path
) -> None:
    study_file.write_text(TOML.replace("batch_size = [32, 64]", f"batch_size = {batches}"))
    made = new_study()
    said = unheeded(made.spec, made.given)
    assert said == [] if told is None else [each.startswith(told) for each in said] == [True]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('[space.fix]\nnumber_format = "fp16"', 'number_format = "fp16": it must be one of "fp32", "bf16"'),
        (
            'executors = ["auto", "cuda_graph"]',
            "cuda_graph would run as eager: CUDA graphs need an NVIDIA GPU",
        ),
        ("[space.fix]\n'resolution.start' = 0.5", "no effect in runs as these .* images of 8 pixels"),
    ],
)
def test_restrictions_that_a_device_cannot_follow_are_refused(
    section: str, said: str, new_study: Callable[..., Study], study_file: Path
) -> None:
    study_file.write_text(TOML.replace("[search]", f"{section}\n\n[search]"))
    with pytest.raises(UsageError, match=said):
        new_study()


def test_recovery_that_is_itself_killed_is_finished_by_the_next_start(new_study: Callable[..., Study]) -> None:
    made = new_study()
    lost = made.ask()
    lost.set_user_attr(records.OWNER, DEAD)
    recovery.retry(made, made.trials()[0])  # killed here: queued, but not yet failed
    assert recovery.recover(made) == [0]
    assert [t.state for t in made.trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_of_a_living_process_or_of_another_host_is_left_alone(new_study: Callable[..., Study]) -> None:
    made = new_study()
    made.ask()
    made.ask().set_user_attr(records.OWNER, DEAD | {"host": "elsewhere"})
    assert recovery.recover(made) == []


def test_a_trial_of_another_host_is_lost_once_its_heartbeats_have_stopped(new_study: Callable[..., Study]) -> None:
    made = new_study()
    for _ in range(2):
        asked = made.ask()
        asked.set_user_attr(records.OWNER, DEAD | {"host": "elsewhere"})
        made.heartbeat([asked._trial_id])
    assert recovery.recover(made) == []
    with sqlite3.connect(storage.sqlite_path(made.database.url)) as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour') WHERE trial_id = 1")
    assert recovery.recover(made) == [0]


def test_a_trial_that_takes_the_program_down_each_time_is_given_up_and_counted(new_study: Callable[..., Study]) -> None:
    made = new_study()
    for _ in range(recovery.MAX_RETRIES + 1):
        made.ask().set_user_attr(records.OWNER, DEAD)
        recovery.recover(made)
    assert [records.reason(t) for t in made.trials()] == [records.LOST] * recovery.MAX_RETRIES + ["crash"]
    assert records.n_counted(made.trials()) == 1


def test_collecting_removes_networks_that_no_front_names(new_study: Callable[..., Study]) -> None:
    made = new_study()
    trial.run(made, made.ask(), Scripted([GOOD]), Display(), math.inf)
    old, written = ".refit.12.partial", ".refit.34.partial"  # another run's last network: nobody waits for it
    for stray in ("trial-00007", ".trial-00008.123.partial", old, written):
        (made.networks.folder / stray).mkdir()
    os.utime(made.networks.folder / old, (0, 0))
    made.collect()
    assert {p.name for p in made.networks.folder.iterdir()} == {made.networks.of(0).name, written}


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


def test_a_study_goes_on_with_streamed_images_and_refuses_them_where_memory_held_them(
    new_study: Callable[..., Study],
) -> None:
    made = new_study()
    assert not opening.streams("tiny", made.database)
    found = opening.find("tiny", made.database)
    with pytest.raises(UsageError, match="images were held, now they are streamed, which takes other"):
        opening.resumed("tiny", made.spec, found, made.database, changed(data__streamed=True))
    known = made.attributes()[records.IDENTITY]
    made.optuna.set_user_attr(records.IDENTITY, known | {"data": known["data"] | {"streamed": True}})
    assert opening.streams("tiny", made.database)
    assert not opening.streams("another", made.database)
    opening.resumed("tiny", made.spec, opening.find("tiny", made.database), made.database, changed(data__streamed=True))


def test_workers_with_the_same_data_are_alike_though_one_has_no_cache() -> None:
    opening.check_alike("tiny", FACTS, [FACTS | {"warnings": ["no cache"], "about": "as ever"}])
    with pytest.raises(UsageError, match=r"devices that differ: data: "):
        opening.check_alike("tiny", FACTS, [changed(data__content="d")])
