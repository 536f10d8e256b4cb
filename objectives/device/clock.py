"""Seconds by activity, on CUDA and on a CPU, and the device that they were measured on."""

from __future__ import annotations

import platform
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

# Raised by hand when what is charged changes, with the reason in search.study.differences: part of each identity.
TIMING_VERSION = 3

Activity = Literal["steps", "calibration", "boundary", "evaluation", "warm_up"]
CHARGED: frozenset[Activity] = frozenset({"steps", "calibration", "boundary"})  # the rest is recorded only


class Clock:
    """Sums the device seconds of each activity: the time that the device worked for it.

    On CUDA a span is device time between two events with the stream idle at both ends. On a CPU it is CPU time: of all
    threads of the process, and of children that it waited for. Of equal trainings beside two busy neighbours wall time
    varied by 14 to 19 %, CPU time by 3 to 5 %: what neighbours take of a core is not charged, what they take of its
    caches is. Wall time is recorded beside it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: defaultdict[Activity, float] = defaultdict(float)
        self._wall_seconds = 0.0

    @contextmanager
    def span(self, activity: Activity) -> Iterator[None]:
        """Adds the seconds of the enclosed block to `activity`, also when the block raises."""
        start = time.perf_counter()
        try:
            with self._cuda_span(activity) if self._device.type == "cuda" else self._cpu_span(activity):
                yield
        finally:
            if activity in CHARGED:
                self._wall_seconds += time.perf_counter() - start

    @contextmanager
    def _cpu_span(self, activity: Activity) -> Iterator[None]:
        start = cpu_seconds()
        try:
            yield
        finally:
            self._seconds[activity] += cpu_seconds() - start

    @contextmanager
    def _cuda_span(self, activity: Activity) -> Iterator[None]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(self._device)
        start.record()
        try:
            yield
        finally:
            end.record()
            torch.cuda.synchronize(self._device)
            self._seconds[activity] += start.elapsed_time(end) / 1000

    def seconds(self, activity: Activity) -> float:
        """Device seconds of one activity so far."""
        return self._seconds[activity]

    @property
    def charged(self) -> float:
        """Device seconds of all charged activities so far: the objective `train_seconds`."""
        return sum(self._seconds[activity] for activity in CHARGED)

    @property
    def wall_seconds(self) -> float:
        """Seconds that the charged spans took by the clock on the wall."""
        return self._wall_seconds


@dataclass(frozen=True)
class Device:
    """The device that seconds belong to: seconds of two devices never share a front."""

    model: str  # e.g. 'NVIDIA H100 80GB HBM3', 'AMD EPYC'
    driver: str  # of a GPU; the kernel's machine name for a CPU
    torch: str
    threads: int


def describe(device: torch.device) -> Device:
    """The device as it enters a study's identity."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        driver = f"CUDA {torch.version.cuda}, sm_{properties.major}{properties.minor}"
        return Device(properties.name, driver, torch.__version__, torch.get_num_threads())
    return Device(_cpu_model(), platform.machine(), torch.__version__, torch.get_num_threads())


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new measurement of `peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the resident peak of this process
    except OSError:
        return  # not permitted here: the peak then counts from the start of the process


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak since `reset_peak_memory`: allocated on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM line: memory cannot be measured on this system")


class PeakMemory:
    """Bytes at the peak of a training, and of its evaluations apart."""

    def __init__(self, device: torch.device) -> None:
        """Starts to measure."""
        self._device = device
        self.training = self.evaluation = 0
        reset_peak_memory(device)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The enclosed block is evaluation; all else is training, and its peak is known when the block begins."""
        self.training = max(self.training, peak_memory(self._device))
        reset_peak_memory(self._device)
        yield
        self.evaluation = max(self.evaluation, peak_memory(self._device))
        reset_peak_memory(self._device)


def device_clock(device: torch.device) -> Callable[[], float]:
    """Seconds since some time, to be read with the device idle: of the kind that trainings on it are charged."""
    return time.perf_counter if device.type == "cuda" else cpu_seconds


def cpu_seconds() -> float:
    """CPU time of this process so far and of its children that have ended: torch.compile waits for a compiler."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
