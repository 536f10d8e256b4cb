"""What optuna-dashboard shows of a study beyond its own pages: notes, learning curves, network sizes, hypervolume."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module

import optuna
from optuna.trial import FrozenTrial

from search.database import storage
from search.pareto.kinds import PARETO, REDUCE
from search.study import records
from search.study.snapshot import Snapshot
from search.views import timeline
from search.views.ablation import without
from search.views.drawing import curves, front, hypervolume

MAX_OTHERS = 100  # dominated points; every poll of the dashboard sends a figure again: it must stay small


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
    is_reduced = "reduction" in attributes.get(records.PIPELINE, ())
    title = records.in_words(trial) if curve else attributes.get(records.WORDS, "nothing was sampled")
    lines = [f"**trial {trial.number}**: {literal(title)}", ""]
    lines.append(f"* ended: {records.reason(trial).replace('_', ' ')}")
    if records.is_repeat(trial):
        lines.append(f"* times trial {records.first(trial)} again")
    if records.is_confirmation(trial):
        lines.append(f"* confirms trial {attributes[records.CONFIRM_OF]} with fresh seeds")
    if records.is_ablation(trial):
        lines.append(f"* {literal(without.told(attributes[records.ABLATION]))}")
    if disturbed := attributes.get(records.NOISY):
        lines.append(f"* disturbed: {disturbed}; undisturbed about {attributes[records.UNDISTURBED]:.2f} s")
    if records.MESSAGE in attributes:
        lines.append(f"* message: {literal(attributes[records.MESSAGE])}")
    if curve:
        epoch, seconds, accuracy, _ = curve[-1]
        took = records.in_seconds(seconds, attributes.get(records.WALL_SECONDS))
        reached = f"attempt {epoch - 1}" if is_reduced else f"epoch {epoch} of {records.n_epochs(trial)}"
        lines.append(f"* {reached}: {accuracy:.2%} after {took}")
        if modelled := attributes.get(records.MODELLED):
            lines.append(f"* {modelled[-1]:.4g} modelled seconds")
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
        kind = REDUCE if is_reduced else PARETO
        lines += ["", *table(timeline.header(kind), [timeline.cells(moment, kind) for moment in moments])]
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

    drawn = {"learning-curves": curves.learning(now), "hypervolume": hypervolume.figure(now)}
    if curves.has_sizes(now):
        drawn["network-sizes"] = curves.network_sizes(now)
    if now.front or now.baseline is not None:
        drawn["front"] = front.figure(now, MAX_OTHERS)
    for name, figure in drawn.items():
        storage.patiently(partial(save_plotly_graph_object, board, figure, graph_object_id=name))
