"""What a study survives, and how it says what it does not. tests/README.md lists the faults."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.database import storage
from search.study import records
from search.study.study import LATE
from tests.search.conftest import TOML
from tests.search.place import PATIENCE, Place, check_whole, is_gone, wait_for

STUDY = ("--study", "tiny")
# What Python's import was reading when it was interrupted; it is told only where warnings are errors, as in tests.
UNCLOSED = re.compile(r"Exception ignored in: .*\nTraceback .*\n(?:  .*\n)*ResourceWarning: unclosed file.*\n")


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        ("out_of_memory", ["out_of_memory", *["complete"] * 6]),
        pytest.param("inf", ["diverged", *["complete"] * 6], marks=pytest.mark.long),
        ("SIGSEGV", ["crash", *["complete"] * 7]),
        pytest.param("SIGKILL", ["crash", *["complete"] * 7], marks=pytest.mark.long),
        pytest.param("SIGTERM", ["crash", *["complete"] * 7], marks=pytest.mark.long),
        pytest.param("raise", ["crash", *["complete"] * 7], marks=pytest.mark.long),
        ("hang", ["hang", *["complete"] * 6]),
        pytest.param("stop", ["hang", *["complete"] * 6], marks=pytest.mark.long),
        pytest.param("device_lost", ["complete"] * 7, marks=pytest.mark.long),
    ],
)
def test_a_fault_ends_its_trial_and_the_study_goes_on_in_a_healthy_worker(
    fault: str, reasons: list[str], place: Place
) -> None:
    place.script({0: fault})
    done = place.run(*STUDY)
    assert done.code == 0, done.err
    first, *_ = trials = place.trials()
    assert [records.reason(trial) for trial in trials] == reasons
    if fault.startswith("SIG"):
        assert fault in first.user_attrs[records.MESSAGE]
    check_whole(place.trials(), 7)


def test_a_program_that_is_killed_loses_one_trial_which_is_tried_again(place: Place) -> None:
    place.script({2: "kill_program"})
    assert place.run(*STUDY).code == -signal.SIGKILL
    assert place.reasons()[:4] == ["complete", "complete", "running", "waiting"]
    done = place.run(*STUDY)
    assert done.code == 0, done.err
    assert "trial 2 was lost with the process that ran it" in done.err
    trials = place.trials()
    assert place.reasons()[2] == records.LOST
    assert [t.user_attrs[records.RETRY_OF] for t in trials if records.RETRY_OF in t.user_attrs] == [2]
    check_whole(trials, 7)


@pytest.mark.long
def test_seconds_of_a_trial_that_was_interrupted_are_those_of_one_training(place: Place) -> None:
    place.script(pause=0.3)
    with place.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 2 of 3")
        process.terminate()
        process.communicate()
    place.script()
    assert place.run(*STUDY, "--n-trials", "1").code == 0
    (first, *_) = place.trials()
    assert (first.state, first.number) == (TrialState.COMPLETE, 0)
    assert [point.epoch for point in records.curve(first)] == [1, 2, 3]
    whole = [point.train_seconds / point.epoch for point in records.curve(first)]
    assert whole == pytest.approx([whole[0]] * 3, rel=1e-3)


@pytest.mark.long
def test_a_worker_that_dies_while_it_exports_has_its_trial_tried_again(place: Place) -> None:
    place.script({"export": "0"})
    assert place.run(*STUDY).code == 0
    assert place.reasons() == ["crash", *["complete"] * 7]
    check_whole(place.trials(), 7)


def test_a_place_that_cannot_be_written_is_said_in_one_line(place: Place) -> None:
    (place.folder / "studies" / "artifacts").write_text("a file where a folder should be")
    done = place.run(*STUDY)
    assert done.code == 4, done.err
    assert "artifacts" in done.err
    assert "cannot be written" in done.err


@pytest.mark.parametrize("is_new", [True, False], ids=["no database", "a database"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--study", "studies/refused.toml"), 2, 'must be one of "fp32", "bf16"'),
        (("--data", "folder:nowhere", "--minutes", "1"), 3, "there is no folder nowhere"),
    ],
    ids=["space", "plan"],
)
def test_what_is_refused_leaves_nothing_that_was_not_there(
    words: tuple[str, ...], code: int, said: str, is_new: bool, place: Place
) -> None:
    (place.folder / "studies" / "refused.toml").write_text(f'{TOML}\n[space.fix]\nnumber_format = "fp16"\n')
    if is_new and "--minutes" in words:
        shutil.rmtree(place.folder / "studies")
    if not is_new:
        storage.open_storage(place.url).optuna.engine.dispose()
    before = {path for path in place.folder.rglob("*") if "studies" in path.parts}
    done = place.run(*words, "--device", "cpu")
    assert (done.code, said in done.err) == (code, True), done.err
    assert {path for path in place.folder.rglob("*") if "studies" in path.parts} == before


@pytest.mark.long
def test_three_crashes_in_a_row_end_the_run_with_advice(place: Place) -> None:
    place.script({0: "SIGSEGV", 1: "SIGSEGV", 2: "SIGSEGV"})
    done = place.run(*STUDY)
    assert done.code == 5
    assert "3 trials in a row crashed" in done.err
    assert "--in-process" in done.err


@pytest.mark.long
def test_a_device_that_stays_lost_ends_the_run_and_its_trial_waits(place: Place) -> None:
    place.script({0: "device_lost"}, lost=2)
    done = place.run(*STUDY)
    assert done.code == 5, done.err
    assert "does not answer" in done.err
    assert place.reasons()[0] == "waiting"
    place.script()
    assert place.run(*STUDY).code == 0
    check_whole(place.trials(), 7)


@pytest.mark.long
def test_a_device_that_comes_back_on_the_second_probe_goes_on(place: Place) -> None:
    place.script({0: "device_lost"}, lost=1)
    assert place.run(*STUDY).code == 0
    assert place.reasons() == ["complete"] * 7


@pytest.mark.long
def test_a_pipeline_under_which_the_device_fails_each_time_is_given_up(place: Place) -> None:
    place.script(dict.fromkeys(range(4), "device_lost"))
    assert place.run(*STUDY).code == 0
    assert place.reasons()[0] == "crash"
    assert "the device failed under each of 4 tries" in place.trials()[0].user_attrs[records.MESSAGE]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_puts_the_trial_back_and_says_how_to_go_on(number: signal.Signals, place: Place) -> None:
    place.script(pause=0.3)
    with place.started(*STUDY, "-v", "--add", "3") as process:
        wait_for(process, "trial 0: epoch 1 of")
        os.killpg(process.pid, number)  # the workers get it as well, as from a terminal
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.rstrip().endswith("to go on: python -m search.run --study tiny -v --n-trials 3")
    assert place.reasons() == ["waiting"] * 5


@pytest.mark.parametrize(
    ("words", "module"),
    [("--study tiny -q --device cpu --n-trials 700", "search.run"), ("studies list", "search")],
)
def test_an_interruption_at_any_moment_of_the_start_ends_the_program_quietly(
    words: str, module: str, place: Place
) -> None:
    """From the first handler on; what has ended by itself before is no fault. It was 36 to 58 lines of traceback."""
    for moment, number in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT)):
        with place.started(*words.split(), module=module) as process:
            while process.poll() is None and not catches(process.pid, signal.SIGTERM):
                time.sleep(0.002)
            time.sleep(0.01 * 3**moment - 0.01)  # seconds: 0 to 0.8
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in ((130,) if module == "search.run" else (130, 0, 4)), (moment, err)
        said = UNCLOSED.sub("", err)
        assert "Traceback" not in said
        assert said.count("\n") <= 1, err


def test_an_interruption_is_an_exit_code_also_where_python_ran_source_from_a_string(place: Place) -> None:
    """As dataclasses are made while the program loads: `python -m` died of SIGINT though it was caught."""
    lines = (
        "import sys",
        "from search.commands.exits import exit_code",
        "def loads(): exec('raise KeyboardInterrupt')",
    )
    (place.folder / "loader.py").write_text("\n".join([*lines, "sys.exit(exit_code(loads, 'sqlite:///x.db'))"]))
    done = place.run(module="loader")
    assert (done.code, done.out, done.err) == (130, "", "")


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        (mask,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    except (OSError, ValueError):
        return False
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def test_a_second_signal_ends_the_run_at_once_and_leaves_no_process(place: Place) -> None:
    place.script(pause=0.3)
    with place.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 1 of")
        children = descendants(process.pid)
        with locked(place.database):  # the first one cannot finish its work
            process.terminate()
            time.sleep(0.5)
            assert process.poll() is None
            began = time.monotonic()
            process.terminate()
            assert process.wait(timeout=PATIENCE) == 130
            assert time.monotonic() - began < 2
    assert len(children) == 2
    assert all(is_gone(pid) for pid in children)
    place.script()
    assert place.run(*STUDY).code == 0
    check_whole(place.trials(), 7)


@pytest.mark.long
def test_children_die_with_their_parent(place: Place) -> None:
    place.script({0: "hang"}, hang=60)
    with place.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 1 of")
        children = descendants(process.pid)
        process.kill()
    assert len(children) == 2
    assert all(is_gone(pid) for pid in children)


@pytest.mark.long
def test_a_database_that_is_locked_for_a_while_is_waited_for(place: Place) -> None:
    place.script(pause=0.2, busy=2)  # less than the lock is held: the tries count
    with place.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 2 of")
        with locked(place.database):
            time.sleep(8)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    check_whole(place.trials(), 7)


@pytest.mark.long
def test_a_result_that_the_database_does_not_take_is_kept_and_told_later(place: Place) -> None:
    place.script(pause=0.2, busy=0.2, tell=0.5)
    with place.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 2 of")
        with locked(place.database):
            _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err
    assert "the result of trial 0 is kept in" in err
    assert place.reasons()[0] == "running"
    place.script()
    assert place.run(*STUDY).code == 0
    assert place.reasons() == ["complete"] * 7
    assert not list((place.folder / "studies" / "artifacts" / "tiny" / "untold").iterdir())
    check_whole(place.trials(), 7)


@pytest.mark.long
def test_a_trial_that_was_given_up_while_its_owner_slept_keeps_its_late_result(place: Place) -> None:
    place.script(pause=0.2)
    with place.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 1 of")
        process.send_signal(signal.SIGSTOP)
        with sqlite3.connect(place.database) as database:  # as a run on another host would, after the lease
            database.execute("UPDATE trials SET state = 'FAIL' WHERE number = 0")
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    import optuna

    kept = optuna.load_study(study_name="tiny", storage=place.url).user_attrs[f"{LATE}_0"]
    assert kept["values"][0] > 0
    assert not [r for r in place.reasons() if r in ("running", "waiting")]


@pytest.mark.long
def test_a_whole_group_that_was_suspended_is_not_taken_for_hung(place: Place) -> None:
    place.script(pause=0.3, hang=1.5)
    with place.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 1 of")
        everybody = [process.pid, *descendants(process.pid)]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(4)
        for pid in everybody:  # the owner first: what it finds is silence
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.2)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert place.reasons() == ["complete"] * 7


@pytest.mark.long
@pytest.mark.parametrize(
    ("limit", "where"), [(100_000, "studies/optuna.db"), (4_000_000, "studies/artifacts/tiny/.trial-")]
)
def test_a_disk_without_space_is_a_clean_stop(limit: int, where: str, place: Place) -> None:
    """`limit`: bytes of a file: less than the database has, or more, but less than a network has."""
    assert place.run(*STUDY, "--n-trials", "1").code == 0
    place.script(weights=5_000_000)

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.search.program", *STUDY],
        **{"cwd": place.folder, "preexec_fn": full, "capture_output": True, "text": True, "timeout": 60},
        env=os.environ
        | {"FRONTRUNNER_RUN_DIR": str(place.folder / "run"), "PYTHONPATH": str(Path(__file__).parents[2])}
        | {"SCRIPT": str(place.folder / "script.json")},
    )
    assert done.returncode == 4, done.stderr
    assert f"no space on {where}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(place.folder.rglob("*.partial"))
    place.script()
    assert place.run(*STUDY).code == 0
    check_whole(place.trials(), 7)
    assert not list(place.folder.rglob("*.partial"))


@pytest.mark.long
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_database_that_is_damaged_or_foreign_is_said_in_one_line(damage: str, place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "1").code == 0
    with sqlite3.connect(place.database) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode=DELETE")
    whole = place.database.read_bytes()
    broken = {"truncated": whole[: len(whole) // 3], "foreign": b"%PDF-1.7" + whole[8:], "empty": b""}[damage]
    place.database.write_bytes(broken)
    done = place.run(*STUDY)
    if damage == "empty":  # what SQLite itself takes for a new database
        assert done.code == 0
        return
    assert done.code == 4, done.err
    assert "restore a copy" in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert place.database.read_bytes() == broken


@pytest.mark.long
def test_front_networks_only_are_kept_and_no_temporary_file(place: Place) -> None:
    place.script({5: "SIGKILL", 11: "out_of_memory", 17: "inf"})
    assert place.run(*STUDY, "--n-trials", "50", "-q", "--sampler", "random").code == 0
    trials = place.trials()
    check_whole(trials, 50)
    folders = {path.name for path in (place.folder / "studies" / "artifacts" / "tiny").iterdir()}
    assert folders == {f"trial-{point.trial:05d}" for point in records.pareto_front(trials, 0.2)}
    assert not list(place.folder.rglob("*.partial"))


@pytest.mark.long
def test_eight_runs_that_start_at_once_all_live_and_draw_differently(place: Place) -> None:
    place.script(pause=0.05)
    words = (*STUDY, "-q", "--sampler", "random", "--device", "cpu", "--workers", "8", "--n-trials", "24")
    commands = [place.started(*words) for _ in range(8)]
    processes = [command.__enter__() for command in commands]
    said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, said
    trials = place.trials()
    check_whole(trials, 24)
    assert len(trials) == 24
    drawn = [str(t.params) for t in trials if records.ANCHOR not in t.user_attrs]
    assert len(set(drawn)) == len(drawn)
    assert len({t.user_attrs[records.OWNER]["pid"] for t in trials}) > 1


@pytest.mark.long
def test_a_device_is_held_by_one_run_of_any_study_which_is_named(place: Place) -> None:
    place.script(pause=0.2)
    n_cores = len(os.sched_getaffinity(0))
    with place.started(*STUDY, "--device", f"cpu:{n_cores}", "--n-trials", "1000") as process:
        wait_for(process, "trial 0")
        same, other = place.run(*STUDY), place.run(*STUDY, "--as", "other")
        process.terminate()
        process.communicate()
    assert (same.code, other.code) == (4, 4)
    assert f"is being run by process {process.pid} on cpu:0" in same.err
    assert f"process {process.pid} on cpu:0 (study 'tiny')" in other.err


@pytest.mark.long
def test_two_workers_of_one_run_share_a_study_that_remembers_how_many_they_were(place: Place) -> None:
    place.script({3: "SIGKILL", 6: "hang"}, pause=0.05)
    done = place.run(*STUDY, "--device", "cpu:2", "--n-trials", "12")
    assert done.code == 0, done.err
    check_whole(place.trials(), 12)
    alone = place.run(*STUDY, "--n-trials", "14")
    assert alone.code == 2
    assert "workers was 2, is 1" in alone.err


@pytest.mark.long
def test_another_device_is_refused_before_a_trial_is_asked_for(place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "2").code == 0
    place.script(models=["another scripted device"])
    done = place.run(*STUDY)
    assert done.code == 2
    assert "device.model was 'a scripted device', is 'another scripted device'" in done.err
    assert len([r for r in place.reasons() if r != "waiting"]) == 2


def test_a_database_on_a_network_file_system_is_warned_of_before_anything_is_written(place: Place) -> None:
    place.script(mounts=f"server:/home {place.folder} nfs4 rw 0 0")
    done = place.run(*STUDY, "--n-trials", "1")
    assert done.code == 0, done.err
    assert done.err.startswith("warning: studies/optuna.db lies on a network file system (nfs4)")


@pytest.mark.long
def test_no_password_is_printed_whatever_fails(place: Place) -> None:
    for url in ("postgresql://u:canary@127.0.0.1:1/x", "mysql+nodriver://u:canary@h/x", "nonsense:canary"):
        done = place.run(*STUDY, "--storage", url)
        assert done.code == 4
        assert "canary" not in done.out + done.err


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another program holds the database."""
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def descendants(pid: int) -> list[int]:
    """Processes below a process, apart from multiprocessing's resource tracker."""
    below = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text():
                below += [child, *descendants(child)]
    return below
