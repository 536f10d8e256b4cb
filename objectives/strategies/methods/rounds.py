"""What a network that finds its own size does next: a pure function of what was seen. Knows no tensors.

A round is the training between two growths. It lasts until one more epoch brings nothing; what was pruned in it then
says whether the network was too wide, too deep or too small. The procedure of the training thesis (Buehler), with
PruneTrain as the shrinking and Net2Net as the growing operator, made concrete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, log
from typing import Literal

from objectives.networks.architecture import Architecture, Stage

Operator = Literal["wider", "deeper"]
SHARES_OF_FACTOR = (1.0, 0.75, 0.5)  # of what it adds: the first that fits the budget; less is not worth a round


@dataclass(frozen=True)
class Rules:
    """When to act, and how far."""

    gain: float = 0.05  # an epoch whose measure is not this share below the best before it brought nothing
    patience: int = 1  # such epochs in a row that end a round
    least: int = 2  # epochs of a round, and what a new one needs before the tail
    rounds: int = 3  # growths at most
    factor: float = 1.5  # of the channels when a stage grows wider, above 1
    shrinking: float = 0.02  # share of the FLOPs that went in the last epochs, above which a network still shrinks
    occupied: float = 0.6  # share of its channels that a stage has kept, below which it was too wide
    window: int = 4  # boundaries that `shrinking` looks at, the present one included


@dataclass(frozen=True)
class Round:
    """How a round began."""

    epoch: int  # finished by then
    architecture: Architecture  # that it began with
    operator: Operator | None = None  # that made it; None: the first
    stages: tuple[int, ...] = ()  # that grew
    reached: float = inf  # the measure before it: the best of the round before


@dataclass(frozen=True)
class Seen:
    """What a decision may look at, after a whole number of epochs."""

    rounds: tuple[Round, ...]  # so far, the present one last
    now: Architecture
    measures: tuple[float, ...]  # of each epoch of the run; the lower, the better
    # Of an inference: by the network that each epoch so far trained, then by the present one. There is none between the
    # last epoch's and what its boundary made of it, so that n entries back lie n + 1 boundaries.
    flops: tuple[float, ...]
    epochs_to_tail: int  # in which the network may still change
    failed: frozenset[Operator] = frozenset()  # growths that brought nothing


@dataclass(frozen=True)
class Decision:
    """What to do next, and why."""

    act: Literal["go on", "keep", "wider", "deeper", "stop"]
    why: str = ""
    architecture: Architecture | None = None  # to grow to
    stages: tuple[int, ...] = ()  # that grow
    goes_back: bool = False  # first to the network before the last growth


Affords = Callable[[Architecture], bool]  # whether the budget leaves a round and a tail with such a network


def decide(seen: Seen, rules: Rules, affords: Affords, before: Architecture | None = None) -> Decision:
    """What follows from what was seen; `before` is the network that one would go back to.

    In this order: go on while epochs bring something; go back where the last growth brought nothing, and try the other
    operator; keep on training what still shrinks; then grow, as `_growth` says, or stop.
    """
    now = seen.rounds[-1]
    measures = seen.measures[now.epoch :]
    if len(measures) < rules.least or not stalls(measures, rules):
        return Decision("go on")
    best = min(measures)
    if now.operator is not None and before is not None and best > now.reached * (1 - rules.gain):
        words = f"growing {now.operator} brought nothing ({best:.3g}, {now.reached:.3g} before)"
        again = replace(seen, now=before, rounds=seen.rounds[:-1], failed=seen.failed | {now.operator})
        return replace(_growth(again, rules, affords, words), goes_back=True)
    shrunk = _shrunk(seen, rules.window)
    if shrunk > rules.shrinking:
        return Decision("keep", f"{shrunk:.0%} of its FLOPs went lately: capacity is not what it lacks")
    return _growth(seen, rules, affords, "one more epoch brings nothing")


def stalls(measures: Sequence[float], rules: Rules) -> bool:
    """Whether each of the last `patience` epochs brought too little beside the best before it."""
    return len(measures) > rules.patience and all(
        measures[number] >= min(measures[:number]) * (1 - rules.gain)
        for number in range(len(measures) - rules.patience, len(measures))
    )


def least_loss(smoothing: float, n_classes: int) -> float:
    """The smallest cross-entropy there is under label smoothing: the entropy of the smoothed labels."""
    rest = smoothing / n_classes
    return -sum(count * p * log(p) for count, p in ((1, 1 - smoothing + rest), (n_classes - 1, rest)) if p > 0)


def occupancy(stage: Stage, began: Stage) -> float:
    """The share of its channels that a stage has kept: the mean of that of its axis and of its blocks' interiors."""
    before, after = _interiors(began), _interiors(stage)
    kept = stage.width / began.width
    if not before or not after:
        return kept
    return (kept + (sum(after) / len(after)) / (sum(before) / len(before))) / 2


def widened(architecture: Architecture, stages: Sequence[int], factor: float) -> Architecture:
    """The architecture with more channels in some stages, in their axes and in all blocks that have a branch."""

    def wide(channels: int) -> int:
        return ceil(channels * factor - 1e-9)

    return replace(
        architecture,
        stages=tuple(
            Stage(wide(stage.width), tuple(map(wide, stage.interiors))) if number in stages else stage
            for number, stage in enumerate(architecture.stages)
        ),
    )


def deepened(architecture: Architecture, stage: int) -> Architecture:
    """The architecture with one more block at the end of a stage, as wide as the stage."""
    old = architecture.stages[stage]
    grown = Stage(old.width, (*old.interiors, old.width))
    return replace(architecture, stages=(*architecture.stages[:stage], grown, *architecture.stages[stage + 1 :]))


def _growth(seen: Seen, rules: Rules, affords: Affords, why: str) -> Decision:
    """How to grow: wider where blocks died, deeper where channels did, in turns where nothing did; or to stop.

    A stage that was pruned in this round does not grow wider again in it: the penalty would undo that.
    """
    if len(seen.rounds) > rules.rounds:
        return Decision("stop", f"{why}; grown {rules.rounds} times, as often as it may")
    if seen.epochs_to_tail < rules.least:
        return Decision("stop", f"{why}; no time for another round")
    began = seen.rounds[-1].architecture
    pairs = list(zip(seen.now.stages, began.stages, strict=True))
    kept = [occupancy(stage, before) for stage, before in pairs]
    died = [s for s, (stage, before) in enumerate(pairs) if len(_interiors(stage)) < len(_interiors(before))]
    whole = tuple(s for s, share in enumerate(kept) if share == 1)
    fullest = max(range(len(kept)), key=lambda s: (kept[s], -len(_interiors(seen.now.stages[s])), s))
    first: Operator
    if died and sum(1 - share for share in kept) / len(kept) < 1 - rules.occupied:
        first, wide, words = "wider", tuple(died), "blocks died, channels did not"
    elif min(kept) < rules.occupied and not died:
        first, wide, words = "deeper", whole, "channels died, blocks did not"
    else:
        last = seen.rounds[-1].operator
        first, wide, words = "deeper" if last == "wider" else "wider", whole, "it lacks capacity"
    for operator in (first, "deeper" if first == "wider" else "wider"):
        if operator in seen.failed:
            continue
        if operator == "deeper" and affords(deeper := deepened(seen.now, fullest)):
            return Decision("deeper", f"{why}; {words}", deeper, (fullest,))
        if operator == "wider" and (wider := _widest(seen.now, wide, rules.factor, affords)) is not None:
            return Decision("wider", f"{why}; {words}", wider, wide)
    return Decision("stop", f"{why}; no growth is left that the budget allows")


def _widest(now: Architecture, stages: tuple[int, ...], factor: float, affords: Affords) -> Architecture | None:
    """The network with the largest factor, up to the one given, that the budget allows; None where none does."""
    for share in SHARES_OF_FACTOR if stages else ():
        grown = widened(now, stages, 1 + (factor - 1) * share)
        if affords(grown):
            return grown
    return None


def _shrunk(seen: Seen, window: int) -> float:
    """The share of its FLOPs that the network has lost at the last boundaries of this round."""
    began = max(seen.rounds[-1].epoch, len(seen.flops) - window)
    return 1 - seen.flops[-1] / seen.flops[began] if seen.flops[began] > 0 else 0.0


def _interiors(stage: Stage) -> list[int]:
    """Channels inside the blocks that have a branch."""
    return [channels for channels in stage.interiors if channels]
