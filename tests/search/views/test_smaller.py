"""Studies of kind `reduce`, told: FLOPs wherever those of trainings say seconds, and what they cannot is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from search import trial
from search.database import storage
from search.pareto.kinds import PARETO, REDUCE, Kind
from search.study import opening, records, spec
from search.study.study import Study
from search.views import figures
from search.views.display import Display
from search.views.drawing import curves, front, hypervolume, points, theme
from search.views.report import budgets, facts, why
from search.views.report.page import contents, page
from tests.search.conftest import FACTS, FORMATS, Scripted, report
from tests.search.place import Done
from tests.search.views.test_report import read

TOML = """
kind = "reduce"
[data]
name = "digits"
n_train = 200
[network]
family = "small"
[reduce]
iterations = [2, 3]
[reduce.base]
epochs = 4
[search]
n_trials = 6
"""
BASE = {
    **{"weights": "w", "pipeline": Pipeline(epochs=4).to_json(), "architecture": "8[8]", "is_measured": True},
    **{"accuracy": 0.9, "inference_flops": 4e6, "n_parameters": 9000},
}
BESTS = ((0.91, 3e6), (0.9, 1.5e6), (0.8, 3.5e6), (0.89, 0.5e6))  # (accuracy, FLOPs) that reductions come to


class Smaller(Scripted):
    """Reductions of one attempt each, which is accepted."""

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        accuracy, flops = BESTS[len(self.trained)]
        self.trained.append(pipeline)
        before: dict[str, Any] = {"architecture": "8[8]", "inference_flops": 4e6, "n_parameters": 9000}
        after: dict[str, Any] = {"architecture": "8[4]", "inference_flops": flops, "n_parameters": 3000}
        yield report(1, 2, 0.0, 0.9, **before)
        yield report(2, 2, 5.0, accuracy, **after)


@pytest.fixture
def smaller(command: Callable[[str], Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of four reductions, three of them on its front, in the database of all commands."""
    (tmp_path / "smaller.toml").write_text(TOML)
    url = f"sqlite:///{tmp_path}/studies.db"
    monkeypatch.setenv("OPTUNA_STORAGE", url)
    read_spec = spec.read(str(tmp_path / "smaller.toml"))[1]
    made = opening.created("smaller", read_spec, storage.open_storage(url), {**FACTS, records.BASE: BASE}, FORMATS)
    objective = Smaller([])
    for _ in BESTS:
        trial.run(made, made.ask(), objective, Display(), math.inf)
    return made


def test_its_page_tells_flops_and_what_it_was_and_no_speed(smaller: Study, tmp_path: Path) -> None:
    now = smaller.snapshot()
    found = read(page(now))
    assert found.sections == list(contents(now))
    assert not {"effects"} & {*found.sections}
    assert not re.search(
        r"speed-up|as fast|seconds of training|training time|BASELINE has not|strategy did", found.text
    )
    for said in (
        "made of one of 4.0000 MFLOP, 9,000 parameters and 90.00%",
        "2.67x",
        "8.00x",
        "3,000",
        "50% of before",
    ):
        assert said in found.text, said
    assert [round(each.cost) for each in now.front] == [500_000, 1_500_000, 3_000_000]
    sentences = [why.sentence(each, now) for each in points.on_front(now)]
    assert sentences[0].startswith("8.00x fewer FLOPs and 3.00x fewer parameters than before. As accurate")
    told = {each.words: each.point and each.point.number for each in budgets.answers(now)}
    assert (told["10% of before"], told["50% of before"]) == (None, 1)
    (tmp_path / "again.toml").write_text("\n".join(facts.study_file(now)))
    assert spec.read(str(tmp_path / "again.toml"))[1] == now.spec


def test_its_figures_have_axes_of_flops_with_ticks_in_their_units(smaller: Study) -> None:
    now = smaller.snapshot()
    drawn = {"front": front.figure(now), "curves": curves.learning(now)}
    for figure in drawn.values():
        axis = figure.layout.xaxis
        assert axis.title.text == "FLOPs of an inference"
        assert all(tick.endswith(" MFLOP") or tick.endswith(" kFLOP") for tick in axis.ticktext)
    traces = {trace.name: trace for trace in drawn["front"].data}
    assert {"front", "before"} <= {*traces}
    assert "front without any strategy" not in traces
    assert (list(traces["front"].x), list(traces["before"].x)) == ([0.5e6, 1.5e6, 3e6], [4e6])
    assert traces["front"].text[0].startswith("trial 3: 89.00% (77.4 to 95.0) with 0.5 MFLOP")
    assert any(
        "attempt 1: 89.00% with 0.5 MFLOP" in text for trace in drawn["curves"].data for text in trace.text or ()
    )
    assert "decades of FLOPs" in hypervolume.figure(now).layout.title.text
    assert "reductions" in hypervolume.figure(now).layout.xaxis.title.text
    assert "seconds of the reduction" in curves.network_sizes(now).layout.xaxis.title.text
    assert "attempt" in figures.note(now.trials[0])
    assert "| attempt |" in figures.note(now.trials[0])


def test_the_best_of_it_is_asked_for_by_flops(smaller: Study, command: Callable[[str], Done]) -> None:
    done = command("best --study smaller --under-mflop 2")
    first, _, third, *others = done.out.splitlines()
    assert first.startswith("trial 1: 90.00% with 1.5 MFLOP (of a single run; ")
    assert third.endswith("2.67x fewer FLOPs and 3.00x fewer parameters than before, of 4.0000 MFLOP, 9,000 parameters "
                          "and 90.00%")  # fmt: skip
    assert [line.partition(":")[0] for line in others[-2:]] == ["smaller   trial 3", "better    trial 0"]
    told = json.loads(command("best --study smaller --min-accuracy 0.9 --json").out)["best"]
    assert (told["inference_flops"], told["inference_flops_interval"]) == (1.5e6, None)
    assert not [key for key in told if "seconds" in key or "cost" in key]
    within = json.loads(command("report --study smaller --json").out)["within"]
    assert {"inference_flops": 2e6, "trial": 1} in within


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("best --under-seconds 60", "is one of accuracy over MFLOP of an inference: ask with --under-mflop M"),
        ("export -o x --under-seconds 60", "ask with --under-mflop M"),
        (
            "best --under-mflop 0.1",
            "of 'smaller' has 0.1 MFLOP or less: the smallest is trial 3: 89.00% with",
        ),
        ("simulate", "study 'smaller' minimises MFLOP of an inference: what is simulated is seconds of a clock"),
        ("record", "study 'smaller' minimises MFLOP of an inference: what is recorded is seconds of a clock"),
    ],
)
def test_what_is_of_seconds_is_refused_in_one_line(
    words: str, said: str, smaller: Study, command: Callable[[str], Done], tmp_path: Path
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "smaller.toml").rename(tmp_path / "studies" / "smaller.toml")
    name, *flags = words.split()
    done = command(" ".join([name, "--study", smaller.name, *flags]))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


@pytest.mark.parametrize(
    ("kind", "cost", "said"),
    [
        *((PARETO, cost, said) for cost, said in ((0.5, "0.5 s"), (90, "90 s"), (300, "5 min"), (7200, "2 h"))),
        *((REDUCE, cost, said) for cost, said in ((5e2, "500 FLOP"), (2e4, "20 kFLOP"), (1.5e6, "1.5 MFLOP"))),
        (REDUCE, 1.2e9, "1.2 GFLOP"),
    ],
)
def test_costs_are_said_in_units_that_people_use(kind: Kind, cost: float, said: str) -> None:
    assert theme.in_units(cost, kind) == said


@pytest.mark.parametrize("costs", [(2e4, 3e9), (7e5, 8e5), (1e6, 1e6), (1e6, 1e13)])
def test_axes_of_flops_have_a_few_ticks(costs: tuple[float, float]) -> None:
    figure = theme.new("")
    theme.cost_axis(figure, costs, REDUCE)
    axis = figure.layout.xaxis
    assert axis.range[0] < math.log10(costs[0]) <= math.log10(costs[1]) < axis.range[1]
    assert 1 <= len(axis.tickvals) <= 12
    assert len({*axis.ticktext}) == len(axis.ticktext)
