"""Kinds of studies: what one minimises beside the accuracy that each maximises, and what that is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from objectives.pipeline import Report

KindName = Literal["pareto", "reduce", "modelled"]

ACCURACY = "val_accuracy"  # the second objective of every kind, maximised


@dataclass(frozen=True)
class Kind:
    """What a study minimises: its first objective, the cost of a point of its front, above 0."""

    name: KindName
    metric: str  # name of the cost, for programs
    column: str  # ... at the head of a column
    words: str  # ... in a sentence
    decades: str  # ... on an axis of the hypervolume
    work: str  # what a trial is
    cheaper: str  # what has a lower cost than another
    cheapest: str
    n_decimals: int  # of the cost in a table
    scale: float  # of the cost, in its own unit, for one of the unit that is shown
    unit: str  # that is shown

    @property
    def metrics(self) -> tuple[str, str]:
        """Names of both objectives, in the order in which the storage has them."""
        return self.metric, ACCURACY

    @property
    def is_timed(self) -> bool:
        """Whether the cost is read from a clock: what is counted cannot be disturbed, nor forecast from a few steps."""
        return self.name == "pareto"

    @property
    def trains(self) -> bool:
        """Whether a trial trains a network, and costs the more the longer it does; else it makes one smaller."""
        return self.name != "reduce"

    def cost(self, report: Report) -> float:
        """The cost of a network, as the report that was its last tells it."""
        costs = {
            "pareto": report.train_seconds,
            "reduce": report.inference_flops,
            "modelled": report.modelled_seconds,
        }
        return costs[self.name]

    def shown(self, cost: float) -> str:
        """A cost as a cell of a table."""
        return f"{cost / self.scale:.{self.n_decimals}f}"

    def said(self, cost: float) -> str:
        """A cost in words, with its unit."""
        return f"{self.shown(cost)} {self.unit}"

    def brief(self, cost: float, digits: int = 2) -> str:
        """A cost in at least so many digits, with its unit."""
        shown = cost / self.scale
        return f"{shown:.0f} {self.unit}" if shown >= 10 ** (digits - 1) else f"{shown:.{digits}g} {self.unit}"

    def moment(self, epoch: int) -> str:
        """What ended with the report of this number; the first of a reduction is of what it begins with."""
        if self.trains:
            return f"epoch {epoch}"
        return f"attempt {epoch - 1}" if epoch > 1 else "before"


PARETO = Kind(
    name="pareto",
    metric="train_seconds",
    column="seconds",
    words="seconds of training",
    decades="decades of seconds",
    work="training",
    cheaper="faster",
    cheapest="fastest",
    n_decimals=2,
    scale=1.0,
    unit="s",
)
REDUCE = Kind(
    name="reduce",
    metric="inference_flops",
    column="MFLOP",
    words="MFLOP of an inference",
    decades="decades of FLOPs",
    work="reduction",
    cheaper="smaller",
    cheapest="smallest",
    n_decimals=4,
    scale=1e6,
    unit="MFLOP",
)
MODELLED = Kind(
    name="modelled",
    metric="modelled_seconds",
    column="modelled s",
    words="modelled seconds of training",
    decades="decades of modelled seconds",
    work="training",
    cheaper="faster",
    cheapest="fastest",
    n_decimals=2,
    scale=1.0,
    unit="modelled s",
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in (PARETO, REDUCE, MODELLED)}
