"""How long a worker may be silent before it counts as hung. Pure: it is told what time passed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

TIMES = 5  # a silence of so many epochs is a hang
LEAST = 60.0  # seconds
UNKNOWN = 3600.0  # seconds, for the first report of all: an epoch may take long, and nothing is known yet


@dataclass
class Watchdog:
    """Learns the pace of the trainings that it watches.

    Within a training the median of its own epochs counts, not that of all trainings: the largest network of a space
    takes 30 times as long an epoch as the smallest. Before its first report it may take as long as the slowest so far.
    """

    least: float = field(default_factory=lambda: LEAST)  # seconds
    unknown: float = field(default_factory=lambda: UNKNOWN)  # seconds
    _slowest: deque[float] = field(default_factory=lambda: deque(maxlen=100))  # seconds, one per training

    def patience(self, silences: list[float]) -> float:
        """Seconds that the next report of a training may take which took `silences` for those before."""
        if silences:
            return max(self.least, TIMES * median(silences))
        return max(self.least, TIMES * max(self._slowest)) if self._slowest else self.unknown

    def fresh(self) -> Watchdog:
        """One of the same limits that has learned nothing."""
        return Watchdog(self.least, self.unknown)

    def learn(self, silences: list[float]) -> None:
        """Remembers a training that ended, by the seconds that each of its reports took."""
        if silences:
            self._slowest.append(max(silences))
