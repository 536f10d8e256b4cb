"""Where the trainings of a run take place: this process, this host, a cluster. Each opens its objectives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Protocol

from objectives.data.cache.progress import Progress
from objectives.data.room import free_on_host, holds
from objectives.task import Task
from search.host import devices
from search.study import records
from search.workers import cluster
from search.workers.process import WorkerProcess
from search.workers.seam import Objective, Training


class Place(Protocol):
    """Where a run trains."""

    @property
    def workers(self) -> int | str:
        """How many workers of the study share a host: part of its identity."""

    @property
    def kind(self) -> str:
        """Of its devices: cpu, cuda."""

    @property
    def mixed_devices(self) -> bool:
        """Whether devices of several models may share the study."""

    def opened(
        self, study: str, task: Task, database: str, training: Training, held: ExitStack, progress: Progress
    ) -> Sequence[Objective]:
        """What trains, one a device, until the stack is closed. `database` says which study of that name is meant.

        What the data lack in the cache of this host is decoded here, by all its cores, before a worker has started.

        Raises:
            DataError: the data cannot be used.
            DeviceError, StorageError, UsageError: there is no room, and who has it.
        """


@dataclass(frozen=True)
class ThisProcess:
    """The process that owns the study: for debugging."""

    request: devices.Request
    mixed_devices: bool = False

    @property
    def kind(self) -> str:
        return self.request.slots[0].device.partition(":")[0]

    @property
    def workers(self) -> int:
        return self.request.workers

    def opened(
        self, study: str, task: Task, database: str, training: Training, held: ExitStack, progress: Progress
    ) -> Sequence[Objective]:
        (slot, *_) = held.enter_context(devices.taken(self.request, study, database))
        preparation = training(task, slot.device, 1)
        preparation.keep_data(progress)
        return [held.enter_context(closing(preparation()()))]


@dataclass(frozen=True)
class ThisHost:
    """A worker process per device of this machine that is free."""

    request: devices.Request
    mixed_devices: bool

    @property
    def kind(self) -> str:
        return self.request.slots[0].device.partition(":")[0]

    @property
    def workers(self) -> int:
        return self.request.workers

    def opened(
        self, study: str, task: Task, database: str, training: Training, held: ExitStack, progress: Progress
    ) -> Sequence[Objective]:
        slots = held.enter_context(devices.taken(self.request, study, database))
        n_bytes = training(task, slots[0].device, 1).keep_data(progress)
        task = shared(task, n_bytes, len(slots))
        made = [WorkerProcess(training(task, slot.device, 1), fresh=slot.device == "cpu") for slot in slots]
        return [held.enter_context(closing(each)) for each in made]


def shared(task: Task, n_bytes: int | None, n_workers: int) -> Task:
    """A task whose images, so many bytes of them, are streamed or held by all workers of this host alike.

    One worker decides for itself; of several each would see what others have left.
    """
    if n_workers == 1 or n_bytes is None or task.data.streamed is not None:
        return task
    streamed = not holds(n_workers * n_bytes, free_on_host())
    return replace(task, data=replace(task.data, streamed=streamed))


@dataclass(frozen=True)
class Kept:
    """A place whose objectives are open already, for whoever needs such next; else they are closed."""

    place: Place
    task: Task
    objectives: Sequence[Objective]
    held: ExitStack  # what holds them

    @property
    def kind(self) -> str:
        return self.place.kind

    @property
    def workers(self) -> int | str:
        return self.place.workers

    @property
    def mixed_devices(self) -> bool:
        return self.place.mixed_devices

    def opened(
        self, study: str, task: Task, database: str, training: Training, held: ExitStack, progress: Progress
    ) -> Sequence[Objective]:
        if task == self.task:
            return self.objectives
        self.held.close()
        return self.place.opened(study, task, database, training, held, progress)


@dataclass(frozen=True)
class Cluster:
    """Workers on a Ray cluster, which decides how many share a host."""

    address: str
    device: str
    n: int | None
    mixed_devices: bool

    @property
    def kind(self) -> str:
        return "cpu" if self.device.startswith("cpu") else "cuda"

    @property
    def workers(self) -> str:
        return records.CLUSTER

    def opened(
        self, study: str, task: Task, database: str, training: Training, held: ExitStack, progress: Progress
    ) -> Sequence[Objective]:
        held.enter_context(cluster.joined(self.address))
        room = cluster.room(self.device, self.n)
        preparation = training(task, room.device, 1)
        made = [cluster.RayWorker(preparation, room, study, self.mixed_devices) for _ in range(room.n)]
        return [held.enter_context(closing(each)) for each in made]
