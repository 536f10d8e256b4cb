"""A crew: one thread per device runs trials of one study until there are enough. Asks and tells are made in turn.

The threads only wait for processes that train. Signals reach the main thread, never one that writes to the database.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import optuna

from objectives.errors import DeviceError, DeviceLost
from objectives.pipeline import Pipeline, Report
from search import trial
from search.database import storage
from search.errors import DeviceFault
from search.host import interruptions
from search.minutes import MIRROR_SHARE, judge_flips
from search.planning.budget import Budget
from search.study import queue as queues
from search.study import records
from search.study.confirmation import SHARE
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views import figures
from search.workers.seam import Halted, Objective, Remote, TrialFault, WorkerLost

FIGURES_EVERY = 10  # trials: each figure is sent to every open dashboard again
CRASHES_IN_A_ROW = 3  # end a run: what crashes every trial is not the trials' fault
PROBES = 2  # of a device that was lost
PAUSE = 0.5  # seconds between two looks at trials that run elsewhere, and between two probes
HEARTBEAT = 30.0  # seconds


class Audience(trial.Watcher, Protocol):
    """Whoever is shown a study while its trials run."""

    def study_stands(self, now: Snapshot) -> None: ...


class Turns(Protocol):
    """What a crew runs, one after the other."""

    def are_over(self, now: Snapshot) -> bool:
        """Whether nothing is left to run, here or elsewhere."""

    def claim(self, study: Study) -> optuna.Trial | None:
        """The next trial to run; None where only what runs now is missing."""


@dataclass(frozen=True)
class Total:
    """So many trials, what times them again, and confirmations within a share of their seconds."""

    n_trials: int
    share: float

    def are_over(self, now: Snapshot) -> bool:
        return now.is_complete(self.n_trials, self.share)

    def claim(self, study: Study) -> optuna.Trial | None:
        return queues.claim(study, self.n_trials, self.share)


@dataclass
class _InTurn:
    """Shows the trials of several threads to one audience that knows nothing of threads."""

    audience: Audience
    lock: threading.Lock

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None:
        with self.lock:
            self.audience.trial_started(number, anchor, pipeline)

    def epoch_finished(self, number: int, report: Report, accuracy: float) -> None:
        with self.lock:
            self.audience.epoch_finished(number, report, accuracy)

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        with self.lock:
            self.audience.trial_finished(number, reason, message)

    def say(self, line: str) -> None:
        with self.lock:
            self.audience.say(line)

    def study_stands(self, now: Snapshot) -> None:
        with self.lock:
            self.audience.study_stands(now)


class Crew:
    """Runs trials of a study until it has `n_trials`, or `deadline` (of `time.monotonic()`) passes.

    Then those that confirm its front, in a share of its seconds.
    """

    def __init__(
        self,
        study: Study,
        audience: Audience,
        n_trials: int,
        deadline: float,
        share: float = SHARE,
        minutes: Budget | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`minutes`: what is begun next follows from what is left of them, and from no number of trials.

        `turns`: other trials are run, instead.
        """
        self._study, self._deadline, self._minutes = study, deadline, minutes
        self._turns = turns or Total(n_trials, share)
        self._audience = _InTurn(audience, threading.Lock())
        self._ended = threading.Event()
        self._returned: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()  # one per thread
        self._failures: list[BaseException] = []
        self._running: dict[int, int] = {}  # number of a trial at hand: its id in the storage
        self._n_crashes = 0  # in a row

    def work_here(self, objective: Objective) -> None:
        """Runs the trials in this thread, which an interruption reaches in the midst of a training."""

        def is_ready() -> bool:
            interruptions.check()
            return True

        self._work(objective, is_ready)

    def work(self, objectives: Sequence[Remote]) -> None:
        """Runs the trials, as many at a time as there are objectives.

        Raises:
            KeyboardInterrupt: the trials in flight are back in the queue.
            DeviceFault, StorageError, DataError, DeviceError: the study cannot go on; the same holds.
        """
        threads = [threading.Thread(target=self._work_or_fail, args=(each,), daemon=True) for each in objectives]
        pulse = threading.Thread(target=self._beat, daemon=True)
        for thread in (*threads, pulse):
            thread.start()
        n_at_work = len(threads)
        try:
            while n_at_work:  # not `join`: interrupted, it takes a thread for ended that is not (CPython 3.11)
                if self._one_returned() is not None:
                    break
                n_at_work -= 1
        finally:
            self._ended.set()
            for objective in objectives if n_at_work else ():
                objective.halt()
            for thread in threads:
                thread.join()
        if self._failures:
            raise self._failures[0]

    def _one_returned(self) -> BaseException | None:
        """How the next thread ended."""
        while True:
            try:
                return self._returned.get(timeout=PAUSE)
            except queue.Empty:
                interruptions.check()
                if self._minutes is not None and self._minutes.left() < 0:
                    return trial.OutOfTime()

    def _work_or_fail(self, objective: Remote) -> None:
        failure = None
        try:
            with suppress(Halted):
                self._work(objective, objective.ready)
        except BaseException as error:
            failure = error
            self._failures.append(error)
        self._returned.put(failure)

    def _work(self, objective: Objective, is_ready: Callable[[], bool]) -> None:
        while (asked := self._next(is_ready)) is not None:
            self._running[asked.number] = asked._trial_id
            try:
                number, reason = trial.run(self._study, asked, objective, self._audience, self._deadline)
            except trial.OutOfTime:
                return
            except DeviceLost as lost:
                self._audience.say(f"  trial {asked.number} goes back to the queue: the device failed: {lost}")
                self._probe(objective, lost)
                continue
            finally:
                del self._running[asked.number]
            if self._minutes is not None and reason == "complete":
                judge_flips(self._study, objective, MIRROR_SHARE * self._minutes.seconds, self._audience.say)
            self._after(number, reason)

    def _next(self, is_ready: Callable[[], bool]) -> optuna.Trial | None:
        """The next trial to run; None when it is time to end. What runs elsewhere may come back and be missing.

        No trial is taken before there is a machine for it: others may have room.
        """
        while time.monotonic() < self._deadline and not self._ended.is_set():
            if self._minutes is not None:
                if is_ready():
                    asked = queues.claim_within(self._study, self._minutes)
                    if asked is not None or not self._running:  # else what runs elsewhere decides what follows
                        return asked
                self._ended.wait(PAUSE)
                continue
            if self._turns.are_over(self._study.snapshot()):
                return None
            if is_ready() and (asked := self._turns.claim(self._study)) is not None:
                return asked
            self._ended.wait(PAUSE)
        return None

    def _after(self, number: int, reason: str) -> None:
        """What follows a trial: where the study stands, its note, the figures, an end when every trial crashes.

        Raises:
            DeviceFault: several trials in a row crashed.
        """
        now = self._study.snapshot()
        self._audience.study_stands(now)
        figures.note_trial(self._study.optuna, now.trials[number])
        if (number + 1) % FIGURES_EVERY == 0:
            figures.save(self._study.optuna, now)
        self._n_crashes = self._n_crashes + 1 if reason == "crash" else 0
        if self._n_crashes >= CRASHES_IN_A_ROW:
            message = now.trials[number].user_attrs.get(records.MESSAGE)
            raise DeviceFault(
                f"{self._n_crashes} trials in a row crashed, the last with: {message}; --in-process shows where"
            )

    def _probe(self, objective: Objective, lost: DeviceLost) -> None:
        """Opens the device anew, in a fresh worker.

        Raises:
            DeviceFault: it does not answer.
        """
        for _ in range(PROBES):
            with suppress(TrialFault, DeviceLost, DeviceError):
                with suppress(WorkerLost):  # its machine is gone as well: `ready` says when there is another
                    objective.facts()
                return
            self._ended.wait(PAUSE)
        raise DeviceFault(
            f"the device was lost ({lost}) and does not answer: once it does, the same command goes on; "
            "a GPU may need a reset (nvidia-smi --gpu-reset) or a reboot"
        ) from lost

    def _beat(self) -> None:
        """Records that the trials at hand still run."""
        while not self._ended.wait(HEARTBEAT):
            with suppress(*storage.FAILURES):  # the next one will do: a lease is several heartbeats long
                self._study.heartbeat(list(self._running.values()))
