"""From BASELINE to a point of the front: what each ingredient does to seconds and accuracy, as a waterfall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.ablation.result import Ablation, Effect
from search.pareto.intervals import Difference, Estimate, Interval
from search.views.ablation import without, words
from search.views.drawing import theme
from search.views.drawing.theme import BASELINE, FRONT, GAINED, UNDECIDED

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW = 28  # pixels of an ingredient
MOST_TICKS = 4  # of half a figure, on a telephone
THICK = 11  # ... of its bar
INTERPLAY = "interplay"  # what all together are more than the sum of each by itself


@dataclass(frozen=True)
class Step:
    """A bar of the waterfall; seconds in decades, gains of accuracy from BASELINE, whose sum may exceed any."""

    name: str
    seconds: tuple[float, float]  # from, to
    gain: tuple[float, float]
    spans: tuple[Interval | None, Interval | None]  # of where each ends
    colours: tuple[str, str]
    said: str  # beside the pointer


def steps(found: Ablation) -> list[Step]:
    """From the top: each ingredient as it was measured by itself, then what they are to each other, where it is known.

    The last one ends at the point.
    """
    told = [each for each in found.effects if each.n_pairs]
    interplay = found.interplay or (0.0, 0.0)
    at = math.log10(found.seconds) - math.fsum([interplay[0], *(each.decades.mean for each in told)])
    gain = 0.0
    made = []
    for each in told:
        ends = at + each.decades.mean, gain + each.gain.mean
        spans = _moved(each.decades, at), _moved(each.gain, gain)
        colours = _colour(each.decades, -1), _colour(each.gain, 1)
        made.append(Step(without.name(each.key), (at, ends[0]), (gain, ends[1]), spans, colours, _said(each)))
        at, gain = ends
    if found.interplay is not None:
        ends = at + interplay[0], gain + interplay[1]
        said = theme.words("what all together are more, or less, than the sum of each by itself")
        made.append(Step(INTERPLAY, (at, ends[0]), (gain, ends[1]), (None, None), (UNDECIDED, UNDECIDED), said))
    return made


def figure(found: Ablation) -> go.Figure:
    """Left seconds on a logarithmic axis, right points of accuracy; grey where the interval leaves open which way."""
    made, bars = theme.new(f"What trial {found.point} is made of, with 95 % intervals"), steps(found)
    first, last = "BASELINE" if found.interplay is not None else "", f"trial {found.point}"
    names = [theme.literal(name) for name in (*([first] if first else []), *(each.name for each in bars), last)]
    for axis, side in (("x", 0), ("x2", 1)):
        for each in bars:
            _add(made, axis, each, side)
        if first:
            assert found.together is not None
            said = f"BASELINE, in the same rounds: {words.comes_to(found.together)}"
            _mark(made, axis, names[0], _place(bars[0], side, 0), BASELINE, theme.words(said))
        said = f"{last}: {words.comes_to(found)}"
        _mark(made, axis, names[-1], _place(bars[-1], side, 1), FRONT, theme.words(said))
    ends_of_all = [10**end for each in bars for end in (*each.seconds, *(each.spans[0] or ()))]
    seconds = theme.logarithmic(ends_of_all, MOST_TICKS)
    made.update_layout(
        height=120 + ROW * len(names),
        margin={"l": 10, "t": 40},
        xaxis={**seconds, "title": {"text": "seconds", "standoff": 6}, "domain": [0, 0.46], "tickangle": 0},
        xaxis2={
            **{
                "title": {"text": "points of accuracy", "standoff": 6},
                "domain": [0.54, 1],
                "anchor": "y",
                "tickangle": 0,
            },
            **{"gridcolor": theme.GRID, "nticks": 4, "zeroline": False, "automargin": True},
        },
        yaxis={"categoryorder": "array", "categoryarray": names[::-1], "range": [-0.6, len(names) - 0.4]},
        shapes=[*_links(bars, names, "x", 0), *_links(bars, names, "x2", 1)],
    )
    return made


def _moved(estimate: Estimate, by: float) -> Interval | None:
    return estimate.interval and (by + estimate.interval[0], by + estimate.interval[1])


def _colour(estimate: Difference, better: int) -> str:
    """Of a change, which is a gain where it has the sign `better`."""
    if not estimate.is_sure:
        return UNDECIDED
    return GAINED if estimate.mean * better > 0 else BASELINE


def _said(each: Effect) -> str:
    name, pairs, _, seconds, points, off = words.cells(each)
    return theme.words(f"{name}: {off}, {pairs} pairs", f"seconds {seconds}", f"points {points}")


def _place(of: Step, side: int, end: int) -> float:
    """Where a bar begins (end 0) or ends (1), on the axis of a side."""
    return 100 * of.gain[end] if side else 10 ** of.seconds[end]


def _add(made: go.Figure, axis: str, each: Step, side: int) -> None:
    """A bar with the interval of its end."""
    colour, name = each.colours[side], theme.literal(each.name)
    span = each.spans[side]
    ends = span and ((100 * span[0], 100 * span[1]) if side else (10 ** span[0], 10 ** span[1]))
    bar = {"x": [_place(each, side, 0), _place(each, side, 1)], "y": [name, name], "xaxis": axis}
    made.add_scatter(**bar, mode="lines", line={"color": colour, "width": THICK}, hoverinfo="skip", showlegend=False)
    made.add_scatter(
        x=[_place(each, side, 1)],
        y=[name],
        xaxis=axis,
        mode="markers",
        marker={"color": colour, "size": THICK, "symbol": "square"},
        error_x={**theme.bars([(_place(each, side, 1), ends)]), "color": colour},
        text=[each.said],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _mark(made: go.Figure, axis: str, name: str, at: float, colour: str, said: str) -> None:
    """Where the waterfall begins, or ends."""
    made.add_scatter(
        x=[at],
        y=[name],
        xaxis=axis,
        mode="markers",
        marker={"color": colour, "size": 12, "symbol": "diamond"},
        text=[said],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _links(bars: Sequence[Step], names: Sequence[str], axis: str, side: int) -> list[dict[str, object]]:
    """Thin lines from where a bar ends to where the next one begins."""
    line, offset = {"color": UNDECIDED, "dash": "dot", "width": 1}, len(names) - len(bars) - 1
    places = [(number + offset, _place(each, side, 1)) for number, each in enumerate(bars)]
    places += [(0, _place(bars[0], side, 0))] if offset else []
    top = len(names) - 1
    return [
        {"type": "line", "xref": axis, "x0": at, "x1": at, "yref": "y", "y0": top - i, "y1": top - i - 1, "line": line}
        for i, at in places
    ]
