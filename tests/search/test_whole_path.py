"""From photographs to predictions: every command of the way, on real images, as a user goes it."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from objectives.export import load_model
from objectives.inference import images
from objectives.words import printable
from search.views import predictions
from tests.objectives.inference import odd
from tests.search.place import Done, Place

Run = Callable[[str], Done]
CLASSES = ("Blüte 花", "=temple()")
BANDS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}  # of a photograph, from left to right
STUDY = """
[data]
name = "folder:photographs"
size = 16
[network]
family = "small"
[space]
epochs = [2, 4]
batch_size = [16, 32]
depth = [1, 1]
[space.fix]
number_format = "fp32"
[search]
n_trials = 3
repeats = 0
confirm = 1
"""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Crops of scikit-learn's two photographs, a class each; what validates and tests are other parts of them."""
    place, random = tmp_path / "photographs", np.random.default_rng(0)
    for name, pixels in zip(CLASSES, reversed(load_sample_images().images), strict=True):
        height, width, _ = pixels.shape
        for split, (low, high) in BANDS.items():
            (place / split / name).mkdir(parents=True)
            for n in range(120 if split == "train" else 40):
                side = int(random.integers(32, 90))
                left = int(random.integers(low * width, high * width - side))
                top = int(random.integers(0, height - side))
                crop = Image.fromarray(pixels[top : top + side, left : left + side])
                crop.save(place / split / name / f"{n:03}.jpg", quality=90)
    return place


def unlabelled(place: Path) -> Path:
    """What people have among their images: see `odd`."""
    odd.folder(place)
    Image.new("1", (12_000, 9_000)).save(place / "huge.png")  # 108 megapixels in 40 kB
    Image.new("L", (6_000, 8_000), 90).save(place / "large one.jpg")
    return place


def walk(run: Run, begin: str, photographs: Path) -> str:
    """The way from a folder to predictions, in the folder above; `begin` trains. Returns the name of the study."""
    done = run("data photographs --json")
    card = json.loads(done.out)
    assert (card["n_train"], card["n_val"], card["n_test"]) == (240, 80, 80), card

    result = json.loads(run(f"{begin} --device cpu --json").out)
    name, numbers = result["study"], [point["trial"] for point in result["front"]]
    assert result["trials"]["failed"] == 0
    assert numbers

    page = photographs.parent / f"{name}.html"
    assert str(page.name) in run(f"report --study {name} --images").out
    assert b"<html" in page.read_bytes()[:2000]

    best = json.loads(run(f"best --study {name} --json").out)["best"]
    assert best["trial"] in numbers
    assert Path(best["network"]).is_dir()

    run(f"export --study {name} --trial {best['trial']} -o network --torchscript --onnx")
    told = json.loads(run("test --model network --data folder:photographs --json").out)
    check_everywhere_the_same(photographs, predicted(run, "photographs/test"), told)

    names = {printable(name) for name in (*odd.images(), "large one.jpg")}
    rows = predicted(run, str(unlabelled(photographs.parent / "new").name))
    assert {name.removeprefix("'") for name, row in rows.items() if row["label"]} == names
    assert {name.removeprefix("'") for name, row in rows.items() if row["reason"]} == {*odd.faults(), "huge.png"}
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows.values() for value in row.values())
    return str(name)


def predicted(run: Run, folder: str) -> dict[str, dict[str, str]]:
    """The rows of predictions of a folder, by the name of the file."""
    run(f"predict --model network --images {shlex.quote(folder)} -o predictions.csv")
    text = Path("predictions.csv").read_text()
    return {row["id"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}


def check_everywhere_the_same(photographs: Path, rows: dict[str, dict[str, str]], told: dict[str, Any]) -> None:
    """What was predicted is what `test` judged, and what the network tells in every format."""
    right = Counter(name.lstrip("'").split("/")[0] == row["label"].lstrip("'") for name, row in rows.items())
    assert right[True] / len(rows) == pytest.approx(told["accuracy"])
    model, files = load_model("network"), images.found([str(photographs / "test")])
    parts = [part for part in images.decoded(files, model.size) if part.kept]  # in any order
    pixels, order = np.concatenate([part.pixels for part in parts]), np.argsort([n for p in parts for n in p.kept])
    x = torch.from_numpy(pixels[order]).permute(0, 3, 1, 2).contiguous()
    expected = model.probabilities(x)
    by_file = [float(rows[predictions.cell(file.name)]["probability"]) for file in files]
    assert by_file == pytest.approx(expected.max(1).values.tolist(), abs=2e-6)
    scripted = torch.jit.load("network/model.torchscript.pt")
    torch.testing.assert_close(scripted(x), expected, rtol=0, atol=1e-5)
    session = onnxruntime.InferenceSession("network/model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.load:DeprecationWarning")
def test_a_study_of_a_folder_leads_to_predictions(photographs: Path, command: Run) -> None:
    (photographs.parent / "short.toml").write_text(STUDY)

    def run(line: str) -> Done:
        done = command(line)
        assert done.code == 0, (line, done.err)
        return done

    walk(run, "run --study short.toml --in-process", photographs)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.torch.jit.load:DeprecationWarning")
def test_a_minute_and_a_folder_lead_to_predictions(
    photographs: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same by the programs themselves, and as long as it takes: two minutes."""
    monkeypatch.chdir(place.folder)

    def run(line: str) -> Done:
        for _ in range(5):  # beside busy neighbours the first minute may end before a network does
            done = place.run(*shlex.split(line), module="search")
            if "minutes are too few for a first network" not in done.err:
                break
        assert done.code == 0, (line, done.err)
        return done

    name = walk(run, "run --data folder:photographs --minutes 1", photographs)
    confirmed = json.loads(run(f"confirm --study {name} --seeds 1 --json").out)
    assert all(point["confirmed"]["n"] >= 1 and point["test_accuracy"] for point in confirmed["front"])
    refit = next(place.folder.glob("studies/artifacts/*/refit"))
    done = run(f"predict --model {refit} --images new photographs/test -o all.csv --json")
    assert json.loads(done.out)["images"] == len(odd.images()) + 1 + 80


@pytest.mark.long
def test_a_thousand_large_images_are_never_in_memory_at_once(tmp_path: Path) -> None:
    """150 MB of pixels pass in parts of 16 MB: one that is read, one that is held."""
    content = odd.saved(odd.colour(0, 256, 256), "JPEG", quality=50)
    for n in range(1000):
        (tmp_path / f"{n}.jpg").write_bytes(content)
    files, side, n_seen = images.found([str(tmp_path)]), 224, 0
    tracemalloc.start()
    for part in images.decoded(files, side):
        n_seen += len(part.kept)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_seen == len(files) == 1000
    assert peak < 3 * math.prod((1000, side, side)) / 3
