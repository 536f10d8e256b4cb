"""The front: what a study minimises on a logarithmic axis against accuracy, with what else was tried, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.pareto.kinds import Kind
from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing import points, theme
from search.views.drawing.points import Shown
from search.views.drawing.theme import BASELINE, FRONT, OTHER, PLAIN
from search.views.reduction import against

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_OTHERS = 1000  # dominated points that are drawn, the latest


def figure(now: Snapshot, most: int = MAX_OTHERS) -> go.Figure:
    """The front, the plain front, BASELINE, what networks were made of, at most `most` of the other finished runs."""
    drawn, plain, baseline = points.on_front(now), points.plain_front(now), points.baseline(now)
    named = {each.number for each in drawn} | ({baseline.number} if baseline else set())
    others = [trial for trial in now.points if trial.number not in named and trial.values[1] >= now.floor]
    made = theme.new(title(now.kind))
    shown_others = [points.shown(trial, now) for trial in others[-most:]]
    add_points(made, "dominated", shown_others, OTHER, now, {"size": 6, "opacity": 0.6}, has_bars=False)
    add_stairs(made, "front without any strategy", plain, PLAIN, now, "dot")
    add_stairs(made, "", drawn, FRONT, now, "solid")
    add_points(made, "front", drawn, FRONT, now, {"size": 9})
    if baseline is not None:  # over the mark of the front where it is on it
        look = {"size": 13, "symbol": "diamond-open", "line": {"width": 2.5}}
        add_points(made, "BASELINE", [baseline], BASELINE, now, look)
    if now.base is not None:
        _add_base(made, now.base, now)
    ends = [end for each in drawn for end in each.cost.interval or (each.cost.mean,)]
    all_shown = [*drawn, *plain, *([baseline] if baseline else []), *shown_others]
    before = [(now.base["inference_flops"], now.base["accuracy"])] if now.base is not None else []
    points_drawn = [*before, *((each.cost.mean, each.accuracy.mean) for each in all_shown)]
    theme.cost_axis(made, [*ends, *(cost for cost, _ in points_drawn)], now.kind)
    lows = [end for each in drawn for end in each.accuracy.interval or ()]
    theme.errors_axis(made, [*lows, *(accuracy for _, accuracy in points_drawn)], now.n_val)
    return made


def title(kind: Kind) -> str:
    """What the figure shows."""
    return f"The front: how accurate {'after how many' if kind.trains else 'with how many'} {kind.words}"


def _add_base(figure: go.Figure, base: Mapping[str, Any], now: Snapshot) -> None:
    """The network that is made smaller."""
    figure.add_scatter(
        x=[base["inference_flops"]],
        y=[theme.error(base["accuracy"], now.n_val)],
        mode="markers",
        name="before",
        marker={"color": PLAIN, "size": 11, "symbol": "square-open", "line": {"width": 2.5}},
        text=[theme.words("the network that is made smaller", against.of_base(base))],
        hovertemplate="%{text}<extra></extra>",
    )


def add_points(
    figure: go.Figure,
    name: str,
    drawn: Sequence[Shown],
    colour: str,
    now: Snapshot,
    look: dict[str, object],
    *,
    has_bars: bool = True,
) -> None:
    """Marks with what is said of each beside the pointer."""
    if not drawn:
        return
    accuracies = [(each.accuracy.mean, each.accuracy.interval) for each in drawn]
    errors = [
        (theme.error(mean, now.n_val), interval and (theme.error(interval[1], now.n_val), 1 - interval[0]))
        for mean, interval in accuracies
    ]
    costs = [(each.cost.mean, each.cost.interval) for each in drawn]
    bars = {"error_x": theme.bars(costs), "error_y": theme.bars(errors)} if has_bars else {}
    figure.add_scatter(
        x=[value for value, _ in costs],
        y=[value for value, _ in errors],
        mode="markers",
        name=name,
        marker={"color": colour, **look},
        text=[theme.words(*_lines(each, name)) for each in drawn],
        hovertemplate="%{text}<extra></extra>",
        **bars,
    )


def _lines(each: Shown, name: str) -> tuple[str, ...]:
    first, *others = each.lines
    if name == "BASELINE":
        return f"BASELINE, {first}", *others
    if name == "front":
        return first, *others
    return first, records.in_words(each.trial)


def add_stairs(figure: go.Figure, name: str, drawn: Sequence[Shown], colour: str, now: Snapshot, dash: str) -> None:
    """The best that can be had for so much, as a line."""
    steps = points.stairs(drawn)
    if not steps:
        return
    figure.add_scatter(
        x=[cost for cost, _ in steps],
        y=[theme.error(accuracy, now.n_val) for _, accuracy in steps],
        mode="lines+markers" if name else "lines",
        marker={"color": colour, "size": 5, "symbol": "square"},
        name=name or "steps",
        line={"color": colour, "width": 1.5, "dash": dash, "shape": "hv"},
        hoverinfo="skip",
        showlegend=bool(name),
    )
