"""The report of a study as one HTML page that needs nothing else: no network, and for what matters no JavaScript.

How that is done: see `search.views.report.offline`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from objectives.words import counted
from search.ablation.result import Ablation, ablations
from search.proposals.effects import Effect, effects
from search.study import records
from search.study.snapshot import Snapshot
from search.views import effects as effect_words
from search.views import summary, timeline
from search.views.ablation import page as apart
from search.views.drawing import curves, front, hypervolume, points, theme, waterfall
from search.views.drawing import effects as effects_drawn
from search.views.page import picture
from search.views.reduction import against
from search.views.report import budgets, classes, facts, offline, spent, why
from search.views.report.classes import Examined

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_IN_MATRIX = 30  # classes of a confusion matrix: of more no cell can be read
CONTENTS = {
    **{
        "front": "Front",
        "budgets": "In how much time",
        "why": "Why it is fast",
        "effects": "Strategies",
        "apart": "Ablations",
    },
    **{"hypervolume": "Hypervolume", "curves": "Curves", "seconds": "Seconds", "surgery": "Sizes"},
    **{"classes": "Classes", "failures": "Failures", "data": "Data", "again": "To do it again"},
}
OF_REDUCTIONS = {"budgets": "In how many FLOPs", "why": "How small it is"}  # which have no strategies
NEED_FRONT = ("budgets", "why")
LEGENDS = {  # (class of the mark in report.css, what it is): plotly's own run into the axes of a narrow figure
    "front": (
        ("front", "front"),
        ("plain", "front without any strategy"),
        ("baseline", "BASELINE"),
        ("before", "before"),
        ("", "dominated"),
    ),
    "effects": (("gained", "faster, or more accurate"), ("lost", "slower, or less accurate"), ("", "undecided")),
    "curves": (("front", "front"), ("", "other trials"), ("dotted", "stopped early")),
    "sizes": (("front", "front"), ("", "other trials"), ("dotted", "stopped early")),
}


def page(
    now: Snapshot,
    examined: Sequence[Examined] = (),
    unseen: Sequence[str] = (),
    *,
    has_images: bool = False,
    behind: str = "",
) -> str:
    """The page.

    `examined`: what was seen of networks, `unseen`: why others were not; see `search.commands.fronts.report`. `behind`:
    where the trials can be seen one by one, if anywhere.
    """
    templates = offline.environment(offline.HERE, apart.HERE)
    templates.filters |= _filters()
    found, taken_apart = effects(now), _taken_apart(now)
    figures = drawn(now, found, taken_apart)
    seen = {
        **{
            "examined": examined,
            "unseen": unseen,
            "has_images": has_images,
            "behind": behind,
            "most_in_matrix": MOST_IN_MATRIX,
        },
        "shades": {each.trial: classes.shades(each) for each in examined},
        "worst": {each.trial: classes.worst(each) for each in examined},
    }
    shown = {
        **_front(now),
        **_search(now, found),
        **_study(now),
        **seen,
        "figures": figures,
        "legends": _legends(figures),
        "ablations": [apart.shown(each, now) for each in taken_apart],
        **offline.trusted(figures),
    }
    return templates.get_template("report.html").render(now=now, **shown)


def contents(now: Snapshot) -> dict[str, str]:
    """The sections of the page, and what leads to them."""
    named = {**CONTENTS} if now.kind.trains else {**CONTENTS, **OF_REDUCTIONS}
    if not now.kind.is_timed:
        del named["effects"]
    if not _taken_apart(now):
        del named["apart"]
    return {key: name for key, name in named.items() if now.front or key not in NEED_FRONT}


def _taken_apart(now: Snapshot) -> list[Ablation]:
    """The ablations that say something."""
    return [each for each in ablations(now) if each.has_pairs]


def drawn(now: Snapshot, found: Sequence[Effect], taken_apart: Sequence[Ablation] = ()) -> dict[str, go.Figure]:
    """The figures of which there is something to draw; their titles stand above them in the page."""
    figures = {}
    if now.front or now.baseline is not None:
        figures["front"] = front.figure(now)
    if effects_drawn.known(found):
        figures["effects"] = effects_drawn.figure(found)
    if hypervolume.steps(now)[0]:
        figures["hypervolume"] = hypervolume.figure(now)
    if curves.has_curves(now):
        figures["curves"] = curves.learning(now)
    if curves.has_sizes(now):
        figures["sizes"] = curves.network_sizes(now)
    figures |= {f"ablation-{each.point}": waterfall.figure(each) for each in taken_apart}
    offline.untitled(figures)
    return figures


def _legends(figures: Mapping[str, go.Figure]) -> dict[str, list[tuple[str, str]]]:
    """What stands below each figure: of the front only what is drawn in it."""
    told = {name: list(LEGENDS.get(name, ())) for name in figures}
    if "front" in figures:
        traces = {trace.name for trace in figures["front"].data}
        told["front"] = [(look, words) for look, words in told["front"] if words in traces]
    return told


def _front(now: Snapshot) -> dict[str, object]:
    """What the page says of the points of the front."""
    shown, baseline = points.on_front(now), points.baseline(now)
    listed = [*shown, *([baseline] if baseline else [])]
    tests = {
        each.number: f"{100 * found.test.mean:.2f}%"
        for each in listed
        if (found := now.confirmed_of(each.trial)) is not None and found.test is not None
    }
    return {
        "front": shown,
        "of_all": summary.on_all_images(now),
        "baseline": baseline,
        "baseline_is_on_front": baseline is not None and baseline.number in {each.number for each in shown},
        "tests": tests,
        "has_test": bool(tests),
        "has_seeds": any(each.n_seeds for each in listed),
        "marks": _marks(listed),
        "budgets": budgets.answers(now) if shown else [],
        "sentences": {each.number: why.sentence(each, now) for each in shown},
        "networks": {each.number: str(now.artifacts / f"trial-{each.number:05d}") for each in shown},
        "parts": spent.parts(shown),
        "recalls": classes.recalls(now),
        "surgery": [
            (each.number, [timeline.cells(moment, now.kind) for moment in moments])
            for each in shown
            if (moments := records.timeline(each.trial))
        ],
        "surgery_columns": timeline.header(now.kind),
        **_smaller(listed, now.base),
    }


def _smaller(listed: Sequence[points.Shown], base: Mapping[str, Any] | None) -> dict[str, object]:
    """What the page says of networks beside the one that they were made of."""
    if base is None:
        return {"smaller": {}, "smaller_columns": (), "before": ""}
    cells = {each.number: against.cells(each.cost.mean, each.accuracy.mean, each.trial, base) for each in listed}
    return {"smaller": cells, "smaller_columns": against.COLUMNS, "before": against.of_base(base)}


def _marks(listed: Sequence[points.Shown]) -> list[str]:
    """What is to be known of the rows of the table."""
    said = []
    if any(each.n_seeds for each in listed):
        said += ["They are means of fresh seeds where the search measured something else."]
    if any(not each.n_seeds for each in listed):
        said += ["Without fresh seeds, intervals come from the number of images."]
    if any(each.is_alike for each in listed):
        said += ["~ As accurate as a cheaper one, for all that is known."]
    if any(each.is_disturbed for each in listed):
        said += ["* Other work disturbed the device when it was timed."]
    return said


def _search(now: Snapshot, found: Sequence[Effect]) -> dict[str, object]:
    """What the page says of the search."""
    steps, total = hypervolume.steps(now)
    volume = steps[-1].volume if steps else 0.0
    return {
        "effects": [effect_words.row(each) for each in found],
        "total_seconds": total,
        "volume": volume,
        "half_after": next((step.seconds for step in steps if step.volume >= volume / 2), 0.0),
        "shares": spent.shares(now),
        "endings": spent.endings(now),
    }


def _study(now: Snapshot) -> dict[str, object]:
    """What the page says of the study as a whole."""
    counts = now.counts
    last = max((trial.datetime_complete for trial in now.trials if trial.datetime_complete), default=None)
    ended = f"{counted(counts.complete, 'trial')} complete, {counts.pruned} stopped early, {counts.failed} failed"
    when = f"; the last one ended {last:%Y-%m-%d %H:%M}" if last else ""
    return {
        "ended": f"{ended}{when}.",
        "n_running": sum(trial.state == TrialState.RUNNING for trial in now.trials),
        "nothing": _nothing(now),
        "contents": list(contents(now).items()),
        "data": facts.data(now),
        "again": facts.again(now),
        "commands": facts.commands(now),
        "study_file": facts.study_file(now),
    }


def _nothing(now: Snapshot) -> list[str]:
    """Why there is no front, where there is none."""
    if now.front:
        return []
    if not any(trial.state.is_finished() for trial in now.trials):
        return ["No trial has finished yet."]
    return summary.nothing_passed(now) or ["No trial has trained to its end."]


def _filters() -> dict[str, Any]:
    return {
        **{"pipeline": records.in_words, "counted": counted, "picture": picture},
        **{
            "units": theme.in_units,
            "cost": points.number,
            "plain": lambda plain: json.dumps(plain, ensure_ascii=False),
        },
    }
