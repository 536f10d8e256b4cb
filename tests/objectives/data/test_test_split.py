"""Test images stay out of a search: nothing that a study does opens them but `test`, with which it ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

from objectives.data.dataset import load
from objectives.data.held_out import load_test
from objectives.task import DataSpec

SCRIPT = """
import sys
from pathlib import Path
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
objective.export(Path("network"), {})
print(*[path for path in opened if "images" in path], sep="\\n")
opened.clear()
found = objective.test(Path("network"))
print("test", found["n"], *{Path(path).parent.name for path in opened if "images/TEST" in path}, *found["warnings"])
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
    *opened, tested = done.stdout.splitlines()
    assert any("images/Train/cats" in path for path in opened)
    assert any("images/val/dogs" in path for path in opened)
    assert not [path for path in opened if "images/TEST" in path]
    said, *_ = tested.split(" test images")
    assert {"test", "20", "cats", "dogs"} <= set(said.split())
    assert "training or validation images as well: 20 of 20" in tested


def test_every_source_has_a_test_split_of_the_size_and_channels_of_training_or_none(tmp_path: Path) -> None:
    for split, names in {"train": "abc", "test": "abz"}.items():
        for name in names:
            (tmp_path / "a" / split / name).mkdir(parents=True)
            for shade in range(4):
                kind = "L" if split == "test" else "RGB"
                Image.new(kind, (9 + shade, 9), 50 * shade if kind == "L" else (9, 9, ord(name))).save(
                    tmp_path / "a" / split / name / f"{shade}.png"
                )
    shutil.copytree(tmp_path / "a" / "train", tmp_path / "b")
    rows = [f"train/{n}/{i}.png,{n},train" for n in "abc" for i in range(4)] + ["test/a/0.png,b,test"]
    (tmp_path / "table.csv").write_text("\n".join(["file,label,split", *rows]))
    for spec, n, labels in (
        (DataSpec("digits"), 297, 10),
        (DataSpec(f"folder:{tmp_path}/a", size=8), 8, 2),
        (DataSpec(f"folder:{tmp_path}/a", size=8, labels=f"{tmp_path}/table.csv"), 1, 1),
        (DataSpec(f"folder:{tmp_path}/b", size=8), None, 0),
    ):
        dataset = load(spec, torch.device("cpu"))
        found = load_test(spec, dataset)
        if n is None:
            assert found is None
            continue
        assert found is not None
        assert found.images.x.shape == (n, *dataset.train.x.shape[1:])
        assert len(found.images.y.unique()) == labels
        left_out = "test images of classes that are not in training: 4 left out (z)"
        assert (left_out in found.warnings) == (n == 8)
