"""What people are told of the trained network that trainings may start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from objectives.starts.origin import Origin
from search.study import records
from search.study.snapshot import Snapshot

MANY = 6  # classes, of which more are not listed by name


def in_words(plain: Mapping[str, Any]) -> str:
    """A start, what it tells and at which size, and what it took to train."""
    known = Origin.from_json(plain)
    size = "" if known.size is None else f", at {'length ' if known.is_series else ''}{known.size}"
    size += "" if known.size is None or known.is_series else " pixels"
    classes = f", {len(known.classes)} classes" if len(known.classes) > MANY else ""
    if 0 < len(known.classes) <= MANY:
        classes = f", of {', '.join(known.classes)}"
    return f"the network to start from is {known.words}{size}{classes}; {known.cost}"


def lines(now: Snapshot) -> list[str]:
    """What belongs below the front: that seconds are those behind the start."""
    if (start := now.attributes.get(records.START)) is None:
        return []
    known = Origin.from_json(start)
    begun = [trial.number for trial in now.front_trials if records.begins_trained(trial)]
    of_front = f"trials {', '.join(map(str, begun))} of the front begin" if begun else "none of the front begins"
    return [f"start       {known.words}: {of_front} from it; {known.cost}"]
