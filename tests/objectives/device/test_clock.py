"""Laws of the clock: what is charged, to the second; and of the device that seconds belong to."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from dataclasses import asdict
from threading import Thread

import pytest
import torch

from objectives.device.clock import (
    CHARGED,
    Activity,
    Clock,
    Device,
    describe,
    device_clock,
    peak_memory,
    reset_peak_memory,
)

CPU = torch.device("cpu")
ACTIVITIES: tuple[Activity, ...] = ("steps", "calibration", "boundary", "evaluation", "warm_up")


def work(seconds: float) -> None:
    """Keeps the processor busy for so much of its time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_spans_of_an_activity_add_up() -> None:
    clock = Clock(CPU)
    start = time.process_time()
    for _ in range(3):
        with clock.span("steps"):
            work(0.01)
    assert 0.03 <= clock.seconds("steps") <= time.process_time() - start


def test_time_between_spans_is_nobodys() -> None:
    clock = Clock(CPU)
    for _ in range(2):
        with clock.span("steps"):
            pass
        work(0.05)
    assert clock.charged < 0.05


def test_a_span_that_raises_is_charged_all_the_same() -> None:
    clock = Clock(CPU)

    def fail() -> None:
        with clock.span("boundary"):
            work(0.02)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert clock.seconds("boundary") >= 0.02
    assert clock.charged == clock.seconds("boundary")


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_training_is_charged_and_evaluation_and_warm_up_are_recorded_only(activity: Activity) -> None:
    clock = Clock(CPU)
    with clock.span(activity):
        work(0.01)
    assert [clock.seconds(other) > 0 for other in ACTIVITIES] == [other == activity for other in ACTIVITIES]
    charged = activity in ("steps", "calibration", "boundary")
    assert (activity in CHARGED) == charged
    assert clock.charged == (clock.seconds(activity) if charged else 0)
    assert (clock.wall_seconds > 0) == charged


def test_a_cpu_is_charged_for_what_it_worked_and_not_for_what_it_waited_or_gave_to_others() -> None:
    clock = Clock(CPU)
    with clock.span("steps"):
        time.sleep(0.2)
        work(0.05)
    assert 0.05 <= clock.charged <= clock.wall_seconds - 0.19


def test_a_cpu_is_charged_for_all_threads_of_the_process() -> None:
    clock = Clock(CPU)
    with clock.span("steps"):
        thread = Thread(target=lambda: work(0.05))
        thread.start()
        thread.join()
    assert clock.charged >= 0.05


def test_a_cpu_is_charged_for_a_compiler_that_was_waited_for() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    clock = Clock(CPU)
    with clock.span("steps"):
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert 0.2 <= clock.charged <= clock.wall_seconds + 0.01


def test_the_reference_workload_and_decisions_on_the_way_go_by_the_clock_that_charges() -> None:
    now = device_clock(CPU)
    start, clock = now(), Clock(CPU)
    time.sleep(0.1)
    with clock.span("steps"):
        work(0.02)
    assert clock.charged <= now() - start < 0.1


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the resident peak cannot be reset here")
def test_the_peak_of_memory_counts_what_was_held_since_the_reset() -> None:
    size = 100 * 2**20  # bytes
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    held = mmap.mmap(-1, size)  # not from the heap, where memory that was freed before may lie
    torch.frombuffer(held, dtype=torch.uint8).fill_(1)
    assert peak_memory(CPU) - before == pytest.approx(size, rel=0.1)
    held.close()
    assert peak_memory(CPU) - before > 0.9 * size
    reset_peak_memory(CPU)
    assert peak_memory(CPU) - before < 0.1 * size


def test_a_device_is_described_by_plain_data_that_do_not_change() -> None:
    device = describe(CPU)
    assert Device(**json.loads(json.dumps(asdict(device)))) == device == describe(CPU)
    assert device.torch == torch.__version__
    assert device.threads == 1
    assert device.model
    torch.set_num_threads(2)
    try:
        assert describe(CPU) != device  # seconds of two threads are another measure
    finally:
        torch.set_num_threads(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_time_agrees_with_the_synchronised_host_clock() -> None:
    device = torch.device("cuda")
    clock, x = Clock(device), torch.randn(4096, 4096, device=device)
    x @ x  # starts cuBLAS
    torch.cuda.synchronize()
    start = time.perf_counter()
    with clock.span("steps"):
        for _ in range(50):
            x = (x @ x).clamp(-1, 1)
    elapsed = time.perf_counter() - start  # the span ended synchronised
    assert clock.charged == pytest.approx(elapsed, rel=0.05, abs=0.002)
    reset_peak_memory(device)
    held = peak_memory(device)
    y = torch.empty(2**20, device=device)
    assert peak_memory(device) - held == 4 * y.numel()
