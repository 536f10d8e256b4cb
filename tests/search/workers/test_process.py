"""The process seam: a training in another process is the same training, and its death is a record, not an accident."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
import torch

from objectives.errors import DataError, DeviceError
from objectives.export import load_model
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline, Report
from objectives.strategies.ema import Ema
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.task import DataSpec, Seeds, Task
from search.workers.process import WorkerProcess
from search.workers.seam import Halted, TrialFault, preparation
from search.workers.template import fault as as_message
from search.workers.watchdog import Watchdog

TASK = Task(DataSpec("digits", n_train=200), "small")
PIPELINE = Pipeline(batch_size=32, epochs=3, strategies=(ProgressiveResolution(start=0.5), Ema(horizon=0.5)))
SEEDS = Seeds.of(0, 0)
UNSEEDED = Seeds(2**70, 0, 0)  # more than a generator takes


def working(
    task: Task = TASK, device: str = "cpu", watchdog: Watchdog | None = None
) -> AbstractContextManager[WorkerProcess]:
    return closing(WorkerProcess(preparation(task, device), watchdog))


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with working() as process:
        yield process


def reproducible(report: Report) -> tuple[object, ...]:
    return report.epoch, report.accuracy, report.loss, report.train_flops, report.events


def test_a_worker_reports_what_a_training_in_this_process_reports(worker: WorkerProcess) -> None:
    here = TrainingObjective(TASK, "cpu")
    assert worker.facts() == here.facts()
    assert [reproducible(r) for r in worker.reports(PIPELINE, SEEDS)] == [
        reproducible(r) for r in here.reports(PIPELINE, SEEDS)
    ]


def test_a_worker_exports_what_it_trained(worker: WorkerProcess, tmp_path: Path) -> None:
    list(worker.reports(PIPELINE, SEEDS))
    worker.export(tmp_path / "model", {"study": "s", "trial": 3})
    assert load_model(tmp_path / "model").about["trial"] == 3


def test_a_worker_tests_an_exported_network_as_this_process_does(worker: WorkerProcess, tmp_path: Path) -> None:
    last = list(worker.reports(PIPELINE, SEEDS))[-1]
    worker.export(tmp_path / "model", {})
    found = worker.test(tmp_path / "model")
    assert found == TrainingObjective(TASK, "cpu").test(tmp_path / "model")
    assert found is not None
    assert (found["n"], found["accuracy"]) == (297, pytest.approx(last.accuracy, abs=0.1))
    with pytest.raises(DataError, match="is not an exported model"):
        worker.test(tmp_path / "none")


def test_a_worker_sees_both_sides_of_images_as_this_process_does(worker: WorkerProcess, tmp_path: Path) -> None:
    list(worker.reports(PIPELINE, SEEDS))
    worker.export(tmp_path / "model", {})
    assert worker.both_sides(tmp_path / "model") == TrainingObjective(TASK, "cpu").both_sides(tmp_path / "model")
    with pytest.raises(DataError, match="is not an exported model"):
        worker.both_sides(tmp_path / "none")
    list(worker.reports(PIPELINE, SEEDS, whole=True))  # a network that cannot be read leaves a worker that trains
    worker.export(tmp_path / "whole", {})


def test_a_worker_reads_the_reference_workload_between_a_training_and_its_export(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    last = list(worker.reports(PIPELINE, SEEDS))[-1]
    assert 0 < worker.reference(7).step_seconds < 10
    worker.export(tmp_path / "model", {})
    assert load_model(tmp_path / "model").about["accuracy"] == last.accuracy


def test_a_worker_asks_a_network_about_mirror_images_as_this_process_does(worker: WorkerProcess) -> None:
    found, here = ({**each.mirrored(2.0), "seconds": 0.0} for each in (worker, TrainingObjective(TASK, "cpu")))
    assert found == here
    assert found["refuted"]


def test_a_training_that_is_stopped_leaves_the_worker_ready(worker: WorkerProcess) -> None:
    with closing(worker.reports(PIPELINE, SEEDS)) as reports:
        assert next(reports).epoch == 1
    assert [r.epoch for r in worker.reports(PIPELINE, SEEDS)] == [1, 2, 3]


def test_the_worker_waits_for_the_decision_about_each_report(worker: WorkerProcess) -> None:
    reports = worker.reports(PIPELINE, SEEDS)
    first = next(reports)
    time.sleep(0.3)
    assert next(reports).train_seconds - first.train_seconds < 0.3
    reports.close()


@pytest.mark.long
def test_a_worker_that_is_killed_is_a_crash_and_is_replaced(tmp_path: Path) -> None:
    with working() as worker:
        reports = worker.reports(PIPELINE, SEEDS)
        next(reports)
        os.kill(worker.pids[-1], signal.SIGKILL)
        with pytest.raises(TrialFault, match="SIGKILL") as fault:
            list(reports)
        assert fault.value.reason == "crash"
        assert len(list(worker.reports(PIPELINE, SEEDS))) == 3
        os.kill(worker.pids[-1], signal.SIGKILL)  # between two trials
        time.sleep(0.2)
        assert len(list(worker.reports(PIPELINE, SEEDS))) == 3


@pytest.mark.long
def test_each_training_has_a_worker_of_its_own_where_that_is_asked_for() -> None:
    with closing(WorkerProcess(preparation(TASK, "cpu"), fresh=True)) as worker:
        seen = []
        for _ in range(2):
            assert len(list(worker.reports(PIPELINE, SEEDS))) == 3
            seen.append(worker.pids)
        os.kill(worker.pids[-1], signal.SIGKILL)  # between two trials: nothing is left to end
        time.sleep(0.2)
        assert len(list(worker.reports(PIPELINE, SEEDS))) == 3
        seen.append(worker.pids)
    assert len({template for template, _ in seen}) == 1
    assert len({pid for _, pid in seen}) == 3


@pytest.mark.long
def test_what_is_forked_has_imported_what_trainings_need() -> None:
    script = (
        "import sys; from tests.search.workers.test_process import *\n"
        "opening = preparation(TASK, 'cpu')(); before = set(sys.modules)\n"
        "list(opening().reports(PIPELINE, SEEDS)); print(len(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20


def test_a_training_that_raises_is_a_crash_with_its_message() -> None:
    with working() as worker:
        with pytest.raises(TrialFault, match="ValueError: Overflow"):
            list(worker.reports(Pipeline(batch_size=1, epochs=1), UNSEEDED))
        assert len(list(worker.reports(PIPELINE, SEEDS))) == 3


@pytest.mark.parametrize(
    "demand",
    [
        *(lambda: torch.empty(2**52), lambda: bytearray(2**62), lambda: _on_a_gpu()),
        *(lambda: _raise(RuntimeError("std::bad_alloc")), lambda: _raise(OSError(12, os.strerror(12)))),
        lambda: _raise(RuntimeError("could not create a primitive")),
    ],
)
def test_out_of_memory_is_told_as_such(demand: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError, OSError)) as raised:
        demand()
    fault = as_message(raised.value)
    assert fault["error"] == "out_of_memory"
    assert "\n" not in str(fault["message"])


def _raise(error: Exception) -> None:
    raise error


def _on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB.\nSee documentation ...")


@pytest.mark.long
def test_a_worker_that_is_silent_for_too_long_is_ended_as_hung_even_when_it_is_stopped() -> None:
    with working(watchdog=Watchdog(least=5, unknown=60)) as hanging:
        hanging.facts()
        reports = hanging.reports(PIPELINE, SEEDS)
        next(reports)
        os.kill(hanging.pids[-1], signal.SIGSTOP)
        with pytest.raises(TrialFault, match="no report for") as fault:
            list(reports)
        assert fault.value.reason == "hang"
        began = time.monotonic()
        assert len(list(hanging.reports(PIPELINE, SEEDS))) == 3
        assert time.monotonic() - began < 30


def test_a_halted_worker_lets_go_of_whoever_waits_for_it() -> None:
    with working() as halted:
        reports = halted.reports(PIPELINE, SEEDS)
        next(reports)
        os.kill(halted.pids[-1], signal.SIGSTOP)
        threading.Timer(0.3, halted.halt).start()
        with pytest.raises(Halted):
            list(reports)


def test_a_watchdog_waits_longer_for_slower_trainings() -> None:
    watchdog = Watchdog(least=60, unknown=3600)
    assert watchdog.patience([]) == 3600
    assert watchdog.patience([1.0]) == 60
    assert watchdog.patience([100.0, 20.0, 30.0]) == 150
    watchdog.learn([100.0, 20.0])
    watchdog.learn([1.0])
    assert watchdog.patience([]) == 500


@pytest.mark.long
def test_what_a_user_can_mend_is_told_as_such() -> None:
    missing = Task(DataSpec("folder:/nowhere/at/all"), "small")
    with (
        closing(WorkerProcess(preparation(missing, "cpu"))) as worker,
        pytest.raises(DataError, match="/nowhere/at/all"),
    ):
        worker.facts()
    with closing(WorkerProcess(preparation(TASK, "cuda:99"))) as worker, pytest.raises(DeviceError, match="cuda:99"):
        worker.facts()


def test_a_worker_dies_with_its_parent() -> None:
    script = (
        "from tests.search.workers.test_process import *\n"
        "worker = WorkerProcess(preparation(TASK, 'cpu')); worker.facts()\n"
        "print(*worker.pids, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [Path(f"/proc/{pid}") for pid in parent.stdout.readline().split()]
        assert [child.exists() for child in children] == [True, True]
        parent.kill()
    for _ in range(100):
        if not any(child.exists() for child in children):
            return
        time.sleep(0.05)
    raise AssertionError("a worker outlived its parent")
