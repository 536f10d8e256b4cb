"""Studies of kind `modelled`: accuracies that are emulated, seconds that a formula tells; no clock has a say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest

from objectives.pipeline import Pipeline
from search.errors import UsageError
from search.proposals.draws import Draw
from search.study import records
from search.study.spec import read
from search.views import figures
from spaces import SPACES
from spaces.base import BASELINE
from spaces.restricted import sample
from tests.search.place import Place

TOML = """
kind = "modelled"

[data]
name = "digits"
n_train = 200

[network]
family = "small"

[machine]
name = "a made-up machine"
step_seconds = 1e-3
launch_seconds = 1e-4
bandwidth = 5e9
half_length = 10.0
rates = { fp32 = 3e10, bf16 = 6e10 }

[space]
epochs = [2, 4]
batch_size = [32, 64]
depth = [1, 1]
width = [0.5, 1.0]

[search]
n_trials = 12
confirm = 0
"""
STUDY = ("--study", "formats")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A working directory with a study, `formats`."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "formats.toml").write_text(TOML)
    made = Place(tmp_path)
    made.script()
    return made


@pytest.fixture
def of(tmp_path: Path) -> Callable[[str, str], Path]:
    """The file of such a study that says something else."""

    def written(before: str, after: str) -> Path:
        assert before in TOML
        path = tmp_path / "formats.toml"
        path.write_text(TOML.replace(before, after, 1))
        return path

    return written


@pytest.mark.long
def test_a_front_of_modelled_seconds_says_so_and_says_emulated_wherever_a_format_is(place: Place) -> None:
    done = place.run(*STUDY, module="search.run")
    assert done.code == 0, done.err
    study = optuna.load_study(study_name="formats", storage=place.url)
    assert study.metric_names == ["modelled_seconds", "val_accuracy"]
    trials = [trial for trial in study.get_trials() if records.is_finished_run(trial)]
    assert len(trials) == 12
    for trial in trials:
        pipeline = records.pipeline(trial)
        assert ("emulated" in records.in_words(trial)) == pipeline.is_emulated
        assert trial.values[0] == pytest.approx(trial.user_attrs[records.MODELLED][-1], rel=1e-5)
        note = figures.note(trial)
        assert f"* {trial.values[0]:.4g} modelled seconds" in note
        assert ("emulated" in note) == pipeline.is_emulated
        assert not trial.user_attrs.get(records.NOISY)  # what is counted cannot be disturbed
    n_emulated = sum(records.pipeline(trial).is_emulated for trial in trials)
    assert n_emulated >= 6
    assert "Modelled seconds: of a made-up machine, by a formula" in done.out
    assert "on this device" not in done.out
    assert "emulated" in done.out
    assert "seconds of training" not in done.out
    again = place.run(*STUDY, "--json", module="search.run")
    told = json.loads(again.out)
    assert "modelled_seconds" in told["front"][0]
    best = place.run("best", *STUDY, "--under-seconds", "1000", module="search")
    assert " modelled s" in best.out
    page = place.folder / "page.html"
    made = place.run("report", *STUDY, "-o", str(page), module="search")
    assert made.code == 0, made.err
    text = page.read_text()
    for said in ("a made-up machine", "emulated", "by what is assumed of units", "modelled s"):
        assert said in text
    assert "device time of the training" not in text


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('kind = "modelled"\n', "", '[machine] belongs to studies of kind "modelled"'),
        ('kind = "modelled"', 'kind = "modelled"\nmetric = "median"', "metric"),
        ("epochs = [2, 4]", 'name = "acceleration"\nepochs = [2, 4]', None),
        ("n_trials = 12", 'n_trials = 12\nstopping = "front"', "stopping 'front' judges by seconds of a clock"),
        ("bandwidth = 5e9", "bandwidth = 0.0", "machine.bandwidth = 0.0"),
        ("fp32 = 3e10, ", "", "has no rate of fp32"),
        ("fp32 = 3e10, ", "fp32 = 3e10, fp7 = 1e10, ", "fp7"),
    ],
)
def test_what_such_a_study_file_may_not_say_is_refused_in_one_line(
    before: str, after: str, said: str | None, of: Callable[[str, str], Path]
) -> None:
    if said is None:  # any space whose pipelines the formula knows
        assert read(str(of(before, after)))[1].space.name == "acceleration"
        return
    with pytest.raises(UsageError) as refused:
        read(str(of(before, after)))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_machine_there_are_no_seconds_and_it_is_said_where_they_come_from(tmp_path: Path) -> None:
    head, _, rest = TOML.partition("[machine]")
    path = tmp_path / "formats.toml"
    path.write_text(head + "[space]" + rest.partition("[space]")[2])
    with pytest.raises(UsageError, match=r"needs a section \[machine\]: python -m benchmarks.time_model prints one"):
        read(str(path))


@pytest.mark.parametrize("name", sorted(set(SPACES) - {"emulated_formats"}))
def test_no_space_of_measured_seconds_draws_what_is_emulated(name: str, of: Callable[[str, str], Path]) -> None:
    _, spec = read(str(of("", "")))
    given = spec.given(("fp32", "bf16"), flip=True)
    for seed in range(200):
        draw = Draw(np.random.default_rng(seed))
        pipeline: Pipeline = sample(SPACES[name], draw, given, spec.restrictions)  # type: ignore[arg-type]
        assert not pipeline.is_emulated


def test_the_space_of_emulated_formats_belongs_to_studies_of_modelled_seconds(tmp_path: Path) -> None:
    head, _, rest = TOML.partition("[machine]")
    path = tmp_path / "formats.toml"
    plain = head.replace('kind = "modelled"', "") + '[space]\nname = "emulated_formats"' + rest.partition("[space]")[2]
    path.write_text(plain)
    with pytest.raises(UsageError, match="space 'emulated_formats' belongs to studies of kind \"modelled\""):
        read(str(path))


def test_every_format_is_among_the_anchors_and_in_reach_of_a_draw(of: Callable[[str, str], Path]) -> None:
    _, spec = read(str(of("", "")))
    given, space = spec.given(("fp32", "tf32", "bf16"), flip=True), SPACES["emulated_formats"]
    assert given.number_formats == ("fp32", "bf16")  # what has no rate has no seconds
    anchors = space.anchors(given)
    assert next(iter(anchors)) == BASELINE
    formats = {"fp32", "bf16", "dfp", "fixed", "block", "fp8"}
    assert {str(each["format"]) for each in anchors.values()} == formats
    drawn = [Draw(np.random.default_rng(seed)) for seed in range(300)]
    pipelines = [sample(space, draw, given, spec.restrictions) for draw in drawn]  # type: ignore[arg-type]
    assert {draw.params["format"] for draw in drawn} == formats
    assert {type(each).__name__ for pipeline in pipelines for each in pipeline.strategies} == {
        *("BlockFloatingPoint", "DynamicFixedPoint", "FixedPoint", "Float8"),
        *("SwitchFormat", "Swa"),
    }
