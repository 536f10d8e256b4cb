"""Test images stay out of a search: nothing that a study does opens them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = """
import sys
opened = []

def note(event, words):
    if event in ("open", "os.listdir", "os.scandir"):
        opened.append(str(words[0]))

sys.addaudithook(note)
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task
objective = TrainingObjective(Task(DataSpec("folder:images", size=8), "small"), "cpu")
list(objective.reports(Pipeline(batch_size=8, epochs=1), Seeds.of(0, 0)))
print(*[path for path in opened if "images" in path], sep="\\n")
"""


def test_a_search_never_opens_the_test_split(tmp_path: Path) -> None:
    for split in ("Train", "val", "TEST"):
        for number, name in enumerate(("cats", "dogs")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for shade in range(10):
                Image.new("RGB", (9, 9), (80 * number, shade * 5, 90)).save(
                    tmp_path / "images" / split / name / f"{shade}.png"
                )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=tmp_path,
        env={"PATH": "/usr/bin", "PYTHONPATH": root, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    opened = done.stdout.splitlines()
    assert any("images/Train/cats" in path for path in opened)
    assert any("images/val/dogs" in path for path in opened)
    assert not [path for path in opened if "images/TEST" in path]
