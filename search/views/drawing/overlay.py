"""Two fronts in one figure: what their studies minimise on a logarithmic axis against accuracy, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.study.snapshot import Snapshot
from search.views.drawing import front, points, theme
from search.views.drawing.theme import FRONT, PLAIN

if TYPE_CHECKING:
    import plotly.graph_objects as go

LOOKS: tuple[tuple[str, str, dict[str, object]], ...] = (
    (FRONT, "solid", {"size": 9}),
    (PLAIN, "dash", {"size": 9, "symbol": "square"}),
)


def figure(a: Snapshot, b: Snapshot, names: tuple[str, str]) -> go.Figure:
    """Both fronts, each as marks with intervals on a line of what can be had for so much."""
    made = theme.new(front.title(a.kind))
    costs, accuracies = list[float](), list[float]()
    for now, name, (colour, dash, look) in zip((a, b), names, LOOKS, strict=True):
        drawn = points.on_front(now)
        front.add_stairs(made, "", drawn, colour, now, dash)
        front.add_points(made, theme.literal(name), drawn, colour, now, look)
        costs += [end for each in drawn for end in (*(each.cost.interval or ()), each.cost.mean)]
        accuracies += [end for each in drawn for end in (each.accuracy.mean, *(each.accuracy.interval or ())[:1])]
    theme.cost_axis(made, costs, a.kind)
    theme.errors_axis(made, accuracies, min(a.n_val, b.n_val))
    return made
