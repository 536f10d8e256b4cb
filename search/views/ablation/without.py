"""What the ingredients of a pipeline are called, and its trainings without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.ablation.ingredients import WHOLE
from search.views import effects
from spaces.base import BASELINE

NAMES = {"number_format": "number format", "batch": "batch and rate", "label_smoothing": "label smoothing"}
NAMES |= {"weight_decay": "weight decay"}


def name(key: str) -> str:
    """An ingredient in words."""
    if key == WHOLE:
        return "the whole pipeline"
    return "all of them" if key == BASELINE else NAMES.get(key) or effects.NAMES.get(key, key)


def told(of: Mapping[str, Any]) -> str:
    """A training of an ablation, as its trial says what it is."""
    key, number = of["without"], of["round"] + 1
    what = "as it is" if key == WHOLE else "as BASELINE" if key == BASELINE else f"with {name(key)} switched off"
    return f"round {number}: trial {of['of']} {what}"


def announced(of: Mapping[str, Any], number: int) -> str:
    """What is said before such a training."""
    return f"{told(of)}, trained as trial {number}, not counted"
