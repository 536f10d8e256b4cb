"""Successive halving under two objectives (MO-ASHA, Schmucker et al. 2021, arXiv:2106.12639), its stopping form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from search.pareto.curves import Curve, standing
from search.pareto.stopping import Past, StopReason, check_rungs, rung

LEAST_ERROR = 1e-4  # where nothing is wrong, for its logarithm
Item = tuple[float, float]  # both minimised


@dataclass(frozen=True)
class HalvingStopping:
    """At a rung only the best part of all trials that came so far goes on, decided on arrival.

    Best: by non-dominated sorting of the seconds that a trial will take and of its error so far, in decades; among
    those that do not dominate each other, by an epsilon-net. Mild: two rungs, and half of the trials go on.

    Raises:
        ValueError: a parameter is outside its range.
    """

    rungs: tuple[float, ...] = (1 / 3, 2 / 3)  # shares of the schedule at which trials are compared
    eta: float = 2.0  # one of so many goes on
    n_startup: int = 8  # finished trials before any is stopped

    def __post_init__(self) -> None:
        check_rungs(self.rungs, self.n_startup)
        if self.eta <= 1:
            raise ValueError(f"eta is {self.eta}: it must be above 1")

    def decide(self, curve: Curve, past: Past) -> StopReason | None:
        """Why the trial stops here, or None: it goes on."""
        if len(past.curves) < self.n_startup or (share := rung(curve, self.rungs)) is None:
            return None
        last, best = curve[-1], max(point.accuracy for point in curve)
        others = [_item(each, share) for each in (*past.curves, *past.stopped)]
        items = [
            (math.log10(last.train_seconds / last.fraction), _log_error(best)),
            *(each for each in others if each is not None),
        ]
        return None if order(items).index(0) < math.ceil(len(items) / self.eta) else "unpromising"


def _item(curve: Curve, share: float) -> Item | None:
    """What another trial was at the share of its schedule."""
    then = standing(curve, share)
    if then is None or then.seconds <= 0:
        return None
    return math.log10(then.seconds / share), _log_error(then.accuracy)


def _log_error(accuracy: float) -> float:
    return math.log10(max(1.0 - accuracy, LEAST_ERROR))


def order(items: Sequence[Item]) -> list[int]:
    """Indices from the best on: front by front, each in the order of an epsilon-net over the whole range of the items.

    An epsilon-net begins with one point, here the fastest, and takes the one farthest from those taken, over and over.
    """
    ranges = [max(each[k] for each in items) - min(each[k] for each in items) or 1.0 for k in (0, 1)]
    scaled = [(each[0] / ranges[0], each[1] / ranges[1]) for each in items]
    left, ordered = sorted(range(len(items)), key=items.__getitem__), list[int]()
    while left:
        members = _nondominated(items, left)
        left = [i for i in left if i not in set(members)]
        ordered += _net(scaled, members)
    return ordered


def _nondominated(items: Sequence[Item], left: Sequence[int]) -> list[int]:
    """Of indices by rising first objective those that no other dominates; equal ones are all members."""
    members: list[int] = []
    for i in left:
        if not members or items[i][1] < items[members[-1]][1] or items[i] == items[members[-1]]:
            members.append(i)
    return members


def _net(scaled: Sequence[Item], members: Sequence[int]) -> list[int]:
    taken, far = [members[0]], {i: math.dist(scaled[i], scaled[members[0]]) for i in members[1:]}
    while far:
        farthest = max(far, key=far.__getitem__)
        del far[farthest]
        taken.append(farthest)
        far = {i: min(distance, math.dist(scaled[i], scaled[farthest])) for i, distance in far.items()}
    return taken
