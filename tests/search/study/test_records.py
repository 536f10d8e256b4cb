"""What is read back from a trial."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import optuna
import pytest
from markdown_it import MarkdownIt
from optuna.trial import TrialState

from objectives.data.dataset import Dataset
from objectives.pipeline import Pipeline, Report
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.net2net import Net2Net
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from search.study import records
from search.views import figures
from tests.objectives.strategies.cases import finish, using
from tests.search.conftest import report

GROWING = Net2Net(start_width=0.5, at=0.3, until=0.3)
RUNS: dict[str, tuple[Pipeline, int | None, str]] = {  # pipeline, stopped after so many epochs, note
    "plain": (using(), None, ""),
    "wide": (using(width=1.5), None, ""),
    "wavelets": (using(HaarStem()), None, ""),
    "grown": (using(GROWING), None, ""),
    "stopped before it grew": (using(GROWING), 1, ""),
    "pruned": (using(PruneTrain(lpr=0.6, threshold=0.1)), None, r" \(kept [1-9]\d% of FLOPs\)"),
    "pruned behind wavelets": (
        using(HaarStem(), PruneTrain(lpr=0.6, threshold=0.1)),
        None,
        r" \(kept [1-9]\d% of FLOPs\)",
    ),
    "not pruned": (using(PruneTrain(lpr=0.01)), None, r" \(PruneTrain removed nothing\)"),
    "idle": (using(ProgressiveResolution(start=0.9)), None, r" \(ProgressiveResolution does nothing\)"),
}


@pytest.mark.parametrize(("pipeline", "n_epochs", "note"), RUNS.values(), ids=RUNS.keys())
def test_words_say_what_was_pruned_and_what_had_no_effect_and_nothing_else(
    pipeline: Pipeline, n_epochs: int | None, note: str, digits: Dataset
) -> None:
    reports = finish(pipeline, digits)[0][:n_epochs]
    attributes = records.explanation(reports, [report.accuracy for report in reports])
    words = pipeline.describe()
    trial = optuna.trial.create_trial(
        state=TrialState.PRUNED, user_attrs={**attributes, records.WORDS: words, records.ANCHOR: "known"}
    )
    assert re.fullmatch(f"known: {re.escape(words)}{note}", records.in_words(trial))


def trial_of(reports: list[Report]) -> optuna.trial.FrozenTrial:
    """A trial as the database has it."""
    attributes = records.explanation(reports, [report.accuracy for report in reports])
    stored = json.loads(json.dumps({**attributes, records.WORDS: "words", records.PIPELINE: {"epochs": len(reports)}}))
    return optuna.trial.create_trial(state=TrialState.PRUNED, user_attrs=stored)


@pytest.mark.parametrize("name", ["plain", "wavelets", "stopped before it grew", "not pruned", "idle"])
def test_a_run_that_keeps_its_size_has_no_timeline(name: str, digits: Dataset) -> None:
    pipeline, n_epochs, _ = RUNS[name]
    reports = finish(pipeline, digits)[0][:n_epochs]
    trial = trial_of(reports)
    assert records.TIMELINE not in trial.user_attrs
    assert records.timeline(trial) == []
    assert (records.EVENTS in trial.user_attrs) == any(report.events for report in reports)


ADAPTIVE = {"kappa": 0.0, "threshold": 0.1, "gain": 0.9, "tail": 0.25, "budget": 99.0}
RESIZED = {  # each changes its size at least once
    "wider": using(Adaptive(lpr=0.3, interval=3, rounds=1, least=1, **ADAPTIVE)),  # type: ignore[arg-type]
    "to and fro": using(Adaptive(lpr=0.6, interval=1, rounds=2, least=2, **ADAPTIVE), epochs=10),  # type: ignore[arg-type]
    "pruned": using(PruneTrain(lpr=0.6, threshold=0.1), epochs=6),
    "grown": using(GROWING, epochs=6),
}


@pytest.mark.parametrize("pipeline", RESIZED.values(), ids=RESIZED.keys())
def test_a_timeline_tells_every_decision_and_the_network_that_it_was_made_of(
    pipeline: Pipeline, digits: Dataset
) -> None:
    reports, trained = finish(pipeline, digits)
    trial = trial_of(reports)
    moments = records.timeline(trial)
    assert records.EVENTS not in trial.user_attrs  # nothing is stored twice
    told = [report.epoch for report in reports if report.events]
    assert [moment.epoch for moment in moments] == sorted({1, *told, len(reports)})
    for moment in moments:
        report = reports[moment.epoch - 1]
        assert moment.decisions == report.events
        assert moment.train_seconds == pytest.approx(report.train_seconds, abs=1e-4)
        assert moment.val_accuracy == pytest.approx(report.accuracy, abs=1e-5)
        assert moment.inference_flops == report.inference_flops
    assert sum(moment.boundary_seconds for moment in moments) <= reports[-1].boundary_seconds + 1e-3
    for moment, after in pairwise(moments):
        named = re.findall(r"\d+\[[\d ]*\](?:-\d+\[[\d ]*\])*", " ".join(moment.decisions))
        assert [moment.architecture, *named][-1] == after.architecture
    final = trained.model.architecture
    assert len({moment.architecture for moment in moments}) > 1
    assert moments[-1].architecture == final.describe()
    assert moments[-1].widths == tuple(stage.width for stage in final.stages)
    assert moments[-1].blocks == tuple(len([n for n in stage.interiors if n]) for stage in final.stages)


def test_a_change_without_words_is_a_moment_as_well() -> None:
    names = ["8[8]", "8[8]", "8[8]", "8[8 8]", "8[8 8]", "8[8 8]"]
    reports = [report(e, 6, float(e), 0.5, architecture=name) for e, name in enumerate(names, 1)]
    assert [(m.epoch, m.architecture) for m in records.timeline(trial_of(reports))] == [
        (1, "8[8]"),
        (3, "8[8]"),
        (6, "8[8 8]"),
    ]


def test_a_trial_of_an_earlier_version_tells_its_events_as_before() -> None:
    told = "epoch 2: pruned 8[8] to 7[8] (0.010 s)"
    reports = [report(1, 2, 1.0, 0.5), report(2, 2, 2.0, 0.6)]
    trial = trial_of(reports)
    trial.set_user_attr(records.EVENTS, [told])
    assert records.timeline(trial) == []
    assert records.in_words(trial) == "words (kept 50% of FLOPs)"
    assert f"* {figures.literal(told)}" in figures.note(trial).splitlines()


def test_the_note_of_a_run_that_changes_its_size_has_the_timeline_as_a_table(digits: Dataset) -> None:
    trial = trial_of(finish(RESIZED["to and fro"], digits)[0])
    moments = records.timeline(trial)
    rendered = MarkdownIt("commonmark").enable("table").render(figures.note(trial))
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", rendered, re.DOTALL)]
    assert rows[0] == ["epoch", "seconds", "widths", "blocks", "MFLOP", "accuracy", "decision"]
    assert [row[2] for row in rows[1:]] == [moment.architecture for moment in moments]
    assert [row[-1] for row in rows[1:]] == [moment.words for moment in moments]
    assert rendered.count("<li>") == sum(line.startswith("* ") for line in figures.note(trial).splitlines())
    assert "lambda" not in rendered.partition("<table>")[0]  # it is said once


@pytest.mark.parametrize("crop", [False, True])
def test_more_epochs_are_worth_no_less_and_nothing_beyond_enough(crop: bool) -> None:
    worth = [records.learning_decades(epochs, crop=crop) for epochs in range(1, 101)]
    assert all(one <= other for one, other in pairwise(worth))
    enough = records.ENOUGH if crop else records.ENOUGH_UNCROPPED
    assert len(set(worth)) == enough


def test_epochs_with_crops_count_less_until_those_without_are_enough() -> None:
    with_crops, without = ([records.learning_decades(n, crop=crop) for n in range(1, 21)] for crop in (True, False))
    assert with_crops[11] == pytest.approx(without[11])  # twelve are level with eight
    assert all(one < other for one, other in zip(with_crops[:11], without[:11], strict=True))
    assert all(one > other for one, other in zip(with_crops[12:], without[12:], strict=True))
