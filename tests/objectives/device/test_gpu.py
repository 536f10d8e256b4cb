"""What NVML says of a GPU, with a stand-in for its bindings: they need a driver."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from objectives.device.gpu import Load, load

UUID = "GPU-b5b0c9a2"


class NVMLError(Exception):
    """What the bindings raise."""


class Bindings(ModuleType):
    """The part of `pynvml` that is used, for one GPU."""

    NVMLError = NVMLError

    def __init__(self, n_processes: int, reasons: int, missing: tuple[str, ...] = ()) -> None:
        super().__init__("pynvml")
        self.n_processes, self.reasons, self.missing, self.n_open = n_processes, reasons, missing, 0

    def nvmlInit(self) -> None:  # noqa: N802
        self._check("init")
        self.n_open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.n_open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._check("handle")
        assert uuid == UUID
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[object]:  # noqa: N802
        self._check("processes")
        return [object()] * self.n_processes

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        self._check("reasons")
        return self.reasons

    def _check(self, what: str) -> None:
        if what in self.missing:
            raise NVMLError(what)


@pytest.mark.parametrize(
    ("bindings", "expected"),
    [
        (Bindings(1, 0x1), Load()),  # alone, clocks at rest
        (Bindings(0, 0x4), Load()),  # nobody is seen from a container; at its power cap
        (Bindings(3, 0x40), Load(2, ("heat of the hardware",))),
        (Bindings(1, 0x80 | 0x20 | 0x2), Load(0, ("heat", "power brake"))),
        (Bindings(2, 0x8, missing=("reasons",)), Load(1)),
        (Bindings(2, 0x8, missing=("processes",)), Load(0, ("hardware slowdown",))),
        (Bindings(2, 0x8, missing=("handle",)), Load()),
        (Bindings(2, 0x8, missing=("init",)), Load()),
    ],
)
def test_foreign_processes_and_lowered_clocks_are_told_and_what_fails_counts_as_nothing(
    bindings: Bindings, expected: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", bindings)
    assert load(UUID) == expected
    assert bindings.n_open == 0


def test_without_bindings_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert load(UUID) == Load()
