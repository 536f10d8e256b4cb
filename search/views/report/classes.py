"""How networks of the front do on each class: recalls that the trials told, and what was seen of their mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing import points
from search.views.drawing.points import Shown

MOST_POINTS = 5  # columns: the fastest, the most accurate, some in between
MOST_CLASSES = 24  # rows: those that the most accurate network tells worst


@dataclass(frozen=True)
class Mistake:
    """An image that a network gets wrong."""

    picture: bytes  # JPEG
    truth: str  # names of classes
    answer: str
    probability: float  # of the answer


@dataclass(frozen=True)
class Examined:
    """What an exported network does with the validation images."""

    trial: int
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]  # images, by class and by answer
    mistakes: Sequence[Mistake] = field(default_factory=tuple)  # the surest first


@dataclass(frozen=True)
class Recalls:
    """A table of recalls."""

    trials: Sequence[int]
    rows: Sequence[tuple[str, int, Sequence[float | None]]]  # (class, its validation images, recall by trial)
    n_left_out: int  # classes


def names(now: Snapshot) -> list[str]:
    """Names of the classes, as the study knows them."""
    return [str(name) for name, *_ in now.attributes[records.IDENTITY]["data"].get("classes", ())]


def recalls(now: Snapshot) -> Recalls | None:
    """What the trials of the front told of each class; None where they did not."""
    validated = now.attributes.get(records.ABOUT, {}).get("validated") or []
    classes = names(now)
    told = [
        each for each in points.on_front(now) if len(each.trial.user_attrs.get(records.RIGHT, ())) == len(validated)
    ]
    if not validated or len(classes) != len(validated) or not told:
        return None
    chosen = spread(told)
    right = [each.trial.user_attrs[records.RIGHT] for each in chosen]
    rows = [
        (name, n, [counts[i] / n if n else None for counts in right])
        for i, (name, n) in enumerate(zip(classes, validated, strict=True))
    ]
    if len(rows) > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: 1.0 if row[2][-1] is None else row[2][-1])[:MOST_CLASSES]
    return Recalls([each.number for each in chosen], rows, len(classes) - len(rows))


def worst(examined: Examined, most: int = 8) -> list[tuple[str, str, int]]:
    """(class, answer, images) of what is confused most often."""
    found = [
        (examined.classes[i], examined.classes[j], n)
        for i, row in enumerate(examined.counts)
        for j, n in enumerate(row)
        if i != j and n
    ]
    return sorted(found, key=lambda each: -each[2])[:most]


def spread(told: Sequence[Shown]) -> list[Shown]:
    """At most MOST_POINTS of them, the first and the last among them."""
    if len(told) <= MOST_POINTS:
        return list(told)
    step = (len(told) - 1) / (MOST_POINTS - 1)
    return [told[round(i * step)] for i in range(MOST_POINTS)]


def shades(examined: Examined) -> Mapping[tuple[int, int], float]:
    """How strongly each cell of the confusion matrix is tinted, in [0, 1]: its share of the images of its class."""
    return {(i, j): n / max(1, sum(row)) for i, row in enumerate(examined.counts) for j, n in enumerate(row)}
