"""What pages show in Python runs as it stands, on a study that was really trained."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.objective import TrainingObjective
from search import trial
from search.study import queue
from search.study.study import Study
from search.views.display import Display
from tests.search.commands.networks.conftest import picture
from tests.test_readme import PAGES

NOT_RUN = "development.md"  # parts of a file each
BLOCKS = {page: re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) for page in PAGES}


@pytest.mark.long  # trains a network
def test_python_on_every_page_runs(
    new_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = new_study("pets", stopping="none", floor=0.0)
    queue.enqueue_anchors(study)
    trial.run(study, study.ask(), TrainingObjective(study.spec.task, "cpu"), Display(), math.inf)
    (tmp_path / "new").mkdir()
    picture(0, 0).save(tmp_path / "new" / "a.png")
    monkeypatch.setenv("OPTUNA_STORAGE", study.database.url)
    monkeypatch.chdir(tmp_path)
    names = [page.name for page, blocks in BLOCKS.items() if blocks]
    assert {*names} >= {"README.md", "fronts.md", "predictions.md", NOT_RUN}
    for page, blocks in BLOCKS.items():
        for number, block in enumerate(blocks if page.name != NOT_RUN else []):
            exec(compile(block, f"{page.name}, block {number + 1}", "exec"), {})
    assert "new/a.png" in capsys.readouterr().out
