"""The command that sets two fronts beside each other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search import trial
from search.database import storage
from search.proposals.effects import Change, Effect
from search.study import opening, records, spec
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views.comparison import comparable
from search.views.comparison.compared import Moved
from search.views.display import Display
from tests.search.conftest import FACTS, FORMATS, TOML, Scripted
from tests.search.place import Done
from tests.search.views.browser import CHROMIUM, WHY_NOT, browser

Command = Callable[[str], Done]
Make = Callable[..., Study]
SLOW = [[(1.0, 0.5)], [(2.0, 0.9)], [(4.0, 0.92)], [(4.0, 0.7)]]
FAST = [[(0.5, 0.88)], [(1.0, 0.98)], [(1.5, 1.0)], [(0.4, 0.8)]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes studies of given results, with other facts or sections; the second trial has a fresh seed."""

    def made(name: str, results: list[Any], file: str = "studies", more: str = "", **facts: Any) -> Study:
        path = tmp_path / f"{name}.toml"
        path.write_text(TOML.replace("[data]", f"{more}\n[data]", 1))
        read = spec.read(str(path))[1]
        search = {"stopping": "none", "fastest": 0.2, "slowest": 20.0, "floor": 0.3}
        changed = read.model_copy(update={"search": read.search.model_copy(update=search)})
        database = storage.open_storage(f"sqlite:///{tmp_path}/{file}.db")
        known = FACTS | {key: FACTS[key] | value if isinstance(value, dict) else value for key, value in facts.items()}
        study = opening.created(name, changed, database, known, FORMATS)
        objective = Scripted([*results, results[1]])
        for _ in results:
            trial.run(study, study.ask(), objective, Display(), math.inf)
        study.enqueue_afresh(study.trials()[1], {records.CONFIRM_OF: 1})
        trial.run(study, study.ask(study.trials()[-1]), objective, Display(), math.inf)
        return study

    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    return made


@pytest.fixture
def compare(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    return lambda words: command(f"compare {words}")


def told(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_front_that_dominates_is_named_and_the_same_one_twice_is_not_told_apart(make: Make, compare: Command) -> None:
    make("slow", SLOW)
    make("fast", FAST)
    found = told(compare("slow fast --json"))
    low, high = found["hypervolume_difference"]["interval"]
    assert low < high < 0
    assert "that of fast dominates more" in found["sentences"][0]
    assert any("within 2 s: fast by" in each for each in found["sentences"])
    assert [each["study"] for each in (found["a"], found["b"])] == ["slow", "fast"]
    assert [each["trials"] for each in (found["a"], found["b"])] == [4, 4]
    other = told(compare("fast slow --json"))
    assert other["hypervolume_difference"]["mean"] == pytest.approx(-found["hypervolume_difference"]["mean"])
    assert other["box"] == found["box"] == {"fastest": 0.2, "slowest": 20.0, "useful": 0.3, "n_images": 50}
    same = told(compare("slow slow --json"))
    assert same["hypervolume_difference"]["mean"] == 0
    assert "nothing says that one front dominates more" in same["sentences"][0]
    assert any("At no cost do the intervals say" in each for each in same["sentences"])


def test_people_are_told_the_same_with_a_plot_of_both_fronts(make: Make, compare: Command) -> None:
    make("slow", SLOW)
    make("fast", FAST)
    lines = compare("slow fast").out.splitlines()
    assert lines[0] == "slow against fast"
    assert lines[2].endswith("● slow  ○ fast")
    assert sum(line.count("●") for line in lines[3:20]) == 3
    assert sum(line.count("○") for line in lines[3:20]) == 4
    for sentence in told(compare("slow fast --json"))["sentences"]:
        assert f"- {sentence}" in lines
    row = next(line for line in lines if line.lstrip().startswith("1 s"))
    assert "98.00%" in row
    assert row.endswith("-48.00 ±14.29")
    assert "1000 draws of as many trials" in lines[-1]


UNLIKE: list[tuple[dict[str, Any], str]] = [
    ({"data": {"content": "other"}}, "other images or labels"),
    ({"data": {"name": "folder", "content": "other"}}, "other data (digits and folder)"),
    ({"data": {"size": 16, "content": "other"}}, "other images (8 pixels in grey and 16 pixels in grey)"),
    ({"data": {"split": "other"}}, "another split into validation images"),
    ({"data": {"split": "other", "n_val": 60}}, "other validation images (50 beside 200 to train and 60 beside 200 "),
    ({"device": {"model": "another processor"}}, "another device (a processor and another processor)"),
    ({"device": {"torch": "2.11"}}, "another device (torch 2.13.0 and 2.11)"),
    ({"timing_version": 2}, "seconds measured in another way (timing version 1 and 2)"),
]


def test_what_is_not_comparable_is_said_and_what_is_no_matter_only_remarked(make: Make) -> None:
    now = make("one", SLOW).snapshot()

    def changed(facts: dict[str, Any]) -> Snapshot:
        old = now.attributes[records.IDENTITY]
        new = old | {key: old[key] | value if isinstance(value, dict) else value for key, value in facts.items()}
        return replace(now, attributes={**now.attributes, records.IDENTITY: new})

    assert comparable.obstacles(now, now) == comparable.remarks(now, now) == []
    for facts, said in UNLIKE:
        (found,) = comparable.obstacles(now, changed(facts))
        assert found.startswith(said)
    balanced = replace(now, spec=now.spec.model_copy(update={"metric": "balanced"}))
    assert comparable.obstacles(now, balanced) == ["another accuracy (plain and balanced)"]
    other = changed({"workers": 2, "family": "thin"})
    assert comparable.obstacles(now, other) == []
    assert [each.partition(":")[0] for each in comparable.remarks(now, other)] == [
        "workers that share the machine, which changes seconds a little",
        "family of the networks",
    ]


def test_what_is_not_comparable_is_refused_in_one_line_unless_it_is_meant(make: Make, compare: Command) -> None:
    make("one", SLOW)
    make("two", SLOW, data={"content": "other"})
    done = compare("one two")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: one and two are not comparable: other images or labels: --anyway compares them all the same\n"
    )
    found = told(compare("one two --anyway --json"))
    assert found["obstacles"] == ["other images or labels"]
    assert found["sentences"][0].startswith("Not comparable: other images or labels: what follows may come from that")


def test_a_study_is_a_name_or_a_file_with_a_name_where_it_holds_several(
    make: Make, compare: Command, new_study: Callable[..., Study]
) -> None:
    make("slow", SLOW)
    make("fast", FAST)
    make("slow", FAST, file="old:er")
    assert "slow of studies against slow of old:er" in compare("slow old:er.db").out
    assert "fast against slow" in compare("studies.db:fast old:er.db:slow").out
    new_study("bare")
    for words, said in (
        ("slow none", "there is no study 'none'"),
        ("slow none.db", "there is no database file none.db: name a study, FILE.db, or FILE.db:NAME"),
        ("slow studies.db", "holds 3 studies (bare, fast, slow): name one, FILE:NAME"),
        ("slow studies.db:none", "there is no study 'none'"),
        ("slow bare", "study bare has no front yet"),
        ("slow fast -o no/where.html", "/no: make it"),
    ):
        done = compare(words)
        assert (done.code in (2, 4), done.out, done.err.count("\n")) == (True, "", 1), done.err
        assert said in done.err


def test_of_strategies_only_what_is_sure_with_all_looked_at_together_is_told() -> None:
    def effect(seconds: float, error: float) -> Effect:
        return Effect("grow", 9, Change(seconds, 0.1), Change(error, 0.1), 0.3, 2)

    def moved(seconds: float, error: float, n_looks: int) -> tuple[bool, bool]:
        found = Moved("grow", effect(0.0, 0.0), effect(seconds, error), n_looks)
        return found.holds(found.seconds), found.holds(found.error)

    half = math.hypot(0.1, 0.1)
    assert moved(1.01 * half, 0.99 * half, 1) == (True, False)
    assert moved(1.3 * half, -1.7 * half, 40) == (False, True)  # 3.24 instead of 1.96 standard deviations


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_a_browser_draws_both_fronts_and_takes_no_markup(make: Make, compare: Command, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    make("slow", SLOW)
    make("fast", FAST, device={"model": evil})
    done = compare("slow fast --anyway -o page.html")
    assert "the page is page.html" in done.err
    with browser(tmp_path) as tab:
        for width in (1280, 400):
            tab.open(tmp_path / "page.html", width)
            assert tab.complaints == []
            assert tab.requests == [(tmp_path / "page.html").as_uri()]
            assert tab.value("document.documentElement.scrollWidth") <= width
            drawn = tab.value(
                "[...document.querySelectorAll('[data-figure=fronts] .trace')].map(t => "
                "[t.__data__[0].trace.name, t.querySelectorAll('.point').length])"
            )
            assert (dict(drawn)["slow"], dict(drawn)["fast"]) == (3, 4)
            assert evil in tab.value("document.body.innerText")
            assert tab.value("document.querySelectorAll('body img').length") == 0
