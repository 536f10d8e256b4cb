"""Markup in names and messages is shown as it is written: in notes, in figures, in the dashboard's pages."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # rich has it
from optuna.trial import FrozenTrial

from objectives.pipeline import Pipeline, Report
from objectives.task import Seeds
from search import trial
from search.database import storage
from search.study import opening, records, spec
from search.study.study import Study
from search.views import figures
from search.views.display import Display
from search.views.drawing import curves, front, hypervolume
from search.workers.seam import TrialFault
from tests.search.conftest import FACTS, FORMATS, TOML, Scripted, report
from tests.search.place import Place

EVIL = "<img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium")


@given(st.text() | st.sampled_from([EVIL, "1. a", "    a", "`a` $a$ [a](b:c) &lt; www.a.b", "a\n\n<b>\r\n# c"]))
def test_literal_text_is_rendered_as_it_is(text: str) -> None:
    rendered = MarkdownIt("commonmark", {"html": True}).render(figures.literal(text))
    shown = " ".join(text.split()).replace("\0", "\ufffd")
    assert html.unescape(rendered) == (f"<p>{shown}</p>\n" if shown else "")
    assert rendered.count("<") == (2 if shown else 0)


@given(st.text() | st.sampled_from(["a|b", "\\|", "\\\\|", "|", "a | b \\", "---", EVIL]))
def test_a_cell_of_a_table_is_rendered_as_it_is(text: str) -> None:
    said = "\n".join(figures.table(["one", "other"], [[text, "x"], ["", text]]))
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(said)
    shown = " ".join(text.split()).replace("\0", "\ufffd")
    cells = re.findall(r"<td>(.*?)</td>", rendered, re.DOTALL)
    assert [html.unescape(cell) for cell in cells] == [shown, "x", "", shown]


@pytest.fixture
def evil_study(study_file: Path, tmp_path: Path) -> Study:
    """A study with markup wherever a stranger can put some: paths, description, messages, events."""
    described = TOML.replace('"digits"', f'"folder:/{EVIL}"')
    study_file.write_text(f'description = "{EVIL}"\n{described}')
    database = storage.open_storage(f"sqlite:///{tmp_path}/studies.db")
    facts = FACTS | {"data": FACTS["data"] | {"name": f"folder:/{EVIL}"}}
    made = opening.created("tiny", spec.read(str(study_file))[1], database, facts, FORMATS)
    for fault in (TrialFault("crash", f"cannot read {EVIL}/\n\n{EVIL}.png"), TrialFault("out_of_memory", EVIL)):
        trial.run(made, made.ask(), Scripted([fault]), Display(), float("inf"))

    class Eventful(Scripted):
        def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
            yield report(1, 1, 2.0, 0.9, events=(EVIL,))

    class Growing(Scripted):
        def reports(self, pipeline: Pipeline, seeds: Seeds) -> Generator[Report]:
            yield report(1, 2, 1.0, 0.8, events=(EVIL,), architecture="8[8]")
            yield report(2, 2, 3.0, 0.95, architecture="9[8]")

    for objective, attribute in ((Eventful([]), records.EVENTS), (Growing([]), records.TIMELINE)):
        number, _ = trial.run(made, made.ask(), objective, Display(), float("inf"))
        assert made.trials()[number].user_attrs[attribute]
    for ended in made.trials()[:4]:
        figures.note_trial(made.optuna, made.trials()[ended.number])
    figures.save(made.optuna, made.snapshot())
    return made


def test_no_note_and_no_figure_holds_markup_of_others(evil_study: Study) -> None:
    def rendered(ended: FrozenTrial) -> str:
        return MarkdownIt("commonmark", {"html": True}).enable("table").render(figures.note(ended))

    notes = [rendered(ended) for ended in evil_study.trials()[:4]]
    assert all(html.escape(EVIL) in note and "<img" not in note for note in notes)
    now = evil_study.snapshot()
    for figure in (front.figure(now), curves.learning(now), hypervolume.figure(now), curves.network_sizes(now)):
        assert "<img" not in figure.to_json()


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
@pytest.mark.parametrize("page", ["", "/trials?numbers=0"])
def test_a_browser_takes_no_markup_from_the_dashboard(page: str, evil_study: Study, tmp_path: Path) -> None:
    with served(Place(tmp_path), evil_study) as url:
        dom = subprocess.run(
            [str(CHROMIUM), "--headless=new", "--no-sandbox", "--virtual-time-budget=15000", "--dump-dom", url + page],
            **{"capture_output": True, "text": True, "timeout": 60},
        ).stdout
    assert html.escape(EVIL) in dom
    assert "<img" not in dom


@contextmanager
def served(place: Place, study: Study) -> Iterator[str]:
    """The address of the study's page."""
    words = ("dashboard", "--study", study.name, "--storage", study.database.url, "--port", "0")
    with place.started(*words, module="search") as process:
        assert process.stdout is not None
        process.stdout.readline()  # our own page
        yield process.stdout.readline().split()[0]
