"""What each strategy did to seconds and to accuracy, with intervals, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.proposals.effects import Change, Effect
from search.views.drawing import theme
from search.views.drawing.theme import BASELINE, GAINED, UNDECIDED
from search.views.effects import NAMES, row

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW = 26  # pixels of a strategy


def known(effects: Sequence[Effect]) -> list[Effect]:
    """The strategies of which there is something to say."""
    return [each for each in effects if each.seconds is not None and each.points is not None]


def figure(effects: Sequence[Effect]) -> go.Figure:
    """Left the factor of the seconds, right the points of accuracy; grey where the interval leaves open which way."""
    made, told = theme.new("What each strategy did, with 95 % intervals"), known(effects)[::-1]
    names = [theme.literal(NAMES.get(each.switch, each.switch)) for each in told]
    seconds = [each.seconds.factors for each in told if each.seconds]
    _add(made, "x", names, seconds, [_colour(each.seconds) for each in told], told)
    points = [each.points for each in told if each.points]
    _add(made, "x2", names, points, [_colour(each.error) for each in told], told)
    factors = theme.logarithmic([1.0, *(end for each in seconds for end in each)])
    made.update_layout(
        height=120 + ROW * len(told),
        margin={"l": 10, "t": 40},
        xaxis={**factors, "title": {"text": "seconds, times", "standoff": 6}, "domain": [0, 0.46], "tickangle": 0},
        xaxis2={
            **{"title": {"text": "points", "standoff": 6}, "domain": [0.54, 1], "anchor": "y", "tickangle": 0},
            **{"gridcolor": theme.GRID, "nticks": 4, "zeroline": False, "automargin": True},
        },
        yaxis={"categoryorder": "array", "categoryarray": names, "range": [-0.6, len(names) - 0.4]},
        shapes=[_nothing("x", 1), _nothing("x2", 0)],
    )
    return made


def _colour(change: Change | None) -> str:
    """Of a change in decades of seconds or of errors, less of which is better."""
    if change is None or not change.is_sure:
        return UNDECIDED
    return GAINED if change.mean < 0 else BASELINE


def _add(
    figure: go.Figure,
    axis: str,
    names: Sequence[str],
    values: Sequence[tuple[float, float, float]],
    colours: Sequence[str],
    told: Sequence[Effect],
) -> None:
    """(middle, least, most) of every strategy, those of a colour together: bars of a trace have one."""
    for colour in dict.fromkeys(colours):
        chosen = [i for i, each in enumerate(colours) if each == colour]
        figure.add_scatter(
            x=[values[i][0] for i in chosen],
            y=[names[i] for i in chosen],
            xaxis=axis,
            mode="markers",
            marker={"color": colour, "size": 8},
            error_x={**theme.bars((values[i][0], values[i][1:]) for i in chosen), "color": colour},
            text=[_said(told[i]) for i in chosen],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )


def _said(effect: Effect) -> str:
    name, n, n_pairs, seconds, points = row(effect)
    return theme.words(f"{name}: {n} runs, {n_pairs} pairs", f"seconds {seconds}", f"points {points}")


def _nothing(axis: str, at: float) -> dict[str, object]:
    """A line where nothing changed."""
    line = {"color": UNDECIDED, "dash": "dot", "width": 1}
    return {"type": "line", "xref": axis, "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}
