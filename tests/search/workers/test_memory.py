"""A real training that runs out of real memory: the limit is the kernel's, on the address space of the process."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import TrialState

from objectives.task import DataSpec, Task
from search import trial
from search.study import records
from search.study.study import Study
from search.views import figures
from search.views.display import Display
from search.workers.process import WorkerProcess
from search.workers.seam import preparation
from spaces import SPACES
from spaces.restricted import usable_anchors

TASK = Task(DataSpec("digits", n_train=64, size=128), "small")
SMALL, LARGE = {"width": 0.5, "batch.log2_size": 5}, {"width": 2.0, "batch.log2_size": 6}
ROOM = 700 * 2**20  # bytes that a training may take: twice what the small one needs, less than half of the large one


@pytest.mark.long
def test_a_training_that_runs_out_of_memory_fails_with_its_peak_and_the_next_one_trains(
    new_study: Callable[..., Study],
) -> None:
    study = new_study()
    (_, baseline), *_ = usable_anchors(SPACES["acceleration"], study.given, study.spec.restrictions)
    for changes in (LARGE, SMALL):
        study.optuna.enqueue_trial({**baseline, **changes})
    with closing(WorkerProcess(preparation(TASK, "cpu"), fresh=True)) as worker:
        worker.facts()
        template, _ = worker.pids
        taken = 1024 * int(Path(f"/proc/{template}/status").read_text().partition("VmSize:")[2].split()[0])
        resource.prlimit(template, resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
        for _ in range(2):
            trial.run(study, study.ask(), worker, Display(), math.inf)
    failed, next_one = study.trials()
    assert (failed.state, records.reason(failed)) == (TrialState.FAIL, "out_of_memory"), failed.user_attrs
    assert 0 < failed.user_attrs["peak_memory_bytes"] < taken + ROOM
    assert "peak memory" in figures.note(failed)
    assert records.reason(next_one) == "complete"
