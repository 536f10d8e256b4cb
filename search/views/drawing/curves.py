"""Learning curves and sizes of networks over seconds, a line a trial; of reductions accuracies over FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from optuna.trial import FrozenTrial

from search.pareto.kinds import Kind
from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing import points, theme
from search.views.drawing.theme import FRONT, OTHER

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_CURVES = 60  # every poll of the dashboard sends a figure again: it must stay small


def learning(now: Snapshot) -> go.Figure:
    """Accuracy against what the study minimises; the front is marked, stopped trials are dotted and say why."""
    figure = theme.new(
        "Learning curves (red: the front, dotted: stopped early)"
        if now.kind.trains
        else "The way of each reduction (red: the front)"
    )
    every = list[tuple[float, float]]()
    for trial in _drawn(now, records.CURVE if now.kind.trains else records.TIMELINE):
        told = _told(trial, now.kind)
        every += [(cost, accuracy) for _, cost, accuracy in told]
        errors = [theme.error(accuracy, now.n_val) for _, _, accuracy in told]
        said = [
            f"{now.kind.moment(epoch)}: {a:.2%} {points.joined(now.kind)} {now.kind.brief(c, 3)}"
            for epoch, c, a in told
        ]
        _add_line(figure, trial, now, [cost for _, cost, _ in told], errors, said)
    figure.add_scatter(
        x=[point.cost for point in now.front],
        y=[theme.error(point.accuracy, now.n_val) for point in now.front],
        mode="markers",
        name="front",
        marker={"color": FRONT, "size": 8},
        hoverinfo="skip",
        showlegend=False,
    )
    theme.cost_axis(figure, [cost for cost, _ in every], now.kind)
    theme.errors_axis(figure, [accuracy for _, accuracy in every], now.n_val)
    return figure


def has_curves(now: Snapshot) -> bool:
    """Whether there is a trial of which `learning` shows something."""
    return bool(_drawn(now, records.CURVE if now.kind.trains else records.TIMELINE))


def _told(trial: FrozenTrial, kind: Kind) -> list[tuple[int, float, float]]:
    """(epoch, cost of what a trial has come to, its accuracy)."""
    if not kind.is_timed and kind.trains:
        points = trial.user_attrs[records.CURVE]
        told = zip(points, trial.user_attrs.get(records.MODELLED, ()), strict=False)
        return [(epoch, cost, accuracy) for (epoch, _, accuracy, _), cost in told]
    if kind.trains:
        return [(epoch, seconds, accuracy) for epoch, seconds, accuracy, _ in trial.user_attrs[records.CURVE]]
    return [(each.epoch, each.inference_flops, each.val_accuracy) for each in records.timeline(trial)]


def network_sizes(now: Snapshot) -> go.Figure:
    """Work of an inference against charged seconds, a line for each trial whose network changed its size."""
    figure = theme.new("Networks that changed their size (red: the front, dotted: stopped early)")
    every, every_work = list[float](), list[float]()
    for trial in _drawn(now, records.TIMELINE):
        moments = records.timeline(trial)
        seconds = [moment.train_seconds for moment in moments]
        work = [moment.inference_flops / 1e6 for moment in moments]
        every += seconds
        every_work += work
        said = [f"{now.kind.moment(each.epoch)}: {each.architecture} {each.words}" for each in moments]
        _add_line(figure, trial, now, seconds, work, said, shape="vh")  # what a moment trained, it trained until then
    theme.seconds_axis(figure, every, f"seconds of the {now.kind.work} (device)")
    figure.update_yaxes(title={"text": "MFLOP of an inference", "standoff": 8}, **theme.logarithmic(every_work))
    return figure


def has_sizes(now: Snapshot) -> bool:
    """Whether there is a network that changed its size."""
    return bool(_drawn(now, records.TIMELINE))


def _drawn(now: Snapshot, attribute: str) -> list[FrozenTrial]:
    """The latest trials with an attribute, and all of the front that have it; none that only say more of others."""
    on_front = {point.trial for point in now.front}
    having = [trial for trial in now.trials if trial.user_attrs.get(attribute)]
    found = [t for t in having if not records.is_confirmation(t) and not records.is_ablation(t)]
    latest = {trial.number for trial in found[-MAX_CURVES:]}
    return [trial for trial in found if trial.number in latest | on_front]


def _add_line(
    figure: go.Figure,
    trial: FrozenTrial,
    now: Snapshot,
    x: Sequence[float],
    y: Sequence[float],
    said: Sequence[str],
    shape: Literal["linear", "vh"] = "linear",
) -> None:
    """A trial in a figure."""
    best = trial.number in {point.trial for point in now.front}
    ended = "" if records.is_finished_run(trial) else f", ended: {records.reason(trial).replace('_', ' ')}"
    if not trial.state.is_finished():
        ended = ", still running"
    title = f"trial {trial.number}{ended}"
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines" if len(x) > 1 else "markers",
        name=f"trial {trial.number}",
        line={
            "color": FRONT if best else OTHER,
            "width": 2 if best else 1,
            "dash": "solid" if records.is_finished_run(trial) else "dot",
            "shape": shape,
        },
        marker={"color": FRONT if best else OTHER, "size": 5},
        opacity=1.0 if best else 0.65,
        text=[theme.words(title, each) for each in said],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
