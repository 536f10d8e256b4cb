"""How good it gets at a given cost: the best of the front for 10 s, 1 min, 5 min, or where it lies; FLOPs likewise."""

from __future__ import annotations

from dataclasses import dataclass

from search.pareto.choice import chosen
from search.study.snapshot import Snapshot
from search.views.drawing import points
from search.views.drawing.points import Shown
from search.views.drawing.theme import steps

ASKED = {"pareto": (10.0, 60.0, 300.0), "reduce": ()}  # of the cost of a kind, whatever the front is
MOST_BETWEEN = 6  # others, where a front offers something new in them


@dataclass(frozen=True)
class Answer:
    """What a cost suffices for."""

    within: float  # seconds, or FLOPs of an inference
    point: Shown | None  # the most accurate that takes no more; None: everything takes more
    is_new: bool  # less does not suffice for it


def answers(now: Snapshot) -> list[Answer]:
    """By rising cost; one that a lower one is as good as is told only where it is one of ASKED."""
    asked, front = ASKED[now.kind.name], {each.number: each for each in points.on_front(now)}
    found: list[Answer] = []
    for within in sorted({*steps(now.kind), *asked}):
        choice = chosen(now.candidates, within)
        best = None if choice is None else front[choice.best.trial]
        last = found[-1].point if found else None
        is_new = best is not None and (last is None or best.number != last.number)
        if is_new or within in asked:
            found.append(Answer(within, best, is_new))
    between = [each for each in found if each.within not in asked]
    kept = between[:: max(1, -(-len(between) // MOST_BETWEEN))]
    return [each for each in found if each.within in asked or each in kept]
