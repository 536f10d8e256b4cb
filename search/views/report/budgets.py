"""How good it gets in a given time: the best of the front for 10 s, 1 min, 5 min, and where the front lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.study.snapshot import Snapshot
from search.views.drawing import points
from search.views.drawing.points import Shown
from search.views.drawing.theme import SECONDS

ASKED = (10.0, 60.0, 300.0)  # seconds, whatever the front is
MOST_BETWEEN = 6  # others, where a front offers something new in them


@dataclass(frozen=True)
class Answer:
    """What a time suffices for."""

    within: float  # seconds
    point: Shown | None  # the most accurate that takes no longer; None: everything takes longer
    is_new: bool  # a shorter time does not suffice for it


def answers(now: Snapshot) -> list[Answer]:
    """By rising time; a time that a shorter one is as good as is told only where it is one of ASKED."""
    front = points.on_front(now)
    found: list[Answer] = []
    for within in sorted({*SECONDS, *ASKED}):
        best = best_within(front, within)
        last = found[-1].point if found else None
        is_new = best is not None and (last is None or best.number != last.number)
        if is_new or within in ASKED:
            found.append(Answer(within, best, is_new))
    between = [each for each in found if each.within not in ASKED]
    kept = between[:: max(1, -(-len(between) // MOST_BETWEEN))]
    return [each for each in found if each.within in ASKED or each in kept]


def best_within(front: Sequence[Shown], seconds: float) -> Shown | None:
    """The most accurate point that takes so long at most, by the means where there are fresh seeds."""
    able = [each for each in front if each.seconds.mean <= seconds]
    return max(able, key=lambda each: each.accuracy.mean, default=None)
