"""A study as one page: what stands in it, what does not, and what a browser makes of it."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from optuna.trial import FrozenTrial

from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from objectives.words import DIRECTIONS
from search import trial
from search.ablation.course import Course
from search.ablation.ingredients import taken_apart
from search.ablation.result import ablations
from search.database import storage
from search.database.storage import Database
from search.planning.promise import promised
from search.study import opening, queue, records, spec
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views import summary
from search.views.display import Display
from search.views.drawing import front, points, theme, waterfall
from search.views.report import budgets, facts, why
from search.views.report.classes import Examined, Mistake
from search.views.report.page import CONTENTS, NEED_FRONT, page
from search.workers.seam import TrialFault
from spaces.base import Given
from tests.search.conftest import FACTS, FORMATS, TOML, Scripted, report
from tests.search.place import REPOSITORY, Done
from tests.search.views.browser import CHROMIUM, WHY_NOT, browser

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' {{ 7 * 7 }}"
TURNED = "abc\u202egpj.exe\u2066"
CLASSES = [EVIL, TURNED, *(f"class {n}" for n in range(8))]
Script = list[tuple[float, float]] | BaseException


class Telling(Scripted):
    """Trainings that also tell of each class, and of a network that grows where they have three epochs."""

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        for each in super().reports(pipeline, seeds, whole=whole):
            size = f"8[{4 * each.epoch}]" if each.epochs == 3 else "8[8]"
            changes: dict[str, Any] = {"events": (EVIL + TURNED,)} if each.epochs == 3 else {}
            changes |= {
                "right": (4,) * 10,
                "architecture": size,
                "train_flops": 1e9 * each.epoch,
                "boundary_seconds": 0.01,
            }
            yield report(each.epoch, each.epochs, each.train_seconds, each.accuracy, **changes)


def trained(study: Study, scripts: Iterable[Script]) -> Snapshot:
    """The study after these trainings."""
    objective = Telling(list(scripts))
    for _ in objective.trainings:
        trial.run(study, study.ask(), objective, Display(), math.inf)
    return study.snapshot()


@pytest.fixture
def evil_study(study_file: Path, tmp_path: Path) -> Study:
    """A study with markup and turned text wherever strangers can put some: data, classes, description, messages."""
    described = TOML.replace('"digits"', json.dumps(f"folder:/{EVIL}{TURNED}", ensure_ascii=False))
    study_file.write_text(f"description = {json.dumps(EVIL + TURNED, ensure_ascii=False)}\n{described}")
    database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
    data = FACTS["data"] | {"classes": [[name, 25, "d"] for name in CLASSES]}
    told = {"about": f"{EVIL}\n{TURNED}", "warnings": [EVIL, TURNED], "validated": [5] * 10}
    return opening.created("tiny", spec.read(str(study_file))[1], database, FACTS | told | {"data": data}, FORMATS)


def whole(study: Study) -> Snapshot:
    """A study with all that a page can show: a front, BASELINE off it, fresh seeds, failures, one that runs."""
    queue.enqueue_anchors(study)
    n = len([t for t in study.trials() if t.state.name == "WAITING"])
    first: list[Script] = [[(2.0, 0.5), (8.0, 0.8)], [(1.0, 0.6), (2.0, 0.7)], [(1.0, 0.5), (2.0, 0.6), (3.0, 0.9)]]
    scripts = [*first, [(4.0, 0.5), (7.0, 0.98)], *[[(5.0, 0.4)]] * (n - 4)]
    trained(study, [*scripts, TrialFault("crash", EVIL), TrialFault("out_of_memory", TURNED)])
    for point in study.snapshot().front_trials[:2]:
        for _ in range(2):
            study.enqueue_afresh(point, {records.CONFIRM_OF: point.number})
    for waiting in [t for t in study.trials() if records.is_confirmation(t)]:
        trial.run(study, study.ask(waiting), Telling([[(2.0 + waiting.number / 100, 0.71)]]), Display(), math.inf)
    take_apart(study, study.snapshot().front_trials[0])
    study.ask()
    return study.snapshot()


def take_apart(study: Study, point: FrozenTrial) -> Snapshot:
    """The study after an ablation of a point, with a variant that breaks."""
    baseline = study.snapshot().baseline
    assert baseline is not None
    apart = taken_apart(records.pipeline(point), records.pipeline(baseline), study.given)
    course = Course(records.first(point), apart.variants, 2)
    objective = Telling([*[[(1.0 + n % 5, 0.6 + n % 3 / 10)] for n in range(3)], TrialFault("crash", EVIL)] * 20)
    while (asked := course.claim(study)) is not None:
        trial.run(study, asked, objective, Display(), math.inf)
    assert course.are_over(study.snapshot())
    return study.snapshot()


SEEN = Examined(2, CLASSES, [[5 * (i == j) for j in range(10)] for i in range(9)] + [[5] + [0] * 9], [
    Mistake(b"\xff\xd8\xff", CLASSES[9], EVIL, 0.9)
])  # fmt: skip


@dataclass
class Read(HTMLParser):
    """What is in a page."""

    sections: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    scripts: list[tuple[dict[str, str | None], str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    policy: str = ""
    text: str = ""  # of all but scripts and styles

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append(tag)
        self._inside = tag
        self.sections += [str(told["id"])] if tag == "section" else []
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        self.handlers += [name for name in told if name.startswith("on")]
        if tag == "script":
            self.scripts.append((told, ""))
        if told.get("http-equiv"):
            self.policy = str(told["content"])

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + data
        elif self._inside != "style":
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of the page, by name."""
        found: dict[str, Any] = json.loads(next(text for told, text in self.scripts if told.get("id") == "figures"))
        return found


def read(text: str) -> Read:
    found = Read()
    found.feed(text)
    return found


CASES: dict[str, Callable[[Study], Snapshot]] = {
    "empty": lambda study: study.snapshot(),
    "only failures": lambda study: trained(study, [TrialFault("crash", EVIL), TrialFault("hang", "x")]),
    "below the floor": lambda study: trained(study, [[(1.0, 0.1), (2.0, 0.15)]]),
    "one trial": lambda study: trained(study, [[(1.0, 0.5), (2.0, 0.9)]]),
    "all of it right": lambda study: trained(study, [[(1.0, 1.0)], [(2.0, 1.0)]]),
    "whole": whole,
}


@pytest.mark.parametrize("case", CASES)
def test_every_study_has_a_page_that_needs_nothing_else(case: str, evil_study: Study) -> None:
    now = CASES[case](evil_study)
    found = read(text := page(now, [SEEN], [EVIL], has_images=True))
    named = [name for name in CONTENTS if case == "whole" or name != "apart"]
    assert found.sections == [name for name in named if now.front or name not in NEED_FRONT]
    assert [each for each in found.references if not each.startswith(("#", "data:image/jpeg;base64,"))] == []
    assert set(re.findall(r"url\((.{0,9})|@import", text.partition("<body>")[0])) == set()
    drawn = found.figures["front"]["data"] if now.front else []
    marks = [trace for trace in drawn if trace["mode"] == "markers" and trace["name"] == "front"]
    assert sum(len(trace["x"]) for trace in marks) == len(now.front)


@pytest.mark.parametrize("case", ["only failures", "one trial", "whole"])
def test_names_and_messages_of_strangers_stay_text_and_turn_nothing(case: str, evil_study: Study) -> None:
    found = read(text := page(CASES[case](evil_study), [SEEN], [EVIL + TURNED], has_images=True))
    assert found.handlers == []
    assert found.tags.count("img") == 1  # the mistake
    ours: list[dict[str, str]] = [{"type": "application/json", "id": "figures"}, {}, {}]
    assert [told for told, _ in found.scripts] in (ours, [])  # where there is nothing to draw, none
    drawn = json.dumps(found.figures, ensure_ascii=False) if found.scripts else ""
    assert ("&lt;/script&gt;" in drawn) == (case == "whole")  # what strategies did, beside the pointer
    assert not re.search("<(?!br>|extra>|/extra>)", drawn)
    assert not set(text + drawn) & DIRECTIONS
    assert EVIL in found.text
    assert "abc\\u202egpj.exe\\u2066" in found.text
    assert "{{ 7 * 7 }}" in found.text


def test_a_browser_may_run_the_two_scripts_of_the_page_and_ask_for_nothing(evil_study: Study) -> None:
    found = read(page(whole(evil_study)))
    run = [text for told, text in found.scripts if not told]
    sums = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    allowed = dict(part.split(" ", 1) for part in found.policy.split("; "))
    assert allowed.pop("script-src").split() == [f"'sha256-{each}'" for each in sums]
    assert allowed == {"default-src": "'none'", "img-src": "data: blob:", "style-src": "'unsafe-inline'"}


def test_the_front_has_a_logarithmic_axis_names_intervals_baseline_and_what_is_plain(evil_study: Study) -> None:
    now = whole(evil_study)
    figure = front.figure(now)
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"dominated", "front without any strategy", "steps", "front", "BASELINE"}
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    assert "seconds" in figure.layout.xaxis.title.text
    assert "accuracy" in figure.layout.yaxis.title.text
    shown = points.on_front(now)
    assert list(traces["front"].x) == pytest.approx([each.cost.mean for each in shown])
    assert [1 - y for y in traces["front"].y] == pytest.approx([each.accuracy.mean for each in shown])
    for each, y, more, less in zip(
        shown, traces["front"].y, traces["front"].error_y.array, traces["front"].error_y.arrayminus, strict=True
    ):
        assert each.accuracy.interval is not None
        low, high = each.accuracy.interval
        assert (low, min(high, 1 - 0.5 / now.n_val)) == pytest.approx((1 - y - more, 1 - y + less))
    assert any(each.n_seeds for each in shown)
    assert all(f"trial {each.number}: " in said for each, said in zip(shown, traces["front"].text, strict=True))


def test_a_waterfall_leads_from_baseline_to_the_point_by_what_each_ingredient_did(evil_study: Study) -> None:
    now = whole(evil_study)
    (found,) = ablations(now)
    steps = waterfall.steps(found)
    assert [step.name for step in steps][-1] == waterfall.INTERPLAY
    assert len(steps) == 1 + sum(each.n_pairs > 0 for each in found.effects)
    assert found.together is not None
    assert 10 ** steps[0].seconds[0] == pytest.approx(found.seconds / found.together.factor[0])
    assert (10 ** steps[-1].seconds[1], steps[0].gain[0]) == pytest.approx((found.seconds, 0.0))
    assert steps[-1].gain[1] == pytest.approx(found.accuracy - found.together.accuracy)
    for one, after in pairwise(steps):
        assert (one.seconds[1], one.gain[1]) == (after.seconds[0], after.gain[0])
    figure = waterfall.figure(found)
    assert figure.layout.xaxis.type == "log"
    assert set(figure.layout.yaxis.categoryarray) == {"BASELINE", f"trial {found.point}", *(s.name for s in steps)}
    alone = waterfall.steps(replace(found, together=None))
    assert [step.name for step in alone] == [step.name for step in steps[:-1]]


@pytest.mark.parametrize("accuracies", [(0.1, 0.99), (0.97, 0.98), (1.0, 1.0), (0.5, 0.5)])
@pytest.mark.parametrize("seconds", [(0.01, 0.011), (0.3, 40.0), (5.0, 5.0), (1.0, 1e6), (1e-5, 1e7)])
def test_axes_have_a_few_ticks_and_hold_every_point(
    accuracies: tuple[float, float], seconds: tuple[float, float]
) -> None:
    figure = theme.new("")
    theme.seconds_axis(figure, seconds, "seconds")
    theme.errors_axis(figure, accuracies, 100)
    x, y = figure.layout.xaxis, figure.layout.yaxis
    assert x.range[0] < math.log10(seconds[0]) < x.range[1]
    assert x.range[0] < math.log10(seconds[1]) < x.range[1]
    assert all(y.range[1] < math.log10(theme.error(each, 100)) <= y.range[0] for each in accuracies)
    for axis in (x, y):
        assert 1 <= len(axis.tickvals) <= 12
        assert len(set(axis.ticktext)) == len(axis.ticktext)


def test_the_factors_of_a_point_come_to_its_speed_up(evil_study: Study) -> None:
    now = whole(evil_study)
    assert now.baseline is not None
    for each in now.front_trials:
        found = why.factors(each.user_attrs, now.baseline.user_attrs)
        assert math.prod(found.values()) == pytest.approx(now.baseline.values[0] / each.values[0])
    said = {each.number: why.sentence(each, now) for each in points.on_front(now)}
    fast = min(now.front, key=lambda point: point.cost)
    assert re.match(r"[\d.]+x as fast as BASELINE: ", said[fast.trial])


@pytest.mark.parametrize(("within", "trial_number"), [(0.5, None), (2.0, 0), (10.0, 1), (60.0, 2), (300.0, 2)], ids=str)
def test_the_answer_for_a_time_is_the_most_accurate_that_takes_no_longer(
    within: float, trial_number: int | None, new_study: Callable[..., Study]
) -> None:
    now = trained(new_study(stopping="none"), [[(2.0, 0.7)], [(10.0, 0.8)], [(40.0, 0.9)]])
    answers = budgets.answers(now)
    assert set(budgets.ASKED) <= {each.within for each in answers}
    *_, told = [None, *(each.point for each in answers if each.within <= within)]
    assert (told and told.number) == trial_number


def test_the_study_file_of_a_page_asks_for_the_same_study(evil_study: Study, tmp_path: Path) -> None:
    path = tmp_path / "again.toml"
    path.write_text("\n".join(facts.study_file(evil_study.snapshot())))
    assert spec.read(str(path))[1] == evil_study.spec


@pytest.mark.parametrize("path", sorted((REPOSITORY / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_the_study_file_of_a_page_asks_for_the_same_study_whatever_its_kind(path: Path, tmp_path: Path) -> None:
    name, asked = spec.read(str(path))
    told = Snapshot(name, asked, 0.0, cast(Given, None), (), {}, cast(Database, None), tmp_path)
    (tmp_path / "again.toml").write_text("\n".join(facts.study_file(told)))
    assert spec.read(str(tmp_path / "again.toml"))[1] == asked


@pytest.mark.parametrize("gain", [None, 0.0, 0.01])
def test_a_page_tells_of_the_network_of_all_images_what_the_command_line_tells(
    gain: float | None, evil_study: Study
) -> None:
    now = whole(evil_study)
    assert "Trained on all images" not in page(now)
    told = {**asdict(promised(0.8, 1, 50, 200, 250)), "trial": now.front[0].trial, "train_seconds": 2.0}
    told |= {"n_images": 250, **({} if gain is None else {"flip_gain": gain})}  # earlier versions told no gain
    refit = replace(now, attributes={**now.attributes, records.REFIT: told})
    text = html.unescape(page(refit))
    assert "Trained on all images" in text
    assert str(now.artifacts / "refit") in text
    assert all(line in text for line in summary.on_all_images(refit))


def test_a_password_in_the_place_of_a_study_is_in_no_page(study_file: Path, evil_study: Study) -> None:
    stored = evil_study.spec.model_copy(update={"storage": "postgresql://me:secret@host/base"})
    evil_study.optuna.set_user_attr("spec", stored.model_dump(mode="json"))
    assert "secret" not in page(opening.stored("tiny", evil_study.database).snapshot())


def test_the_command_writes_the_page_and_says_where(
    command: Callable[[str], Done], evil_study: Study, tmp_path: Path
) -> None:
    whole(evil_study)
    words = f"report --study tiny --storage {evil_study.database.url}"
    done = command(f"{words} --json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert Path(told["file"]) == tmp_path / "tiny.html"
    assert (tmp_path / "tiny.html").stat().st_size == told["bytes"] < 6e6
    assert set(told["why"]) == {str(each.number) for each in evil_study.snapshot().front_trials}
    assert command(f"{words} -o 'a b.html'").out.startswith("a b.html (4.")
    assert command(f"{words} -o {tmp_path}/none/x.html").code == 2
    assert command(words.replace("tiny ", "tinny ")).code == 2


def test_a_page_is_made_without_torch(evil_study: Study, tmp_path: Path) -> None:
    trained(evil_study, [[(1.0, 0.9)]])
    words = ["report", "--study", "tiny", "--storage", evil_study.database.url, "-o", str(tmp_path / "x.html")]
    script = f"import sys; from search.__main__ import main; main({words!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_page_of_a_thousand_trials_has_six_megabytes_at_most(evil_study: Study) -> None:
    now = whole(evil_study)
    one = now.front_trials[0]
    curve = [[epoch, epoch / 10, 0.5, 1.0] for epoch in range(1, 31)]
    trials = list(now.trials)
    for k in range(1000):
        made = copy.copy(one)
        made.number, made.values = len(trials), [1 + k / 100, 0.6 + (k if k % 40 == 0 else 0) / 3000]
        made.user_attrs = {**one.user_attrs, records.CURVE: curve}
        trials.append(made)
    text = page(replace(now, trials=tuple(trials)))
    assert len(read(text).figures["curves"]["data"]) > 60
    assert len(text.encode()) < 6e6


OVERLAPS = """
(() => {
  const boxes = [];
  for (const plot of document.querySelectorAll('.plot')) {
    const found = [...plot.querySelectorAll('.xtick text, .ytick text, .x2tick text, .xtitle, .ytitle, .x2title')];
    const here = found.map(text => ({said: text.textContent, box: text.getBoundingClientRect()}));
    const frame = plot.getBoundingClientRect();
    for (const one of here)
      if (one.box.left < frame.left - 1 || one.box.right > frame.right + 1 || one.box.bottom > frame.bottom + 1)
        boxes.push('cut: ' + one.said);
    here.forEach((one, i) => here.slice(i + 1).forEach(other => {
      const [a, b] = [one.box, other.box];
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
        boxes.push(one.said + ' | ' + other.said);
    }));
  }
  return boxes;
})()
"""


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)  # five seconds: a browser starts, and draws two pages of 5 MB
def test_a_browser_draws_every_mark_and_no_label_over_another(evil_study: Study, tmp_path: Path) -> None:
    now = whole(evil_study)
    (tmp_path / "page.html").write_text(text := page(now, [SEEN], [EVIL], has_images=True))
    assert "front" in read(text).figures
    with browser(tmp_path) as tab:
        for width, dark in ((1280, False), (400, True)):
            tab.open(tmp_path / "page.html", width, dark=dark)
            assert tab.complaints == []
            assert tab.requests == [(tmp_path / "page.html").as_uri()]
            assert tab.value("document.documentElement.scrollWidth") <= width
            counted = tab.value(
                "Plotly && [...document.querySelectorAll('[data-figure=front] .trace')].map(t => "
                "[t.__data__[0].trace.name, t.querySelectorAll('.point').length])"
            )
            assert dict(counted)["front"] == len(now.front) > 2
            assert dict(counted)["BASELINE"] == 1
            (apart,) = ablations(now)
            ends = f"document.querySelectorAll('[data-figure=ablation-{apart.point}] .point').length"
            assert tab.value(ends) == 2 * (2 + len(waterfall.steps(apart)))
            assert tab.value(OVERLAPS) == []
            sizes = (
                "[...document.querySelectorAll('.plot text')].map(text => parseFloat(getComputedStyle(text).fontSize))"
            )
            assert min(tab.value(sizes)) >= theme.TEXT
            assert EVIL.split("{{")[0].strip() in tab.value("document.body.innerText")
            assert tab.value("document.querySelectorAll('body img').length") == 1


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_what_matters_is_there_without_scripts(evil_study: Study, tmp_path: Path) -> None:
    now = whole(evil_study)
    (tmp_path / "page.html").write_text(re.sub(r"<script.*?</script>", "", page(now), flags=re.DOTALL))
    with browser(tmp_path) as tab:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)
        tab.open(tmp_path / "page.html")
        said = tab.value("document.body.innerText")
    for each in points.on_front(now):
        assert f"{100 * each.accuracy.mean:.2f}%" in said
        assert why.sentence(each, now) in said
    assert html.escape(EVIL) not in said
