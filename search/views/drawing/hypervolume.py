"""What the search found over its seconds: the share of the box that the front dominates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.pareto.front import Outcome, front
from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing import theme
from search.views.drawing.theme import FRONT

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Step:
    """A trial that enlarged the front."""

    trial: int
    seconds: float  # that all trials up to it took
    volume: float  # share of the box


def steps(now: Snapshot) -> tuple[list[Step], float]:
    """(the trials that enlarged the front, in order; the seconds of all trainings of the search)."""
    found: list[Step] = []
    best: tuple[Outcome, ...] = ()
    total = 0.0
    for seconds, outcome in _in_order(now):
        total += seconds
        if outcome is None:
            continue
        larger = front([*best, outcome])
        if larger != best and (volume := now.hypervolume(larger)) is not None:
            found += [Step(outcome.trial, total, volume)] if volume > (found[-1].volume if found else 0.0) else []
        best = larger
    return found, total


def _in_order(now: Snapshot) -> Iterator[tuple[float, Outcome | None]]:
    """(seconds, its point if it has one) of each trial but those that only say more of others, by number."""
    outcomes = {outcome.trial: outcome for outcome in now.outcomes}
    for trial in now.trials:
        if not records.only_says_more(trial):
            yield records.seconds(trial), outcomes.get(trial.number)


def figure(now: Snapshot) -> go.Figure:
    """Hypervolume of the front over the seconds that the trials took, as a share of its box."""
    found, total = steps(now)
    made = theme.new(f"Hypervolume of the front ({now.kind.decades}, decades of error)")
    end = [Step(found[-1].trial, max(total, found[-1].seconds), found[-1].volume)] if found else []
    said = [
        theme.words(f"trial {each.trial}: {each.volume:.3f} of the box", f"after {each.seconds:.3g} s")
        for each in found
    ]
    made.add_scatter(
        x=[each.seconds for each in [*found, *end]],
        y=[each.volume for each in [*found, *end]],
        mode="lines+markers",
        marker={"color": FRONT, "size": [6] * len(found) + [0] * len(end)},
        line={"color": FRONT, "shape": "hv"},
        text=[*said, *(theme.words(f"{total:.3g} s in all") for _ in end)],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    made.update_xaxes(title={"text": f"seconds of all {now.kind.work}s", "standoff": 6}, rangemode="tozero")
    made.update_yaxes(
        title={"text": "share of the box", "standoff": 8},
        range=[0, max([0.1, *(1.08 * each.volume for each in found)])],
    )
    return made
