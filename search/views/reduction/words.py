"""A reduction in words: attempts as a table, the network before and after it side by side."""

from __future__ import annotations

from collections.abc import Sequence

from objectives.reduction.result import Comparison, Latency, Result, Weighed
from objectives.reduction.settings import Iteration
from objectives.words import counted
from search.database import disk
from search.pareto.intervals import Estimate, wilson
from search.views.columns import columns
from search.views.plot import Kind, Mark, Subject, plot

VERDICTS = {True: "accepted", False: "refused"}
HEADER = ("attempt", "layer", "share", "channels", "cut", "retrained", "parameters", "MFLOP", "seconds", "verdict")
ALIKE = "~"  # of a ratio that says nothing
FEWEST = 10  # readings that tell it
WIDEST, HIGHEST = 80, 10  # columns and lines of the plot


def count(number: float) -> str:
    """A number of parameters as the axis of a plot has room for it."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


SUBJECT = Subject(
    titles=("accuracy over parameters", "accuracy"),
    words=("refused", "accepted", "before"),
    characters=("·●B", ".oB"),
    label=count,
)


def line(tried: Iteration) -> str:
    """An attempt in a line."""
    return (
        f"attempt {tried.number}: {tried.axis} {tried.n_before} -> {tried.n_after}: "
        f"{tried.cut_accuracy:.2%} cut, {tried.accuracy:.2%} retrained, {tried.n_parameters:,} parameters, "
        f"{mflop(tried.flops)} MFLOP, {tried.seconds:.1f} s: {VERDICTS[tried.accepted]}"
    )


def standing(result_so_far: Sequence[Iteration], before: int) -> str:
    """How small the network is after these attempts, in a line; `before`: its parameters before them."""
    accepted = [each for each in result_so_far if each.accepted]
    if not accepted:
        return f"{counted(len(result_so_far), 'attempt')}, none accepted"
    now = accepted[-1]
    return (
        f"{len(accepted)} of {counted(len(result_so_far), 'attempt')} accepted, {before:,} -> {now.n_parameters:,} "
        f"parameters ({before / now.n_parameters:.1f}x fewer), {now.accuracy:.2%} on validation"
    )


def table(attempts: Sequence[Iteration], width: int | None = None) -> list[str]:
    """A row for each attempt."""
    return columns(HEADER, [cells(each) for each in attempts], width, left=["layer"])


def cells(tried: Iteration) -> list[str]:
    """An attempt as the row of a table that has `HEADER`."""
    return [
        str(tried.number),
        tried.axis,
        f"{tried.share:.0%}",
        f"{tried.n_before} -> {tried.n_after}",
        f"{tried.cut_accuracy:.2%}",
        f"{tried.accuracy:.2%}",
        f"{tried.n_parameters:,}",
        mflop(tried.flops),
        f"{tried.seconds:.1f}",
        VERDICTS[tried.accepted],
    ]


def is_told_apart(latency: Latency) -> bool:
    """Whether the readings tell which network is faster: of 15 the quartiles are an interval of 95 % of the median."""
    ratio = latency.speed_up
    return ratio.n >= FEWEST and not ratio.low <= 1.0 <= ratio.high


def compared(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the network before, after, and what the reduction came to."""
    before, after = found.base, found.reduced
    header = ["", "parameters", "MFLOP", "weights", "validation"]
    rows = [["before", *_weights(before)], ["after", *_weights(after)]]
    saved = [
        _times(before.n_parameters, after.n_parameters),
        _times(before.flops, after.flops),
        _times(before.n_bytes, after.n_bytes),
        _points(after.accuracy - before.accuracy),
    ]
    if before.test_accuracy is not None and after.test_accuracy is not None:
        header.append("test")
        for row, each in zip(rows, (before, after), strict=True):
            row.append(f"{each.test_accuracy:.2%}")
        saved.append(_points(after.test_accuracy - before.test_accuracy))
    for latency in found.latencies:
        header.append(f"ms at {latency.batch}")
        rows[0].append(_milliseconds(latency.base.median))
        rows[1].append(_milliseconds(latency.reduced.median))
        saved.append(f"{'' if is_told_apart(latency) else ALIKE}{latency.speed_up.median:.2f}x")
    rows.append(["saved", *saved])
    if found.quantised is not None:
        few = ["quantised", *_weights(found.quantised)]
        rows.append(few + [""] * (len(header) - len(few)))
    return header, rows


def comparison(found: Comparison, width: int | None = None) -> list[str]:
    """The network before and after, a row each."""
    header, rows = compared(found)
    # The last column of a table is flush left: one without words keeps the numbers flush right.
    return [each.rstrip() for each in columns([*header, ""], [[*row, ""] for row in rows], width, left=[""])]


def notes(result: Result) -> list[str]:
    """What the numbers of a comparison are, a line each."""
    found = result.compared
    half = Estimate(found.reduced.accuracy, wilson(found.reduced.accuracy, found.n_val)).half or 0.0
    said = [
        f"Attempts were judged by {found.n_val} validation images (at least {result.least:.2%}), "
        f"which know an accuracy to ±{100 * half:.1f} points."
    ]
    if found.n_test is not None:
        test = found.reduced.test_accuracy or 0.0
        half = Estimate(test, wilson(test, found.n_test)).half or 0.0
        said.append(f"Test: {found.n_test} images that nothing was chosen by; 95 % within ±{100 * half:.1f} points.")
    if found.latencies:
        said.append(
            f"Latency: both networks in turns on {found.device}, in fp32, medians; half of the ratios lie "
            f"within {', '.join(map(_ratios, found.latencies))}."
            + ("" if all(map(is_told_apart, found.latencies)) else f" {ALIKE}: nothing says that one is faster.")
        )
    if found.quantised is not None and found.quantised.accuracy < result.least:
        said.append("In fewer bits the network falls below what attempts had to reach.")
    if not result.accepted:
        tried = "nothing was tried" if not result.attempts else "no attempt was accepted"
        said.append(f"The network is the one before: {tried}.")
    return said


def lines(result: Result, width: int | None = None) -> list[str]:
    """All that a terminal shows of a reduction, but for where it lies."""
    attempts = [*table(result.attempts, width), ""] if result.attempts else []
    return [*attempts, *comparison(result.compared, width), "", *notes(result)]


def marks(attempts: Sequence[Iteration], before: tuple[int, float]) -> list[Mark]:
    """The points of a plot; `before`: parameters and accuracy of the network to begin with."""
    tried = [
        Mark(each.n_parameters, each.accuracy, Kind.FRONT if each.accepted else Kind.DOMINATED) for each in attempts
    ]
    return [Mark(before[0], before[1], Kind.BASELINE), *tried]


def drawn(points: Sequence[Mark], width: int, height: int, *, ascii_only: bool) -> list[str]:
    """Accuracy over parameters as lines of characters."""
    return plot(points, min(width, WIDEST), min(height, HIGHEST), ascii_only=ascii_only, subject=SUBJECT)


def mflop(flops: float) -> str:
    """FLOPs in millions, with three digits at least."""
    millions = flops / 1e6
    return f"{millions:.3g}" if millions < 100 else f"{millions:.0f}"


def _weights(each: Weighed) -> list[str]:
    return [f"{each.n_parameters:,}", mflop(each.flops), disk.words(each.n_bytes), f"{each.accuracy:.2%}"]


def _times(before: float, after: float) -> str:
    return f"{before / after:.1f}x" if after else ""


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def _ratios(latency: Latency) -> str:
    return f"{latency.speed_up.low:.2f}x and {latency.speed_up.high:.2f}x at {latency.batch}"
