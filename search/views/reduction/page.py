"""A reduction as one HTML page that needs nothing else: accuracy over parameters, the attempts, before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from objectives.reduction.result import Result
from search.views.reduction import words

TEMPLATE = Path(__file__).with_name("reduction.html")
WIDTH, HEIGHT = 720, 360  # of the figure, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 40  # what its labels take
LOSSES = 4  # times epsilon below what is accepted: refused attempts that are worse lie on the lower edge
LEAST_SPAN = 0.005  # of accuracy that is shown
N_TICKS = 5  # of the vertical axis
STEPS = (1, 2, 5)  # of a decade, which the horizontal axis names


@dataclass(frozen=True)
class Dot:
    """A network in the figure."""

    x: float
    y: float
    kind: str  # before, accepted, refused
    is_below: bool  # its accuracy is less than the figure shows
    said: str  # when it is pointed at


@dataclass(frozen=True)
class Figure:
    """Accuracy over parameters, in units of the figure."""

    dots: tuple[Dot, ...]
    path: str  # from one accepted network to the next, as points of a polyline
    least: float  # height of the accuracy from which on networks are accepted
    across: tuple[tuple[float, str], ...]  # (place, label) on the horizontal axis
    down: tuple[tuple[float, str], ...]


def page(result: Result, title: str) -> str:
    """The page; `title`: what was made smaller."""
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(TEMPLATE.read_text())
    header, rows = words.compared(result.compared)
    return template.render(
        title=title,
        standing=words.standing(result.attempts, result.compared.base.n_parameters),
        figure=figure(result),
        size={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM},
        compared={"header": header, "rows": rows},
        networks=[result.compared.base.architecture, result.compared.reduced.architecture],
        notes=words.notes(result),
        header=words.HEADER,
        attempts=[(each, words.cells(each)) for each in result.attempts],
        settings=result.settings.to_json(),
    )


def figure(result: Result) -> Figure:
    """Every network that was tried: decades of parameters across, accuracy upwards."""
    before = result.compared.base
    sizes = [before.n_parameters, *(each.n_parameters for each in result.attempts)]
    low, high = math.log10(min(sizes)) - 0.05, math.log10(max(sizes)) + 0.05
    shown = [before.accuracy, *(each.accuracy for each in result.attempts)]
    floor = max(min(shown), result.least - LOSSES * result.settings.epsilon)
    floor, ceiling = min(floor, result.least), max(shown)
    spare = max(LEAST_SPAN, ceiling - floor) * 0.05
    floor, ceiling = max(0.0, floor - spare), min(1.0, max(ceiling, floor + LEAST_SPAN) + spare)

    def x(size: float) -> float:
        return round(LEFT + (math.log10(size) - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(accuracy: float) -> float:
        share = (max(accuracy, floor) - floor) / (ceiling - floor)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def dot(size: int, accuracy: float, kind: str, said: str) -> Dot:
        return Dot(x(size), y(accuracy), kind, accuracy < floor, said)

    first = dot(before.n_parameters, before.accuracy, "before", f"before: {before.n_parameters:,} parameters")
    others = [dot(t.n_parameters, t.accuracy, words.VERDICTS[t.accepted], words.line(t)) for t in result.attempts]
    way = [first, *(each for each in others if each.kind == "accepted")]
    ticks = [floor + (ceiling - floor) * i / (N_TICKS - 1) for i in range(N_TICKS)]
    decades = (step * 10**power for power in range(math.floor(low), math.ceil(high)) for step in STEPS)
    return Figure(
        dots=(*others, first),
        path=" ".join(f"{each.x},{each.y}" for each in way),
        least=y(result.least),
        across=tuple((x(size), words.count(size)) for size in decades if low <= math.log10(size) <= high),
        down=tuple((y(tick), f"{tick:.1%}") for tick in ticks),
    )
