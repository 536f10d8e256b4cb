"""Workers of one host share its memory: whether they stream their images is decided once, for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from objectives.task import DataSpec, Task
from search.workers import place
from search.workers.place import shared

TASK = Task(DataSpec("folder:images"), "small")


@pytest.mark.parametrize(
    ("n_bytes", "n_workers", "streamed"),
    [(None, 2, None), (100, 1, None), (100, 2, False), (100, 4, False), (100, 5, True), (401, 1, None), (201, 2, True)],
)
def test_several_workers_stream_alike(
    n_bytes: int | None, n_workers: int, streamed: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "free_on_host", lambda: 1000)
    assert shared(TASK, n_bytes, n_workers) == replace(TASK, data=replace(TASK.data, streamed=streamed))


def test_what_a_study_began_with_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "free_on_host", lambda: 1000)
    task = replace(TASK, data=replace(TASK.data, streamed=True))
    assert shared(task, 1, 2) == task
