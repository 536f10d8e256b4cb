"""A training that belongs to no trial of a study: to its end, or given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from objectives.errors import DeviceLost
from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from search.errors import DeviceFault
from search.workers.seam import Objective, TrialFault, WorkerLost


class GivenUp(Exception):
    """A training that was ended early: after which epoch, and why."""

    def __init__(self, last: Report, why: str) -> None:
        super().__init__(f"after epoch {last.epoch} of {last.epochs}: {why}")
        self.last = last


def to_its_end(
    objective: Objective,
    pipeline: Pipeline,
    seeds: Seeds,
    watch: Callable[[Report], str | None] = lambda report: None,
    *,
    whole: bool = False,
) -> Report:
    """The last report of a training, whose network can then be exported.

    `watch` is told of each report; what it returns is why the training ends there, None: it goes on. `whole`: see
    `search.workers.seam`.

    Raises:
        GivenUp: it diverged, or was watched to its end.
        TrialFault, DeviceLost, WorkerLost, Halted: as of `Objective.reports`.
    """
    last: Report | None = None
    with closing(objective.reports(pipeline, seeds, whole=whole)) as running:
        for last in running:
            why = watch(last)
            if last.diverged or why is not None:
                raise GivenUp(last, "it diverged" if last.diverged else str(why))
    assert last is not None
    return last


@contextmanager
def told_as_device_fault(what: str = "the worker cannot start") -> Iterator[None]:
    """What befalls a worker outside of the trials of a study, in words that begin with `what`.

    Raises:
        DeviceFault: it failed, or was lost.
    """
    try:
        yield
    except TrialFault as fault:
        raise DeviceFault(f"{what}: {fault}") from fault
    except DeviceLost as lost:
        raise DeviceFault(f"the device was lost: {lost}: run the command again") from lost
    except WorkerLost as lost:
        raise DeviceFault(f"a worker was lost while no trial ran: {lost}: run the command again") from lost
