"""What people are told of the trained network that trainings may start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from objectives.starts.origin import Origin
from objectives.words import some
from search.study import records
from search.study.snapshot import Snapshot

MANY = 6  # classes, of which more are counted


def in_words(plain: Mapping[str, Any]) -> str:
    """A start, at which size it was trained, what it tells, and what it took to train."""
    known = Origin.from_json(plain)
    size = "" if known.size is None else f", at length {known.size}" if known.is_series else f", at {known.size} pixels"
    classes = f", {len(known.classes)} classes" if len(known.classes) > MANY else ""
    if 0 < len(known.classes) <= MANY:
        classes = f", of {some(known.classes, MANY)}"
    return f"{known.words}{size}{classes}; {known.cost}"


def lines(now: Snapshot) -> list[str]:
    """What belongs below the front: which of it began from the start, and what that took."""
    if (start := now.attributes.get(records.START)) is None:
        return []
    known = Origin.from_json(start)
    begun = [str(trial.number) for trial in now.front_trials if records.begins_trained(trial)]
    told = f"trials {', '.join(begun)} of the front begin" if len(begun) > 1 else "none of the front begins"
    if len(begun) == 1:
        told = f"trial {begun[0]} of the front begins"
    return [f"start       {known.words}: {told} from it; {known.cost}"]
