"""What all figures share: colours that are told apart on white and on black, axes in words, text that is only text."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Mapping
from math import log10
from typing import TYPE_CHECKING

from objectives.words import inert
from search.pareto.kinds import PARETO, Kind

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Told apart by those who see no red or no green, too, and of a contrast of at least 3 on white and on black.
FRONT, PLAIN, BASELINE, OTHER = "#d1495b", "#3a7fc1", "#b8790a", "#8c8c8c"
GRID = "#dddddd"
GAINED, UNDECIDED = "#2a8f68", "#8c8c8c"
TEXT = 12  # points, of the smallest text
HOVER_COLUMNS = 46  # of text beside the pointer: what a telephone shows
MOST_TICKS = 7
SECONDS = (
    *(scale * step for scale in (1e-3, 1e-2, 0.1, 1.0) for step in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400, 172800, 432000, 864000),
)
ROUND_SECONDS = (0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36000, 86400, 864000)
FLOPS = tuple(scale * 10.0**decade for decade in range(2, 15) for scale in (1, 2, 5))
ROUND_FLOPS = FLOPS[::3]
FLOPS_UNITS = ((1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"))
STEPS = tuple(scale * 10.0**decade for decade in range(-6, 7) for scale in (1, 2, 5))
ERRORS = tuple(step * 10.0**-decade for decade in range(6) for step in (1, 0.5, 0.2))


def new(title: str) -> go.Figure:
    """An empty figure. It has no template: those of plotly are seven kilobytes a figure."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": "none", "title": {"text": title, "font": {"size": 15}, "x": 0.01}})
    figure.update_layout(
        font={"family": "system-ui, sans-serif", "size": TEXT},
        margin={"l": 60, "r": 14, "t": 48, "b": 50},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        hoverlabel={"align": "left"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(automargin=True, gridcolor=GRID, zeroline=False)
    return figure


def seconds_axis(figure: go.Figure, seconds: Iterable[float], title: str) -> None:
    """A logarithmic axis of seconds below, with ticks in units that people use."""
    _cost_axis(figure, seconds, title, PARETO)


AXES = {
    "pareto": "seconds of training (device)",
    "reduce": "FLOPs of an inference",
    "modelled": "modelled seconds of training",
}


def cost_axis(figure: go.Figure, costs: Iterable[float], kind: Kind) -> None:
    """A logarithmic axis below of what a kind of study minimises, with ticks in units that people use."""
    _cost_axis(figure, costs, AXES[kind.name], kind)


def _cost_axis(figure: go.Figure, costs: Iterable[float], title: str, kind: Kind) -> None:
    values = [each for each in costs if each > 0]
    low, high = min(values, default=kind.scale) / 1.15, max(values, default=kind.scale) * 1.15
    ticks = _within(SECONDS if kind.trains else FLOPS, low, high)
    if len(ticks) > MOST_TICKS:
        ticks = _within(ROUND_SECONDS if kind.trains else ROUND_FLOPS, low, high)
    ticks = ticks if len(ticks) > 1 else _ends(values)
    said = {"tickvals": ticks, "ticktext": [in_units(each, kind) for each in ticks]}
    figure.update_xaxes(type="log", title={"text": title, "standoff": 6}, range=_decades(low, high), **said)


def errors_axis(figure: go.Figure, accuracies: Iterable[float], n_images: int) -> None:
    """An axis of accuracies whose steps are those of errors: to halve them is as far from 80 % as from 98 %."""
    errors = [error(each, n_images) for each in accuracies]
    low, high = min(errors, default=0.1) / 1.2, min(1.0, max(errors, default=1.0) * 1.2)
    ticks = _within(ERRORS, low, high)
    ticks = ticks if len(ticks) > 1 else _ends(errors)
    figure.update_yaxes(
        type="log",
        title={"text": "accuracy of validation images", "standoff": 8},
        range=_decades(low, high)[::-1],
        tickvals=ticks,
        ticktext=[f"{100 * (1 - each):.4g}%" for each in ticks],
    )


def logarithmic(values: Iterable[float], most: int = MOST_TICKS) -> dict[str, object]:
    """A logarithmic axis with a few ticks, about `most`; plotly's own are digits too small to read."""
    known = [each for each in values if each > 0]
    low, high = min(known, default=1.0) / 1.15, max(known, default=1.0) * 1.15
    ticks = _within(STEPS, low, high)
    if len(ticks) > most:
        ticks = [each for each in ticks if f"{each:e}".startswith("1")]
    ticks = ticks if len(ticks) > 1 else _ends(known)
    return {"type": "log", "range": _decades(low, high), "tickvals": ticks, "ticktext": [f"{each:g}" for each in ticks]}


def error(accuracy: float, n_images: int) -> float:
    """The share of images that was wrong, for a logarithmic axis: of none half an image."""
    return max(1.0 - accuracy, 0.5 / n_images)


def in_units(cost: float, kind: Kind = PARETO) -> str:
    """A cost in words, to three digits: '0.5 s', '30 s', '5 min', '2 h', '20 kFLOP', '1.5 MFLOP'."""
    if not kind.trains:
        size, unit = next((each for each in FLOPS_UNITS if cost >= each[0]), (1.0, "FLOP"))
        return f"{cost / size:.3g} {unit}"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if cost >= 2 * size or (cost >= size and cost % size == 0):
            return f"{cost / size:.3g} {unit}"
    return f"{cost:.3g} s"


def words(*lines: str) -> str:
    """Text for the pointer, in lines. Plotly reads some markup: what others wrote is none."""
    broken = [part for line in lines for part in textwrap.wrap(inert(line), HOVER_COLUMNS) or [""]]
    return "<br>".join(map(literal, broken))


def literal(text: str) -> str:
    """Text that a figure shows as it is."""
    return html.escape(inert(text), quote=False)


def bars(estimates: Iterable[tuple[float, tuple[float, float] | None]]) -> Mapping[str, object]:
    """Error bars of (value, interval); none where an interval is None."""
    known = [(value, interval or (value, value)) for value, interval in estimates]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) for value, (_, high) in known],
        "arrayminus": [max(0.0, value - low) for value, (low, _) in known],
        "thickness": 1.2,
        "width": 3,
    }


def _within(candidates: Iterable[float], low: float, high: float) -> list[float]:
    return [each for each in candidates if low <= each <= high]


def _ends(values: Iterable[float]) -> list[float]:
    """Ticks where no round ones are near: the least and the most, once where they are one."""
    known = list(values)
    return sorted({float(f"{end(known):.3g}") for end in (min, max)}) if known else []


def _decades(low: float, high: float) -> list[float]:
    return [log10(low), log10(high)]
