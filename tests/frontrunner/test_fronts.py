"""A front in Python: what the command `best` tells, as frozen records."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

import frontrunner
from search import trial
from search.database import storage
from search.study import records
from search.study.study import Study
from search.views.display import Display
from tests.search.conftest import Scripted
from tests.search.place import Done


@pytest.fixture
def study(new_study: Callable[..., Study]) -> Study:
    """Three points, the cheapest of which has a fresh seed."""
    made = new_study(stopping="none")
    objective = Scripted([[(1.0, 0.5)], [(2.0, 0.9)], [(4.0, 0.92)], [(1.2, 0.46)]])
    for _ in range(3):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    made.enqueue_afresh(made.trials()[0], {records.CONFIRM_OF: 0})
    trial.run(made, made.ask(made.trials()[-1]), objective, Display(), math.inf)
    return made


LIMITS: list[dict[str, float]] = [
    {},
    {"under_seconds": 3.0},
    {"min_accuracy": 0.4},
    {"min_accuracy": 0.91},
    {"within": 2.5},
    {"within": 50.0, "under_seconds": 10.0},
]


def test_the_best_is_what_the_command_says_whatever_is_asked(study: Study, command: Callable[[str], Done]) -> None:
    loaded = frontrunner.load("tiny", study.database.url)
    for limits in LIMITS:
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in limits.items())
        told = json.loads(command(f"best --study tiny --storage {study.database.url} --json {flags}").out)["best"]
        found = loaded.best(**limits)  # type: ignore[arg-type]
        assert (found.trial, found.seconds, found.accuracy, found.n_seeds) == (
            *(told["trial"], told["train_seconds"], told["accuracy"], told["n_seeds"]),
        ), limits
        assert (list(found.interval), str(found.network)) == (told["interval"], told["network"])
        assert (found.pipeline.to_json(), found.words) == (told["pipeline"], told["pipeline_words"])
        assert found in loaded.front()


def test_a_front_is_frozen_records_by_rising_seconds_and_shows_itself(study: Study) -> None:
    front = frontrunner.load("tiny", study.database.url).front()
    assert [(each.trial, each.seconds, each.n_seeds) for each in front] == [(0, 1.2, 1), (1, 2.0, 0), (2, 4.0, 0)]
    assert len({*front}) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        front[0].seconds = 0.0  # type: ignore[misc]
    header, first, *_ = repr(front).splitlines()
    assert header.split() == ["trial", "seconds", "accuracy", "interval", "seeds", "pipeline"]
    assert first.split()[:3] == ["0", "1.2", "46.00%"]
    assert repr(front[1]).startswith("<trial 1 of tiny: 90.00% in 2 s: ")
    assert front._repr_html_().count("<tr>") == 4
    stranger = dataclasses.replace(front[0], words="<script>alert(1)</script>")
    assert "<script>" not in frontrunner.Front([stranger])._repr_html_() + stranger._repr_html_()
    assert repr(frontrunner.Front()) == "<an empty front>"


def test_a_study_is_read_anew_each_time(study: Study) -> None:
    loaded = frontrunner.load("tiny", study.database.url)
    before = loaded.front()
    trial.run(study, study.ask(), Scripted([[(0.5, 0.97)]]), Display(), math.inf)
    assert [each.trial for each in before] == [0, 1, 2]
    assert [each.trial for each in loaded.front()] == [4]
    assert "1 points on its front" in repr(loaded) or "1 point on its front" in repr(loaded)
    assert loaded.effects() == ()


def test_a_database_that_holds_one_study_names_it_by_its_path(
    study: Study, new_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "studies.db"
    assert frontrunner.load(path).name == frontrunner.load("tiny", path).name == "tiny"
    monkeypatch.setenv("OPTUNA_STORAGE", study.database.url)
    assert frontrunner.load("tiny").front() == frontrunner.load(path).front()
    new_study("other")
    with pytest.raises(ValueError, match=r"holds 2 studies \(other, tiny\): load\(NAME, '.*studies.db'\) names one$"):
        frontrunner.load(path)


def test_what_there_is_not_is_a_value_error_of_one_line(study: Study, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("nothing of the kind")
    loaded, url = frontrunner.load("tiny", study.database.url), study.database.url
    study.networks.remove(2)
    for action, said in (
        (lambda: frontrunner.load("tinny", url), "there is no study 'tinny'"),
        (lambda: frontrunner.load("tiny", tmp_path / "none.db"), "there is no database"),
        (lambda: frontrunner.load(tmp_path / "text.db"), "is no database, or a damaged one"),
        (lambda: loaded.best(under_seconds=0.1), "nothing on the front of 'tiny' trains in 0.1 s: the fastest is"),
        (lambda: loaded.best(under_mflop=0.1), "is one of accuracy over seconds of training: ask with --under-seconds"),
        (lambda: loaded.best().model(), "the network of trial 2 is not on this machine: load it where it was trained"),
    ):
        with pytest.raises(ValueError) as told:  # noqa: PT011  # what it says is compared
            action()
        assert said in str(told.value)
        assert "\n" not in str(told.value)
    assert storage.sqlite_path(url) is not None
    assert not (tmp_path / "none.db").exists(), "nothing is made by looking"
