"""Which executor runs the steps: the one that a pipeline names, or by `Auto` the one that is measured to pay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from objectives.device.clock import device_clock
from objectives.device.executors import Eager, Executor, Segment, Shape, prepared, unusable
from objectives.state import Step


@dataclass(frozen=True)
class Experience:
    """What an executor costs and brings."""

    setup_seconds: float
    speedup: float  # of a step, over eager


# Before anything was measured. A capture is thought to cost little where launches dominate (not measured).
# A compilation takes 18 to 25 s on one core and gains little there: x0.89 to x1.02 (benchmarks/executors.md).
EXPECTED = {"cuda_graph": Experience(0.5, 1.5), "compile": Experience(22.0, 1.02)}
MEASURED_STEPS = 5


class Auto:
    """Starts eager, measures its steps, and changes to the device's fast executor where that pays by break-even.

    It pays when what the steps left are expected to gain takes longer than the set-up: steps_left * (t_eager - t_fast)
    > setup. A segment is expected to last as long again as it has lasted, and at least to the end of its epoch. An
    executor that measures slower than eager is given up at once. `experience` is read and brought up to date: half of
    what was expected, half of what was measured. It is that of one run: the next trial expects what this one did.
    `now` is read with the device idle; absent: the clock that training is charged by, so that no neighbour decides.
    """

    def __init__(
        self,
        segment: Segment,
        fast: str,
        prepare: Callable[[], Executor],
        experience: dict[str, Experience],
        now: Callable[[], float] | None = None,
    ) -> None:
        self.segment = segment
        self.notes: list[str] = []
        self._fast, self._prepare, self._experience = fast, prepare, experience
        self._now = now or device_clock(segment.device)
        self._running: Executor = Eager(segment)
        self._seconds: list[float] = []  # of the first steps of what runs now
        self._eager_seconds = self._setup_seconds = 0.0
        self._may_try = True
        self._has_changed = False
        self._n_done = self._n_expected = 0  # steps

    def expect(self, n_left: int, *, at_least: int) -> None:
        """Takes in how many steps the run has left, and how many of them surely belong to this segment."""
        self._n_expected = self._n_done + min(n_left, max(at_least, self._n_done))

    def step(self, x: Tensor, y: Tensor) -> Step:
        self._n_done += 1
        if len(self._seconds) < MEASURED_STEPS:
            done, seconds = self._timed(lambda: self._running.step(x, y))
            self._seconds.append(seconds)
            if len(self._seconds) == MEASURED_STEPS:
                self._judge()
            return done
        if self._may_try and self._pays():
            self._may_try, self._seconds = False, []
            done, seconds = self._timed(lambda: self._changed(x, y))
            self._setup_seconds = seconds - self._eager_seconds
            return done
        return self._running.step(x, y)

    def _pays(self) -> bool:
        expected = self._experience[self._fast]
        gain = self._eager_seconds * (1 - 1 / expected.speedup)
        return (self._n_expected - self._n_done) * gain > expected.setup_seconds

    def _changed(self, x: Tensor, y: Tensor) -> Step:
        """The first step of the fast executor, set-up included; of the eager one, with a note, where that fails."""
        try:
            self._running = self._prepare()
            done = self._running.step(x, y)
        except torch.OutOfMemoryError:  # what it needs beside the network; eager steps have just fitted
            torch.cuda.empty_cache()
            self._running = Eager(self.segment)
            self._running.notes.append(f"{self._fast} not used: out of memory")
            done = self._running.step(x, y)
        self.notes += self._running.notes
        self._has_changed = not self._running.notes
        return done

    def _judge(self) -> None:
        """Keeps what was measured of the running executor, and the executor if it is faster than eager."""
        seconds = median(self._seconds)
        if not self._has_changed:
            self._eager_seconds = seconds
            return
        before, speedup = self._experience[self._fast], self._eager_seconds / seconds
        self._experience[self._fast] = Experience(
            (before.setup_seconds + self._setup_seconds) / 2, (before.speedup + speedup) / 2
        )
        found = f"{self._fast} set up in {self._setup_seconds:.2g} s, steps x{speedup:.2f} as fast"
        if speedup <= 1:
            self._running = Eager(self.segment)
            found += ": given up"
        self.notes.append(found)

    def _timed(self, work: Callable[[], Step]) -> tuple[Step, float]:
        """What the work returns, and its seconds with the device idle at both ends."""
        _synchronise(self.segment.device)
        start = self._now()
        done = work()
        _synchronise(self.segment.device)
        return done, self._now() - start


class Executors:
    """The executors of a run, one after the other. The one in use goes on for as long as it serves."""

    def __init__(self, name: str, experience: dict[str, Experience]) -> None:
        self._name, self._experience = name, experience
        self._running: Executor | None = None
        self._shape: Shape = ()

    def of(self, segment: Segment, shape: Shape) -> Executor:
        """The executor for batches of `shape` in a segment."""
        if self._running is None or self._shape != shape or not self._running.segment.is_same(segment):
            self._running = None  # a captured graph pins an old network: drop it before the next one needs memory
            self._running, self._shape = self._new(segment, shape), shape
        return self._running

    def _new(self, segment: Segment, shape: Shape) -> Executor:
        if self._name != "auto":
            return prepared(self._name, segment, shape)
        fast = "cuda_graph" if segment.device.type == "cuda" else "compile"
        if unusable(fast, segment):
            return Eager(segment)
        return Auto(segment, fast, lambda: prepared(fast, segment, shape), self._experience)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
