"""How good it gets at a given cost: the best of the front for 10 s, 1 min, 5 min, or where it lies; FLOPs likewise."""

from __future__ import annotations

from dataclasses import dataclass

from search.pareto.choice import chosen
from search.study.snapshot import Snapshot
from search.views.drawing import points
from search.views.drawing.points import Shown
from search.views.drawing.theme import SECONDS, in_units

ASKED = (10.0, 60.0, 300.0)  # seconds, whatever the front is
SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the FLOPs before
ASKED_SHARES = (0.1, 0.25, 0.5)
MOST_BETWEEN = 6  # others, where a front offers something new in them


@dataclass(frozen=True)
class Answer:
    """What a cost suffices for."""

    within: float  # seconds, or FLOPs of an inference
    words: str  # ... as people say it
    point: Shown | None  # the most accurate that takes no more; None: everything takes more
    is_new: bool  # less does not suffice for it


def answers(now: Snapshot) -> list[Answer]:
    """By rising cost; one that a lower one is as good as is told only where it is one of ASKED."""
    costs, front = _costs(now), {each.number: each for each in points.on_front(now)}
    found: list[Answer] = []
    for within, (words, is_asked) in sorted(costs.items()):
        choice = chosen(now.candidates, within)
        best = None if choice is None else front[choice.best.trial]
        last = found[-1].point if found else None
        is_new = best is not None and (last is None or best.number != last.number)
        if is_new or is_asked:
            found.append(Answer(within, words, best, is_new))
    between = [each for each in found if not costs[each.within][1]]
    kept = between[:: max(1, -(-len(between) // MOST_BETWEEN))]
    return [each for each in found if costs[each.within][1] or each in kept]


def _costs(now: Snapshot) -> dict[float, tuple[str, bool]]:
    """Costs with their words, and whether they are told whatever the front is; of reductions shares of what was."""
    if now.base is None:
        return {each: (in_units(each), each in ASKED) for each in {*SECONDS, *ASKED}}
    whole = now.base["inference_flops"]
    return {share * whole: (f"{share:.0%} of before", share in ASKED_SHARES) for share in SHARES}
