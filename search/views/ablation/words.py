"""A point that was taken apart: a table for people, plain data for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from objectives.words import counted
from search.ablation.ingredients import Apart
from search.ablation.result import Ablation, Effect
from search.pareto.intervals import Interval
from search.study import records
from search.study.snapshot import Snapshot
from search.views.ablation import without
from search.views.columns import columns
from search.views.confirmed import MARK
from spaces.base import BASELINE

HEADER = ("ingredient", "pairs", "s without", "seconds", "points", "switched off")
UNDECIDED = " ?"  # of what may as well be the other way round
LEGEND = (
    "Seconds and points: what each ingredient changed, the point as it is against the same without it, in pairs of "
    "trainings of the same seeds; with 95 % intervals, over seeds, on the validation images, each by itself. "
    "? Undecided which way, all taken together."
)


def lines(found: Ablation, now: Snapshot, width: int | None = None) -> list[str]:
    """The table with what belongs below it."""
    said = [title(found), f"  {records.in_words(now.trials[found.point])}", ""]
    return [*said, *columns(HEADER, [cells(each) for each in rows(found)], width, left=HEADER[:1]), "", *notes(found)]


def title(found: Ablation) -> str:
    """The point, with what it comes to."""
    seeds = counted(found.n_rounds, "fresh seed")
    return f"trial {found.point}, taken apart: {comes_to(found)} (mean of {seeds})"


def comes_to(what: Ablation | Effect) -> str:
    """Accuracy and seconds of the whole pipeline, or of what it is without an ingredient."""
    return f"{what.accuracy:.2%} in {MARK if what.is_disturbed else ''}{what.seconds:.3g} s"


def rows(found: Ablation) -> list[Effect]:
    """What the table tells, in its order."""
    return [*found.effects, *([found.together] if found.together is not None else [])]


def cells(each: Effect) -> list[str]:
    """A row of the table."""
    name, off = without.name(each.key), switched_off(each)
    if not each.n_pairs:
        return [name, "0", "", "", ", ".join(sorted(set(each.failures))) or "no pair yet", off]
    mark = MARK if each.is_disturbed else ""
    seconds = f"{mark}x{_with(each.factor, '.2f')}{'' if each.decades.is_sure else UNDECIDED}"
    points = f"{_with(each.points, '+.2f')}{'' if each.gain.is_sure else UNDECIDED}"
    failed = f", {len(each.failures)} failed" if each.failures else ""
    return [name, f"{each.n_pairs}{failed}", f"{each.seconds:.3g}", seconds, points, off]


def switched_off(each: Effect) -> str:
    """What another one had in its place."""
    if each.key == BASELINE:
        return "BASELINE in its place"
    return f"no {each.has}" if each.instead == "none" else f"{each.instead} instead of {each.has}"


def notes(found: Ablation) -> list[str]:
    """What is to be known of the table."""
    said = [LEGEND]
    if found.failures:
        times, why = counted(len(found.failures), "round"), ", ".join(sorted(set(found.failures)))
        said.append(f"The whole pipeline did not train to its end in {times}, which count for nothing: {why}.")
    if found.is_disturbed or any(each.is_disturbed for each in rows(found) if each.n_pairs):
        said.append(f"{MARK} Other work disturbed the device when these were timed.")
    if found.interplay is not None:
        factor = 10 ** math.fsum(each.decades.mean for each in found.effects)
        points = 100 * math.fsum(each.gain.mean for each in found.effects)
        said.append(f"Each by itself they would come to x{factor:.2f} and {points:+.2f} points: the rest is interplay.")
    if found.n_rounds == 1:
        said.append("Of a single seed nothing is known of what chance does: --seeds 3 has intervals.")
    return said


def left_out(apart: Apart) -> list[str]:
    """What is not switched off, and why; a line each."""
    return [f"left out: {without.name(key)}: {why}" for key, why in apart.left_out.items()]


def as_json(found: Ablation, apart: Apart, now: Snapshot, n_seeds: int) -> dict[str, object]:
    """All of it as plain data; factors of seconds, points of accuracy."""
    return {
        "study": now.name,
        "trial": found.point,
        "seeds": n_seeds,
        "rounds": found.n_rounds,
        "train_seconds": found.seconds,
        "val_accuracy": found.accuracy,
        "disturbed": found.is_disturbed,
        "failures": list(found.failures),
        "ingredients": [_effect(each) for each in found.effects],
        "together": None if found.together is None else _effect(found.together),
        "interplay": _interplay(found),
        "left_out": {without.name(key): why for key, why in apart.left_out.items()},
    }


def _interplay(found: Ablation) -> Mapping[str, float] | None:
    known = found.interplay
    return None if known is None else {"factor": 10 ** known[0], "points": 100 * known[1]}


def _effect(each: Effect) -> dict[str, object]:
    (factor, factors), (points, gains), has_pairs = each.factor, each.points, each.n_pairs > 0
    return {
        "ingredient": each.key,
        "name": without.name(each.key),
        "has": each.has,
        "instead": each.instead,
        "pairs": each.n_pairs,
        "train_seconds_without": each.seconds if has_pairs else None,
        "val_accuracy_without": each.accuracy if has_pairs else None,
        "factor": factor if has_pairs else None,
        "factor_interval": factors,
        "points": points if has_pairs else None,
        "points_interval": gains,
        "disturbed": each.is_disturbed if has_pairs else None,
        "failures": list(each.failures),
    }


def _with(value: tuple[float, Interval | None], form: str) -> str:
    middle, ends = value
    return f"{middle:{form}}" + (f" ({ends[0]:{form}} to {ends[1]:{form}})" if ends is not None else "")
