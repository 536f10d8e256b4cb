"""What is read back from a trial."""

from __future__ import annotations

import re

import optuna
import pytest
from optuna.trial import TrialState

from objectives.data.dataset import Dataset
from objectives.pipeline import Pipeline
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.net2net import Net2Net
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from search.study import records
from tests.objectives.strategies.cases import finish, using

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
