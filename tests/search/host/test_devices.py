"""Devices: what a word on the command line asks for, and who gets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectives.errors import DeviceError
from search.errors import StorageError, UsageError
from search.host import devices
from search.host.owner import Owner, this_process


@pytest.fixture(autouse=True)
def _locks_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRONTRUNNER_RUN_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


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


@pytest.mark.parametrize("word", ["teapot", "cpu:0", "cpu:1000", "mps", "0,", "cuda:x", "-1"])
def test_what_is_no_device_is_refused(word: str) -> None:
    with pytest.raises(DeviceError, match="is not supported: choose"):
        devices.requested(word)


def test_devices_that_make_no_sense_together_are_refused() -> None:
    with pytest.raises(UsageError, match="names a device twice"):
        devices.requested("0,cuda:0")
    with pytest.raises(UsageError, match="raise it"):
        devices.requested("cpu:2", workers=1)


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
