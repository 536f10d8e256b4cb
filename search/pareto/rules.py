"""The rules of early stopping, by name."""

from __future__ import annotations

from search.pareto.bound import FrontStopping
from search.pareto.halving import HalvingStopping
from search.pareto.stopping import NoStopping, Stopping
from search.pareto.value import ValueStopping

STOPPING: dict[str, Stopping] = {
    "front": FrontStopping(),
    "value": ValueStopping(),
    "halving": HalvingStopping(),
    "none": NoStopping(),
}
