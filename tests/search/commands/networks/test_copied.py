"""A network of a front at a place of choice, as the command `export` makes it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from objectives.export import load_model
from objectives.host.durable import contents, damaged, write_folder
from objectives.inference.copying import copied
from objectives.task import DataSpec
from search import trial
from search.database import storage
from search.study import opening, records
from search.study.study import Study
from search.views.display import Display
from tests.search.conftest import Scripted
from tests.search.place import Done

Command = Callable[[str], Done]


@pytest.fixture
def export(
    model: Path,
    new_study: Callable[..., Study],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Command:
    """The command, for a study on digits with two points, of a real network each."""

    class Exporting(Scripted):
        def export(self, folder: Path, about: Mapping[str, object]) -> None:
            shutil.copytree(model, folder)

    made, objective = new_study(stopping="none"), Exporting([[(1.0, 0.5)], [(2.0, 0.9)], [(4.0, 0.7)]])
    for _ in range(3):
        trial.run(made, made.ask(), objective, Display(), math.inf)
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    return lambda words: command(f"export --study tiny {words}")


def test_a_copy_is_whole_and_tells_the_same_in_every_format(export: Command, model: Path, tmp_path: Path) -> None:
    done = export("--under-seconds 1.5 -o net --torchscript --json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        **{"trial": 0, "whole": False, "folder": str(tmp_path / "net"), "checked": 64, "real_images": True},
        "files": ["weights.safetensors", "model.json", "model.torchscript.pt"],
    }
    assert damaged(tmp_path / "net") == []
    x = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(load_model(tmp_path / "net").probabilities(x), load_model(model).probabilities(x))
    assert "trial 1 is in " in export("-o best").out  # the most accurate
    assert "it tells the same of 64 real images" in export("--trial 0 -o first").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--trial 2 -o net", 2, "trial 2 is not on the front of 'tiny', whose networks are kept: 0, 1"),
        ("--under-seconds 0.5 -o net", 2, "nothing on the front of 'tiny' trains in 0.5 s"),
        ("-o there", 2, "there is there already: name a folder to make"),
        ("-o no/where", 2, "there is no folder "),
        ("--trial 1 -o net", 2, "the network of trial 1 is not on this machine"),
        ("--trial 0 -o net", 3, "is damaged: its SHA-256"),
    ],
)
def test_what_cannot_be_copied_is_one_line_and_leaves_nothing(
    words: str, code: int, said: str, export: Command, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    first, second, _ = sorted(tmp_path.glob("artifacts*/tiny/trial-*"))
    (first / "model.json").write_text("{}")
    shutil.rmtree(second)
    done = export(words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert said in done.err
    assert not (tmp_path / "net").exists()


def test_the_network_of_all_images_is_copied_as_any_other_where_there_is_one(
    export: Command, model: Path, tmp_path: Path
) -> None:
    none = export("--whole -o all")
    assert (none.code, none.err.count("\n")) == (2, 1)
    assert "has no network here that was trained on all images: run it with --minutes" in none.err
    study = opening.stored("tiny", storage.open_storage(f"sqlite:///{tmp_path}/studies.db"))
    study.optuna.set_user_attr(records.REFIT, {"trial": 1})
    assert export("--whole -o all").code == 2  # it lies elsewhere
    files = contents(model)
    about = json.loads(files["model.json"]) | {"test_time_flip": True}
    write_folder(study.networks.refit, {**files, "model.json": json.dumps(about).encode()})
    done = export("--whole -o all --torchscript --json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["trial"], told["whole"], "model.torchscript.pt" in told["files"]) == (1, True, True)
    assert load_model(tmp_path / "all").mirrored
    assert "trial 1, trained on all images, is in " in export("--whole -o again").out


def test_without_the_images_of_the_study_it_is_checked_on_made_up_ones_and_says_so(
    export: Command, tmp_path: Path
) -> None:
    folder = next(iter(sorted(tmp_path.glob("artifacts*/tiny/trial-*"))))
    done = copied(folder, tmp_path / "net", DataSpec(f"folder:{tmp_path}/gone"))
    assert done.made_up is not None
    assert "there is no folder" in done.made_up
    assert load_model(tmp_path / "net").size == 16
