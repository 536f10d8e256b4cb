"""The seam between a study and whatever trains for it: `Objective`, and the ways in which a training can end badly.

A process (`workers.process`), this process (`objectives.objective`) or a machine elsewhere (`workers.cluster`) are the
same to a trial: an iterator of reports. Everything that crosses the seam is plain JSON data, a path, or the files of a
network.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from objectives.data.cache.progress import Progress
from objectives.pipeline import Pipeline, Reading, Report
from objectives.task import Seeds, Task

FaultReason = Literal["out_of_memory", "hang", "crash"]


class TrialFault(Exception):
    """A training that ended by a fault of its own. The objective that raised it is fit for the next training."""

    def __init__(self, reason: FaultReason, message: str, peak_memory: int | None = None) -> None:
        """`peak_memory`: bytes at the peak of a training that ran out of memory, where they are known."""
        super().__init__(message)
        self.reason: FaultReason = reason
        self.peak_memory = peak_memory


class WorkerLost(Exception):
    """The machine was lost on which a training ran: nobody's fault. `Remote.ready` says when there is another."""


class Halted(Exception):
    """The training was abandoned because `halt` asked for it: nobody's fault."""


class Objective(Protocol):
    """What trains pipelines on one device."""

    def facts(self) -> dict[str, object]:
        """What seconds and accuracies depend on: device, data, split. Opens the device where it is not open.

        Raises:
            DataError, DeviceError: it cannot be set up.
        """

    def number_formats(self) -> dict[str, str | None]:
        """Every number format, with the reason why it is of no use, or None."""

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        """Trains and yields a report per epoch; goes on when the next one is asked for, stops when closed.

        With `whole` on all images, those that validate included: then no accuracy says how good it is.

        Raises:
            TrialFault: the training failed.
            DeviceLost: the device failed under it; `facts` says whether there is one again.
            WorkerLost: the machine of a `Remote` is gone.
        """

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        """Writes the network of the last training, which ran to its end."""

    def test(self, folder: Path) -> dict[str, Any] | None:
        """`accuracy`, `balanced_accuracy` and `warnings` of the exported network on the `n` images of the test split.

        They are opened now. None where the data have no test split.
        """

    def reference(self, n_steps: int) -> Reading:
        """What the device is like just now, from so many steps of the reference workload, two of them to warm up."""

    def probe(self, pipeline: Pipeline, task: Task | None = None) -> float:
        """Device seconds of a training step of the pipeline without its strategies, from a few on made-up images.

        `task`: with networks and images of the sizes of this one, instead of the study's own.
        """

    def mirrored(self, seconds: float) -> dict[str, Any]:
        """Whether flips fit the images: `refuted`, and `words` that say why in a line.

        By the network of the last training, where that ran to its end and saw no mirror image; else by a short one.
        Also `seconds` of the device, `accuracy` and `mirrored_accuracy` of `n` validation images, and `p` of the test.
        """

    def both_sides(self, folder: Path) -> dict[str, Any]:
        """What the exported network is worth if it tells an image by that and its mirror image together.

        `accuracy` and `balanced_accuracy` on the `n` images that validate, `alone` and with `both` sides; the `noise`
        of what each gains, a variance from those images that one of the two alone tells rightly; and the `calibration`
        of what both sides say.
        """

    def close(self) -> None:
        """Frees what is held."""


class Remote(Objective, Protocol):
    """An objective outside this process: a thread waits for it, and another one may end the waiting."""

    def halt(self) -> None:
        """Abandons the training in flight: whoever waits for it gets `Halted`. Safe from any thread."""

    def ready(self) -> bool:
        """Whether there is a machine for it now; does not wait.

        Raises:
            UsageError: only for one unlike the one before.
            DataError, DeviceError: only for one that cannot be set up.
        """


Opening = Callable[[], Objective]  # opens the device: in a fresh process, after every fault


class Preparation(Protocol):
    """How a worker gets ready."""

    def keep_data(self, progress: Progress) -> int | None:
        """Fills the cache of this host with what the data lack there, before workers compete for it. Opens no device.

        Returns the bytes of the images, as the memory of a worker would hold them, where they are known.

        Raises:
            DataError: the data cannot be used.
        """

    def __call__(self) -> Opening:
        """Imports, loads the data: once."""


Training = Callable[[Task, str, int], Preparation]  # task, device, threads: what a study trains with


def preparation(task: Task, device: str, threads: int = 1) -> Preparation:
    """How a worker gets ready to train: a `Training`. The result can be pickled; torch is loaded when it is called."""
    return _Prepare(task, device, threads)


class _Prepare:
    def __init__(self, task: Task, device: str, threads: int) -> None:
        self._task, self._device, self._threads = task, device, threads

    def keep_data(self, progress: Progress) -> int | None:
        from objectives.data.reading import keep

        return keep(self._task.data, progress)

    def __call__(self) -> Opening:
        import os

        os.environ["OMP_NUM_THREADS"] = str(self._threads)  # before torch loads its thread pools
        from objectives.objective import TrainingObjective, on_host

        dataset = on_host(self._task, self._threads)
        return lambda: TrainingObjective(self._task, self._device, self._threads, dataset)
