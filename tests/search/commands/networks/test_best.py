"""The command that says which network of a front to take."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from search import trial
from search.study import records
from search.study.study import Study
from search.views.display import Display
from tests.search.conftest import Scripted
from tests.search.place import Done

Command = Callable[[str], Done]


@pytest.fixture
def study(new_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Study:
    """Three points, the last two of them too close for 50 images to tell apart; the cheapest has a fresh seed."""
    made = new_study(stopping="none")
    objective = Scripted([[(1.0, 0.5)], [(2.0, 0.9)], [(4.0, 0.92)], [(1.2, 0.46)]])
    for _ in range(3):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    made.enqueue_afresh(made.trials()[0], {records.CONFIRM_OF: 0})
    confirmation = made.trials()[-1]
    trial.run(made, made.ask(confirmation), objective, Display(), math.inf)
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    return made


@pytest.fixture
def best(study: Study, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    return lambda words: command(f"best --study tiny {words}")


def test_the_point_its_interval_its_network_and_what_stands_beside_it(best: Command, study: Study) -> None:
    lines = best("--under-seconds 3").out.splitlines()
    assert lines[0] == "trial 1: 90.00% in 2 s (of a single run; 78.6% to 95.7%)"
    assert f"network   {study.networks.of(1).absolute()}" in lines
    assert lines[-2] == "faster    trial 0: 46.00% in 1.2 s (mean of 1 fresh seed; 33.0% to 59.6%)"
    assert lines[-1] == "better    trial 2: 92.00% in 4 s (of a single run; 81.2% to 96.8%)"
    assert best("").out.splitlines()[-2].endswith(", as accurate for all that is known")
    assert "its interval reaches below 91.00%" in best("--min-accuracy 0.91").out
    for number, words in ((1, ""), (2, ", the pipeline of trial 2")):
        study.optuna.set_user_attr(records.REFIT, {"trial": number, "accuracy": 0.91})
        study.networks.refit.mkdir(parents=True, exist_ok=True)
        folder = study.networks.refit.absolute()
        assert f"all       {folder} (trained on all images{words}: expect 91.0%)" in best("--under-seconds 3").out
    study.networks.remove(1)
    assert "not on this machine" in best("--min-accuracy 0.6").out


def test_programs_are_told_the_same(best: Command, study: Study) -> None:
    told = json.loads(best("--within 2.5 --json").out)
    assert (told["study"], told["best"]["trial"], told["best"]["n_seeds"], told["refit"]) == ("tiny", 1, 0, None)
    assert told["best"]["network"] == str(study.networks.of(1).absolute())
    assert (told["cheaper"]["trial"], told["cheaper"]["n_seeds"], told["cheaper"]["train_seconds"]) == (0, 1, 1.2)
    assert told["dearer"]["accuracy"] == 0.92


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--under-seconds 1.1",
            "error: nothing on the front of 'tiny' trains in 1.1 s: the fastest is trial 0: 46.00% in",
        ),
        (
            "--min-accuracy 0.93",
            "error: nothing on the front of 'tiny' reaches 93.00%: the most accurate is trial 2: 92.",
        ),
    ],
)
def test_what_there_is_not_is_one_line(words: str, said: str, best: Command) -> None:
    done = best(words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(said)


def test_a_study_without_a_front_says_how_to_go_on(
    new_study: Callable[..., Study], command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new_study("bare")
    storage = f"--storage sqlite:///{tmp_path}/studies.db"
    done = command(f"best --study bare {storage}")
    assert done.code == 2
    assert "study 'bare' has no front yet" in done.err
