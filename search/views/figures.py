"""What optuna-dashboard shows of a study beyond its own pages: notes, learning curves, network sizes, hypervolume."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Literal

import optuna
from optuna.trial import FrozenTrial

from search.database import storage
from search.study import records
from search.study.snapshot import Snapshot
from search.views import timeline

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_CURVES = 60  # every poll of the dashboard sends a figure again: it must stay small


@cache
def installed() -> bool:
    """Whether the dashboard's libraries are here. A machine that only trains can do without: nothing is written then.

    Loads them, which takes a second: ask while waiting for something else.
    """
    try:
        for library in ("plotly", "optuna_dashboard"):  # in this order: the second loads scikit-learn and scipy
            import_module(library)
    except ImportError:  # not here, or what it needs is broken
        return False
    return True


def note_trial(board: optuna.Study, ended: FrozenTrial) -> None:
    """Writes the note of an ended trial: its pipeline, how it ended and why, what happened on the way."""
    if not installed():
        return
    from optuna_dashboard import save_note

    storage.patiently(lambda: save_note(optuna.Trial(board, ended._trial_id), note(ended)))


def note(trial: FrozenTrial) -> str:
    """A trial in Markdown."""
    attributes = trial.user_attrs
    curve = attributes.get(records.CURVE)
    title = records.in_words(trial) if curve else attributes.get(records.WORDS, "nothing was sampled")
    lines = [f"**trial {trial.number}**: {literal(title)}", ""]
    lines.append(f"* ended: {records.reason(trial).replace('_', ' ')}")
    if records.is_repeat(trial):
        lines.append(f"* times trial {records.first(trial)} again")
    if records.is_confirmation(trial):
        lines.append(f"* confirms trial {attributes[records.CONFIRM_OF]} with fresh seeds")
    if disturbed := attributes.get(records.NOISY):
        lines.append(f"* disturbed: {disturbed}; undisturbed about {attributes[records.UNDISTURBED]:.2f} s")
    if records.MESSAGE in attributes:
        lines.append(f"* message: {literal(attributes[records.MESSAGE])}")
    if curve:
        epoch, seconds, accuracy, _ = curve[-1]
        took = records.in_seconds(seconds, attributes.get(records.WALL_SECONDS))
        is_reduced = "reduction" in attributes[records.PIPELINE]
        reached = f"attempt {epoch - 1}" if is_reduced else f"epoch {epoch} of {attributes[records.PIPELINE]['epochs']}"
        lines.append(f"* {reached}: {accuracy:.2%} after {took}")
        lines.append(
            f"* {attributes['n_parameters']:,} parameters, {attributes['inference_flops'] / 1e6:.2f} MFLOP an inference"
        )
        if attributes["train_flops"]:
            lines.append(f"* {attributes['train_flops'] / 1e9:.1f} GFLOP spent on training")
    if "peak_memory_bytes" in attributes:
        evaluation = attributes.get("eval_peak_memory_bytes")
        beside = "" if evaluation is None else f", in evaluation {evaluation / 2**20:.0f} MiB"
        lines.append(f"* peak memory {attributes['peak_memory_bytes'] / 2**20:.0f} MiB{beside}")
    lines += [f"* {literal(event)}" for event in attributes.get(records.EVENTS, ())]
    if shadow := attributes.get(records.WOULD_STOP):
        lines.append(f"* with early stopping it would have been stopped at epoch {shadow['epoch']}: {shadow['reason']}")
    if moments := records.timeline(trial):
        lines += ["", *table(timeline.COLUMNS, [timeline.cells(moment) for moment in moments])]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table that shows its cells as they are (GitHub Flavored Markdown 0.29, section 4.10)."""
    first, *others = [f"| {' | '.join(map(literal, cells))} |" for cells in [header, *rows]]
    return [first, f"|{' --- |' * len(header)}", *others]


def literal(text: str) -> str:
    """Text that Markdown shows as it is, on one line, whether or not a viewer lets HTML through.

    optuna-dashboard 0.21 does not, but takes punctuation for emphasis, lists and links. A backslash takes the meaning
    from every punctuation character of ASCII (CommonMark 0.31, section 2.4).
    """
    return re.sub(rf"([{re.escape(string.punctuation)}])", r"\\\1", " ".join(text.split()))


def save(board: optuna.Study, now: Snapshot) -> None:
    """Hands the dashboard all figures as they stand."""
    if not installed():
        return
    from optuna_dashboard import save_plotly_graph_object

    drawn = {"learning-curves": learning_curves(now), "hypervolume": hypervolume_history(now)}
    if _drawn(now, records.TIMELINE):
        drawn["network-sizes"] = network_sizes(now)
    for name, figure in drawn.items():
        storage.patiently(partial(save_plotly_graph_object, board, figure, graph_object_id=name))


def learning_curves(now: Snapshot) -> go.Figure:
    """Accuracy against charged seconds, a line a trial; the front is marked, stopped trials are dotted.

    Of a network that is made smaller, against the FLOPs that are left.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    if now.kind.is_timed:
        for trial in _drawn(now, records.CURVE):
            curve = trial.user_attrs[records.CURVE]
            _add_line(figure, trial, now, [point[1] for point in curve], [point[2] for point in curve])
    else:
        for trial in _drawn(now, records.TIMELINE):
            moments = records.timeline(trial)
            work = [moment.inference_flops for moment in moments]
            _add_line(figure, trial, now, work, [moment.val_accuracy for moment in moments])
    figure.add_scatter(
        x=[point.cost for point in now.front],
        y=[point.accuracy for point in now.front],
        mode="markers",
        name="front",
        marker={"color": "#d62728", "size": 8},
    )
    what = "Learning curves" if now.kind.is_timed else "Networks made smaller, step by step"
    figure.update_layout(title=f"{what} (red: the front, dotted: stopped early)", template="plotly_white")
    figure.update_xaxes(title=now.kind.metric, type="log")
    figure.update_yaxes(title="val_accuracy", tickformat=".0%")
    return figure


def network_sizes(now: Snapshot) -> go.Figure:
    """Work of an inference against charged seconds, a line for each trial whose network changed its size."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for trial in _drawn(now, records.TIMELINE):
        moments = records.timeline(trial)
        seconds = [moment.train_seconds for moment in moments]
        work = [moment.inference_flops / 1e6 for moment in moments]
        _add_line(figure, trial, now, seconds, work, shape="vh")  # what a moment trained, it trained until then
    title = "Networks that changed their size (red: the front, dotted: stopped early)"
    figure.update_layout(title=title, template="plotly_white")
    figure.update_xaxes(title="train_seconds", type="log")
    figure.update_yaxes(title="MFLOP of an inference", type="log")
    return figure


def _drawn(now: Snapshot, attribute: str) -> list[FrozenTrial]:
    """The latest trials with an attribute, and all of the front that have it; no confirmations."""
    on_front = {point.trial for point in now.front}
    having = [trial for trial in now.trials if trial.user_attrs.get(attribute)]
    found = [trial for trial in having if not records.is_confirmation(trial)]
    latest = {trial.number for trial in found[-MAX_CURVES:]}
    return [trial for trial in found if trial.number in latest | on_front]


def _add_line(
    figure: go.Figure,
    trial: FrozenTrial,
    now: Snapshot,
    x: Sequence[float],
    y: Sequence[float],
    shape: Literal["linear", "vh"] = "linear",
) -> None:
    """A trial in a figure."""
    best = trial.number in {point.trial for point in now.front}
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines" if len(x) > 1 else "markers",
        name=f"trial {trial.number}",
        line={
            "color": "#d62728" if best else "#7f7f7f",
            "width": 2 if best else 1,
            "dash": "solid" if records.is_finished_run(trial) else "dot",
            "shape": shape,
        },
        opacity=1.0 if best else 0.5,
        showlegend=False,
    )


def hypervolume_history(now: Snapshot) -> go.Figure:
    """Hypervolume of the front after each trial, as a share of its box."""
    import plotly.graph_objects as go

    volumes = [(o.trial, now.hypervolume(now.outcomes[: i + 1])) for i, o in enumerate(now.outcomes)]
    known = [(number, volume) for number, volume in volumes if volume is not None]
    figure = go.Figure()
    figure.add_scatter(x=[n for n, _ in known], y=[v for _, v in known], mode="lines+markers", line={"shape": "hv"})
    figure.update_layout(
        title=f"Hypervolume of the front ({now.kind.decades}, decades of error)", template="plotly_white"
    )
    figure.update_xaxes(title="trial")
    figure.update_yaxes(title="share of the box")
    return figure
