"""What NVML says of a GPU: who else computes on it, and why its clocks are lowered. Without NVML: nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

# Bits of nvmlClocksEventReasons that no training of ours asks for. A power cap (4) is how a GPU runs under full load.
THROTTLES = {0x08: "hardware slowdown", 0x20: "heat", 0x40: "heat of the hardware", 0x80: "power brake"}


@dataclass(frozen=True)
class Load:
    """What else there is on a GPU."""

    n_foreign: int = 0  # processes that compute on it, beside this one
    throttled: tuple[str, ...] = ()  # why its clocks are lowered


def load(uuid: str) -> Load:
    """The load of a GPU on which this process computes, too. What cannot be asked counts as nothing.

    Numbers of processes say nothing in a container, which sees others than NVML does: they are only counted.
    """
    try:
        import pynvml
    except ImportError:
        return Load()
    n_processes, reasons = 0, 0
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            with suppress(pynvml.NVMLError):
                n_processes = len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
            with suppress(pynvml.NVMLError):
                reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        finally:
            pynvml.nvmlShutdown()
    throttled = tuple(words for bit, words in THROTTLES.items() if reasons & bit)
    return Load(max(0, n_processes - 1), throttled)
