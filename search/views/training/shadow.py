"""What early stopping would have done in a study without it."""

from __future__ import annotations

from search.pareto.front import Outcome, dominates, front
from search.pareto.intervals import wilson
from search.study import records
from search.study.snapshot import Snapshot


def lines(now: Snapshot) -> list[str]:
    """How many runs the rule `front` would have stopped, and how often it would have been wrong.

    That was noted while they ran, each judged by those before, where nothing was stopped; else nothing is said.
    """
    if now.spec.search.stopping != "none" or not now.kind.is_timed or not now.points:
        return []
    n_stopped, n_false, before = 0, 0, tuple[Outcome, ...]()
    for ended in now.points:
        end = Outcome(ended.number, *ended.values)
        joins = end.accuracy >= now.floor and not any(dominates(each, end) for each in before)
        n_stopped += records.WOULD_STOP in ended.user_attrs
        n_false += joins and records.WOULD_STOP in ended.user_attrs
        before = front([*before, end]) if joins else before
    if not n_stopped:
        return [f"Early stopping (front) would have ended none of {len(now.points)} runs before their end."]
    least, most = wilson(n_false / n_stopped, n_stopped)
    return [
        f"Early stopping (front) would have ended {n_stopped} of {len(now.points)} runs before their end: {n_false} of "
        f"these joined the front of their moment (95 % interval {least:.1%} to {most:.1%})."
    ]
