"""`Pair`: a template process and the worker that it forks, as their owner has them: one pipe, and signals."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from search.host.interruptions import INTERRUPTIONS, put_off
from search.workers.seam import Preparation
from search.workers.template import Message, serve

END = 10.0  # seconds for a process to be gone: a GPU context takes a while


class Pair:
    """Starts at once and gets ready in the background. Dies with the thread that called this."""

    def __init__(self, preparation: Preparation) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._template = context.Process(
            target=serve, args=(theirs, preparation), daemon=True, name="frontrunner-template"
        )
        self._worker: int | None = None  # a pidfd: a number may belong to somebody else by the time of a signal
        self._worker_pid: int | None = None
        resource_tracker.ensure_running()  # here, because it unblocks SIGINT and SIGTERM when it has started
        before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)  # inherited: until the template ignores them
        try:
            with put_off():  # else it may find half of what it is to do, and say so in twenty lines
                self._template.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes: the template, and the worker where there is one."""
        return tuple(pid for pid in (self._template.pid, self._worker_pid) if pid is not None)

    def send(self, message: Mapping[str, object]) -> None:
        """Sends a message, after what was said of workers that died between two trainings.

        Raises:
            EOFError, OSError, ValueError: the template is gone; so for all that follows.
        """
        while self._connection.poll():
            self.received()
        self._connection.send_bytes(json.dumps(message).encode())

    def wait(self, seconds: float) -> bool:
        """Whether there is a message, or the template ended, within the time."""
        return bool(wait([self._connection, self._template.sentinel], timeout=seconds))

    def received(self) -> Message:
        """The next message, waited for."""
        message: Message = json.loads(self._connection.recv_bytes())
        if "worker" in message:
            self._forget_worker()
            with suppress(OSError):
                self._worker, self._worker_pid = os.pidfd_open(message["worker"]), message["worker"]
        elif "died" in message:
            self._forget_worker()
        return message

    def signal(self, number: signal.Signals) -> None:
        """Sends the worker a signal, where there is one."""
        if (worker := self._worker) is not None:
            with suppress(OSError):  # it is gone
                signal.pidfd_send_signal(worker, number)

    def end_worker(self) -> bool:
        """Ends the worker, where there is one; whether it is gone. The next message starts another.

        One that is not is stuck in a driver: a fresh pair has nothing to do with it.
        """
        if self._worker is None:
            return True
        self.signal(signal.SIGKILL)
        return self.await_end(END)

    def await_end(self, seconds: float) -> bool:
        """Whether the worker was gone within the time."""
        deadline = time.monotonic() + seconds
        with suppress(EOFError, OSError, ValueError):
            while self._connection.poll(max(0.0, deadline - time.monotonic())):
                if "died" in self.received():
                    return True
        return False

    def exit_code(self) -> int | None:
        """That of the template, once it has ended."""
        self._template.join(END)
        return self._template.exitcode

    def close(self) -> None:
        """Ends both processes; a training in flight is abandoned."""
        self.signal(signal.SIGKILL)
        self._connection.close()
        self._template.kill()
        self._template.join()
        self._forget_worker()

    def _forget_worker(self) -> None:
        descriptor, self._worker, self._worker_pid = self._worker, None, None
        if descriptor is not None:
            os.close(descriptor)
