"""Devices: what a word on the command line asks for, and who gets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import StorageError, UsageError
from search.host import devices
from search.host.owner import Owner, this_process


@pytest.fixture(autouse=True)
def _locks_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRONTRUNNER_RUN_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "n_cores", lambda: 2)
    monkeypatch.setattr(devices, "n_cores_of_host", lambda: 4)


@pytest.mark.parametrize(
    ("word", "n", "first"),
    [
        ("cpu", 1, ("cpu", "cpu-0")),
        ("cpu:2", 2, ("cpu", "cpu-0")),
        ("cuda:1", 1, ("cuda:1", "gpu-1")),
        ("1", 1, ("cuda:1", "gpu-1")),
        ("0,3", 2, ("cuda:0", "gpu-0")),
        ("cuda:2,cuda:0", 2, ("cuda:2", "gpu-2")),
    ],
)
def test_a_word_asks_for_devices(word: str, n: int, first: tuple[str, str]) -> None:
    request = devices.requested(word)
    assert (request.n, request.workers) == (n, n)
    assert (request.slots[0].device, request.slots[0].name) == first


def test_a_gpu_is_locked_by_the_machines_own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert [slot.name for slot in devices.requested("0,1").slots] == ["gpu-5", "gpu-GPU-abc"]
    assert devices.n_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.requested("auto").slots[0].device == "cpu"


@pytest.mark.parametrize("word", ["teapot", "", "CPU", "cpu:0", "cpu:x", "mps", "0,", "cuda:x", "-1"])
def test_what_is_no_device_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="no such device: choose cpu"):
        devices.requested(word)


@pytest.mark.parametrize(
    ("word", "workers", "said"),
    [
        ("0,cuda:0", None, "names a device twice"),
        ("cpu:2", 1, "--workers 1 allows fewer: raise it"),
        ("cpu:3", None, "--devices cpu:3: this process may use 2 cores: at most --devices cpu:2"),
        ("cpu:65", 65, "this process may use 2 cores"),
        ("cpu:" + "9" * 5000, None, "--devices cpu:999999...: this process may use 2 cores"),
        ("cpu", 5, "--workers 5: this machine has 4 cores: at most --workers 4"),
        ("cpu", 100_000_000, "this machine has 4 cores"),
        ("0", 65, "--workers 65: a study may have 64 workers: at most --workers 64"),
    ],
)
def test_more_workers_than_there_is_room_for_are_refused(word: str, workers: int | None, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        devices.requested(word, workers)
    assert said in str(refused.value)


def test_a_core_of_the_host_that_this_run_may_not_use_is_for_another_run_of_the_study() -> None:
    assert devices.requested("cpu", workers=4).workers == 4


def test_runs_of_one_study_share_a_host_up_to_its_number_of_workers() -> None:
    request = devices.requested("cpu", workers=2)
    with devices.taken(request, "s", "d") as first, devices.taken(request, "s", "d") as second:
        assert {slot.name for slot in first + second} == {"cpu-0", "cpu-1"}
        assert set(devices.held_devices()) == {"cpu-0", "cpu-1"}
        with pytest.raises(StorageError, match="being run by process"), devices.taken(request, "s", "d"):
            pass
    assert devices.held_devices() == {}


def test_a_gpu_belongs_to_one_run() -> None:
    with (
        devices.taken(devices.requested("0,1"), "s", "d"),
        pytest.raises(StorageError, match=r"on gpu:1 \(study 's'\)"),
        devices.taken(devices.requested("1"), "t", "d"),
    ):
        pass


def test_an_owner_is_told_from_another_process_of_the_same_number() -> None:
    me = this_process()
    assert Owner.from_json(me.to_json()) == me
    assert me.fate == "alive"
    assert Owner(me.host, me.boot, me.pid, 1).fate == "dead"
    assert Owner(me.host, "another boot", me.pid, me.started).fate == "dead"
    assert Owner("elsewhere", me.boot, me.pid, 1).fate == "unknown"
    assert Owner(me.host, me.boot, me.pid, 1, "of another container").fate == "unknown"


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null"])
def test_a_place_for_locks_that_cannot_be_written_is_named_with_its_variable(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRONTRUNNER_RUN_DIR", place)
    with pytest.raises(StorageError, match=f"^{place}.* FRONTRUNNER_RUN_DIR"):
        devices.taken(devices.requested("cpu"), "s", "d").__enter__()


def test_where_there_is_no_place_for_temporary_files_the_variable_for_locks_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FRONTRUNNER_RUN_DIR")
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc/nowhere"])
    with pytest.raises(StorageError, match="FRONTRUNNER_RUN_DIR"):
        devices.held_devices()
