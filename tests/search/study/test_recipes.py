"""What a folder or a file says of a pipeline to train anew; what says nothing of the kind is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from objectives.host.durable import write_folder
from objectives.pipeline import Pipeline
from objectives.strategies.ema import Ema
from objectives.strategies.prune_train import PruneTrain
from search.errors import UsageError
from search.study.files.recipes import Recipe, recipe

PIPELINE = Pipeline(epochs=3, lr=0.2, crop=False, strategies=(PruneTrain(lpr=0.4, interval=2), Ema()))
ABOUT = {
    "format": 4,
    "pipeline": PIPELINE.to_json(),
    "family": "thin",
    "stem_stride": 2,
    "input": {"size": 48, "channels": 3},
    "split": {"seed": 7, "n_train": None},
    "test_time_flip": True,
    "metric": "balanced",
}
TOML = """
family = "thin"
stem_stride = 2
size = 48
epochs = 3
lr = 0.2
crop = false
[[strategies]]
strategy = "PruneTrain"
lpr = 0.4
interval = 2
[[strategies]]
strategy = "Ema"
"""


def exported(folder: Path, **changes: object) -> str:
    """An export with this description."""
    write_folder(folder, {"model.json": json.dumps(ABOUT | changes).encode(), "weights.safetensors": b"w"})
    return str(folder)


def test_a_folder_its_description_and_files_say_the_same(tmp_path: Path) -> None:
    of_folder = recipe(exported(tmp_path / "model"))
    assert of_folder == Recipe(PIPELINE, "thin", 2, 48, True, "balanced", 7, of_folder.origin)
    assert recipe(str(tmp_path / "model" / "model.json")) == of_folder
    (tmp_path / "a.toml").write_text(TOML)
    of_file = replace(of_folder, test_time_flip=False, metric="plain", split=0, origin=None)
    assert recipe(str(tmp_path / "a.toml")) == of_file
    inner = {"pipeline": PIPELINE.to_json(), "family": "thin", "stem_stride": 2, "size": 48}
    for name, plain in (("flat", {**PIPELINE.to_json(), **inner, "pipeline": None}), ("inner", inner)):
        (tmp_path / f"{name}.json").write_text(json.dumps({k: v for k, v in plain.items() if v is not None}))
        assert recipe(str(tmp_path / f"{name}.json")) == of_file
    assert recipe(exported(tmp_path / "series", input={"kind": "series", "size": 9})).size is None
    assert recipe(exported(tmp_path / "before", family=None)).family is None


BAD: dict[str, tuple[str, str]] = {  # name of a file -> (content, what is said)
    "empty.json": ("{}", "it is empty"),
    "list.json": ("[1]", "it is no table of settings"),
    "no.json": ("epochs = 3", "it is no JSON"),
    "package.json": ('{"name": "x"}', "unknown setting 'name'"),
    "typo.toml": ("epocs = 3", "unknown setting 'epocs'; did you mean 'epochs'?"),
    "text.toml": ('epochs = "3"', 'epochs = "3": it must be a whole number'),
    "switch.toml": ("crop = 1", "crop = 1: it must be true or false"),
    "true.toml": ("lr = true", "lr = true: it must be a number"),
    "range.toml": ("epochs = 0", "epochs is 0: it must lie between 1 and 100000"),
    "nan.toml": ("lr = nan", "lr is nan"),
    "family.toml": ('family = "thick"\nepochs = 2', "unknown family 'thick'; did you mean 'thin'?"),
    "stem.toml": ("stem_stride = 3\nepochs = 2", "stem_stride = 3: it must be 1 or 2"),
    "beside.json": ('{"pipeline": {"epochs": 2}, "famly": "thin"}', "unknown 'famly' beside 'pipeline'"),
    "strategy.json": ('{"strategies": [{"strategy": "PruneTrane"}]}', "did you mean 'PruneTrain'?"),
    "nameless.json": ('{"strategies": [{"lpr": 0.3}]}', "unknown strategy 'None'"),
    "number.json": ('{"strategies": [3]}', "each is a table"),
    "table.json": ('{"strategies": {"a": 1}}', "strategies must be a list"),
    "parameter.json": ('{"strategies": [{"strategy": "Ema", "x": 1}]}', "Ema has no parameter 'x'"),
    "kind.json": ('{"strategies": [{"strategy": "PruneTrain", "lpr": "x"}]}', 'PruneTrain.lpr = "x": it must be a nu'),
    "twice.json": ('{"strategies": [{"strategy": "Ema"}, {"strategy": "Ema"}]}', "Ema cannot run with Ema"),
    "reduction.json": ('{"epochs": 2, "reduction": {"epsilon": 0.1}}', "frontrunner reduce does that"),
    "deep.json": ("[" * 100_000, "recursion"),
    "large.json": (" " * 1_000_001, "more than 1000000 bytes"),
    **{
        f"described-{number}.json": (json.dumps(ABOUT | {name: value}), said)
        for number, (name, value, said) in enumerate(
            (
                ("input", [1], "'list' object has no attribute"),
                ("split", 3, "'int' object has no attribute"),
                ("split", {"seed": "x"}, 'seed = "x": it must be a whole number'),
                ("input", {"size": "x"}, 'size = "x": it must be a whole number'),
                ("metric", "zzz", "metric = 'zzz': it must be plain or balanced"),
                ("test_time_flip", "no", 'test_time_flip = "no": it must be true or false'),
                ("stem_stride", True, "stem_stride = true: it must be a whole number"),
                ("family", 3, "family = 3: it must be text"),
            )
        )
    },
    "no.toml": ("x = ", "not a readable TOML file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_pipeline_is_one_line(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as refused:
        recipe(str(tmp_path / name))
    assert said in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda folder: None, "there is no such folder or file"),
    "no export": (lambda folder: folder.mkdir(), "holds no model.json: name one that a network was exported to"),
    "around": (lambda folder: exported(folder / "trial-00003"), "trial-00003 does"),
    "smaller": (lambda folder: exported(folder, reduction={"seed": 0}), "made smaller after its training"),
    "no pipeline": (lambda folder: exported(folder, pipeline=None), "does not say how its network was trained"),
    "newer": (lambda folder: exported(folder, pipeline={"colour": 1}), "unknown setting 'colour'"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_says_none_is_one_line(name: str, tmp_path: Path) -> None:
    before, said = FOLDERS[name]
    before(tmp_path / "model")
    with pytest.raises(UsageError) as refused:
        recipe(str(tmp_path / "model"))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
