"""The front: training time on a logarithmic axis against accuracy, with what else was trained, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing import points, theme
from search.views.drawing.points import Shown
from search.views.drawing.theme import BASELINE, FRONT, OTHER, PLAIN

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_OTHERS = 1000  # dominated points that are drawn, the latest
TITLE = "The front: how accurate after how many seconds of training"


def figure(now: Snapshot, most: int = MAX_OTHERS) -> go.Figure:
    """The front, the plain front, BASELINE and at most `most` of the other finished runs."""
    drawn, plain, baseline = points.on_front(now), points.plain_front(now), points.baseline(now)
    named = {each.number for each in drawn} | ({baseline.number} if baseline else set())
    others = [trial for trial in now.points if trial.number not in named and trial.values[1] >= now.floor]
    made = theme.new(TITLE)
    shown_others = [points.shown(trial, now) for trial in others[-most:]]
    _add(made, "dominated", shown_others, OTHER, now, {"size": 6, "opacity": 0.6}, has_bars=False)
    _add_stairs(made, "front without any strategy", plain, PLAIN, now, "dot")
    _add_stairs(made, "", drawn, FRONT, now, "solid")
    _add(made, "front", drawn, FRONT, now, {"size": 9})
    if baseline is not None:  # over the mark of the front where it is on it
        look = {"size": 13, "symbol": "diamond-open", "line": {"width": 2.5}}
        _add(made, "BASELINE", [baseline], BASELINE, now, look)
    ends = [end for each in drawn for end in each.seconds.interval or (each.seconds.mean,)]
    all_shown = [*drawn, *plain, *([baseline] if baseline else []), *shown_others]
    theme.seconds_axis(made, [*ends, *(each.seconds.mean for each in all_shown)], "seconds of training (device)")
    lows = [end for each in drawn for end in each.accuracy.interval or ()]
    theme.errors_axis(made, [*lows, *(each.accuracy.mean for each in all_shown)], now.n_val)
    return made


def _add(
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
    seconds = [(each.seconds.mean, each.seconds.interval) for each in drawn]
    bars = {"error_x": theme.bars(seconds), "error_y": theme.bars(errors)} if has_bars else {}
    figure.add_scatter(
        x=[value for value, _ in seconds],
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


def _add_stairs(figure: go.Figure, name: str, drawn: Sequence[Shown], colour: str, now: Snapshot, dash: str) -> None:
    """The best that can be had in so many seconds, as a line."""
    steps = points.stairs(drawn)
    if not steps:
        return
    figure.add_scatter(
        x=[seconds for seconds, _ in steps],
        y=[theme.error(accuracy, now.n_val) for _, accuracy in steps],
        mode="lines+markers" if name else "lines",
        marker={"color": colour, "size": 5, "symbol": "square"},
        name=name or "steps",
        line={"color": colour, "width": 1.5, "dash": dash, "shape": "hv"},
        hoverinfo="skip",
        showlegend=bool(name),
    )
