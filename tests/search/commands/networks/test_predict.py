"""Predictions for files of any kind: none is dropped, no table runs anything, all as in training."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from objectives.data.dataset import load
from objectives.export import load_model
from objectives.inference import images
from objectives.task import DataSpec
from objectives.words import printable
from search.views.predictions import FORMULAS
from tests.objectives.inference import odd
from tests.search.place import Done

Command = Callable[[str], Done]
COLUMNS = ["id", "label", "probability", "margin", "label_2", "probability_2", "label_3", "probability_3", "reason"]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_every_file_that_may_be_an_image_has_a_row_and_none_is_a_formula(
    model: Path, tmp_path: Path, command: Command
) -> None:
    odd.folder(tmp_path / "odd")
    (tmp_path / "odd" / "out.jpg").symlink_to("/etc/hostname")
    done = command(f"predict --model {model} --images odd -o table.csv")
    assert done.code == 0, done.err
    written = (tmp_path / "table.csv").read_bytes()
    rows = table(written.decode())
    assert list(rows[0]) == COLUMNS
    names = {row["id"].removeprefix("'") for row in rows}
    assert names == {printable(name) for name in (*odd.images(), *odd.faults(), "out.jpg")}
    predicted = {row["id"].removeprefix("'") for row in rows if row["label"]}
    assert predicted == {printable(name) for name in odd.images()}
    for row in rows:
        assert bool(row["reason"]) == (not row["label"])
        assert not any(value.startswith(FORMULAS) for value in row.values())
        if row["label"]:
            chances = [float(row[name]) for name in ("probability", "probability_2", "probability_3")]
            assert chances == sorted(chances, reverse=True)
            assert sum(chances) == pytest.approx(1, abs=1e-5)
            assert float(row["margin"]) == pytest.approx(chances[0] - chances[1], abs=2e-6)
    assert len(written.decode().splitlines()) == len(rows) + 1, "a name broke its line"
    for name in (*odd.faults(), "out.jpg"):
        assert f"  {name}: " in done.err
    assert "16 images predicted: table.csv" in done.out
    assert "2 files of other kinds left out" in done.out  # README.txt and labels.csv; hidden ones are none


def test_hidden_images_are_told_of_and_predicted_where_they_are_named(
    model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(birds / "test" / "c", tmp_path / "new")
    hidden = (".old/x.png", ".x.png", "._00.png", ".git/x.png")
    for name in hidden:
        (tmp_path / "new" / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "new" / "00.png", tmp_path / "new" / name)
    (tmp_path / "new" / "._00.png").write_bytes(b"\0\5\x16\7 what macOS keeps of another")
    for others, told in (([], hidden[:2]), ([f"new/{name}" for name in hidden[:2]], ())):
        command(f"predict --model {model} --images new {' '.join(others)} -o t.csv")
        rows = table((tmp_path / "t.csv").read_text())
        assert [row["id"] for row in rows if row["reason"].startswith("hidden: ")] == list(told)
        assert len(rows) == len(list((tmp_path / "new").glob("[!.]*"))) + 2


def test_a_network_is_shown_what_its_training_was_shown(model: Path, birds: Path) -> None:
    files = images.found([str(birds / "train")])
    pixels = [x for part in images.decoded(files, load_model(model).size) for x in part.pixels]
    data = load(DataSpec(f"folder:{birds}", size=16), torch.device("cpu"))
    trained = [x.numpy().tobytes() for part in (data.train, data.val) for x in part.x.permute(0, 2, 3, 1)]
    assert sorted(x.tobytes() for x in pixels) == sorted(trained)


def test_the_table_of_labels_tells_the_accuracy_with_its_interval(
    model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(birds / "test", tmp_path / "new")
    paths = sorted((tmp_path / "new").rglob("*.png"))
    lines = [f"{path.relative_to(tmp_path / 'new')};{path.parent.name}" for path in paths]
    (tmp_path / "truth.csv").write_text("file;label\n" + "\n".join(lines) + "\n")
    (tmp_path / "new" / "c" / "00.png").write_bytes(b"gone")
    done = command(f"predict --model {model} --images new --labels truth.csv -o t.csv --json")
    assert done.code == 0, done.err
    told, rows = json.loads(done.out), table((tmp_path / "t.csv").read_text())
    judged = [row for row in rows if row["label"]]
    right = [row["label"] == row["truth"] for row in judged]
    assert told["truth"]["n"] == len(judged) == 23
    assert told["truth"]["accuracy"] == pytest.approx(sum(right) / 23)
    assert sum(right) > 15
    low, high = told["truth"]["interval"]
    assert 0 <= low < told["truth"]["accuracy"] <= high <= 1
    assert [row["truth"] for row in rows if not row["label"]] == ["c"]
    assert told["not_predicted"] == [{"id": "c/00.png", "reason": "not an image of a known format"}]
    assert told["calibration"]["n_images"] == 30
    again = command(f"predict --model {model} --images new --labels truth.csv -o t.csv")
    assert "accuracy " in again.out
    assert "warning" not in done.err + again.err


def test_rows_that_name_none_of_the_images_are_told_in_one_line(
    model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "truth.csv").write_text("file,label\nnotes.txt,c\n00.png,c\ngone.png,wolf\n")
    shutil.copytree(birds / "test" / "c", tmp_path / "new")
    (tmp_path / "new" / "notes.txt").write_text("no image")
    done = command(f"predict --model {model} --images new --labels truth.csv -o t.csv")
    (line,) = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    what = "truth.csv names what is none of the images: 2 files (line 2: notes.txt)"
    assert (done.code, line) == (0, f"warning: {what}: paths are relative to new, with the extension")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file,label\nc/00.png,wolf\n", "labels that the network does not know: wolf: the network knows =cmd"),
        ("file,label\nnowhere.png,c\n", "names none of the images"),
        ("name,label\n", "it needs file and label"),
        ("file,label\n", "names no files"),
    ],
)
def test_a_table_of_labels_that_does_not_fit_is_one_line(
    content: str, said: str, model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "truth.csv").write_text(content)
    done = command(f"predict --model {model} --images {birds}/test --labels truth.csv -o t.csv")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert said in done.err
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--model MODEL --images nowhere -o t.csv", 3, "there is no file or folder nowhere"),
        ("--model MODEL --images empty -o t.csv", 3, "no files in empty"),
        ("--model MODEL --images empty/.. -o empty", 2, "empty is a folder: name a file in it"),
        ("--model MODEL --images empty -o no/where.csv", 2, "there is no folder "),
        ("--model nowhere --images BIRDS -o t.csv", 2, "there is no folder nowhere with a network"),
        ("--model MODEL/.. --images BIRDS -o t.csv", 2, "holds 1 network, but is none: name one of them"),
        ("--model BIRDS --images BIRDS -o t.csv", 3, "is not an exported model"),
        ("--model MODEL --images BIRDS -o t.csv --device tpu", 5, "device 'tpu'"),
        ("--model MODEL --images BIRDS --json", 2, "cannot both be printed"),
        ("--model MODEL --images BIRDS -o t.csv --labels no.csv", 2, "there is no table of labels no.csv"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_no_file(
    words: str, code: int, said: str, model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "empty").mkdir()
    done = command(f"predict {words}".replace("MODEL", str(model)).replace("BIRDS", f"{birds}/test"))
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert said in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"empty"}


def test_files_are_told_by_the_name_that_they_were_called_and_several_folders_stay_apart(
    model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    for name in "ab":
        shutil.copytree(birds / "test" / "c", tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    shutil.copy(tmp_path / "a" / "00.png", tmp_path / "single.png")
    done = command(f"predict --model {model} --images a b ./single.png --images notes.txt")
    assert done.code == 0, done.err
    rows = table(done.out)
    assert [row["id"] for row in rows[6:10]] == ["a/06.png", "a/07.png", "b/00.png", "b/01.png"]
    assert [(row["id"], row["reason"]) for row in rows[-2:]] == [("./single.png", ""), ("notes.txt", "not an image")]
    assert "17 images predicted (c 17)" in done.err


def test_a_file_that_is_named_often_is_told_once_and_is_named_if_it_ever_was(
    model: Path, birds: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(birds / "test" / "c", tmp_path / "new")
    (tmp_path / "new" / "notes.txt").write_text("no image")
    (tmp_path / "new" / "out.png").symlink_to(birds / "test" / "c" / "00.png")
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "truth.csv").write_text("file,label\n00.png,c\n")
    places = f"new new/00.png {tmp_path}/new link/01.png ./new/../new new/notes.txt new/out.png --images link"
    done = command(f"predict --model {model} --images {places} --labels truth.csv")
    assert done.code == 0, done.err
    rows = table(done.out)
    names = [f"new/{path.name}" for path in sorted((tmp_path / "new").iterdir())]
    assert [row["id"] for row in rows] == names
    assert [row["truth"] for row in rows] == ["c", *[""] * (len(names) - 1)]
    assert [row["id"] for row in rows if not row["label"]] == ["new/notes.txt"]
    assert "9 images predicted" in done.err


def test_where_nothing_can_be_read_the_table_says_why_and_the_code_is_3(
    model: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    done = command(f"predict --model {model} --images x.jpg -o t.csv")
    assert done.code == 3
    assert [row["reason"] for row in table((tmp_path / "t.csv").read_text())] == ["an empty file"]


def test_a_folder_that_cannot_be_read_has_a_row_and_all_others_their_prediction(
    model: Path, birds: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(birds / "test" / "c", tmp_path / "new" / "open")
    (tmp_path / "new" / "shut").mkdir()
    scandir = os.scandir

    def guarded(place: str) -> object:
        if str(place).endswith("shut"):  # as for all but root
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", guarded)
    why = "a folder that cannot be read (Permission denied)"
    done = command(f"predict --model {model} --images new -o t.csv")
    assert (done.code, f"  shut: {why}" in done.err.splitlines()) == (0, True), done.err
    rows = table((tmp_path / "t.csv").read_text())
    assert [(row["id"], row["reason"]) for row in rows if not row["label"]] == [("shut", why)]
    assert len(rows) == 9
    done = command(f"predict --model {model} --images new/shut -o t.csv")
    assert (done.code, f"  new/shut: {why}" in done.err.splitlines()) == (3, True), done.err


def test_a_table_is_there_whole_or_as_it_was(
    model: Path, birds: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ",".join(COLUMNS) + "\nold,,,,,,,,\n"
    (tmp_path / "real.csv").write_text(old)
    (tmp_path / "t.csv").symlink_to("real.csv")
    with monkeypatch.context() as limited:
        limited.setattr(tempfile, "tempdir", "/proc/nowhere")  # where parts lie
        done = command(f"predict --model {model} --images {birds}/test -o t.csv")
        assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert (tmp_path / "t.csv").read_text() == old
    done = command(f"predict --model {model} --images {birds}/test -o /dev/full")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert command(f"predict --model {model} --images {birds}/test -o t.csv").code == 0
    assert (tmp_path / "t.csv").is_symlink()
    assert len(table((tmp_path / "real.csv").read_text())) == 24
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "real.csv"}


def test_of_a_thousand_images_a_few_parts_lie_there_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = [odd.saved(odd.colour(seed), "JPEG") for seed in range(4)]
    place = tmp_path / "many"
    place.mkdir()
    for n in range(1000):
        (place / f"{n:04}.jpg").write_bytes(jpeg[n % 4])
    parts = tmp_path / "parts"
    parts.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parts))
    monkeypatch.setattr(images, "CHUNK_FILES", 50)
    files = images.found([str(place)])
    seen: list[int] = []
    for part in images.decoded(files, 16):
        seen += part.positions
        assert len(part.pixels) <= 50
        assert len(list(parts.rglob("pixels.npy"))) <= 2 * images.n_cores()
    assert sorted(seen) == list(range(1000))
    assert list(parts.iterdir()) == []


def test_a_file_that_a_process_dies_of_has_a_row_and_all_others_their_prediction(
    model: Path, birds: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that brings the process down, as those of rare formats do: here Pillow's of PNG, for one file."""
    shutil.copytree(birds / "test", tmp_path / "new")
    (tmp_path / "new" / "c" / "00.png").write_bytes((tmp_path / "new" / "c" / "00.png").read_bytes() + b"deadly")
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        "import builtins, os\nplain = builtins.open\n"
        "def trapped(file, *a, **k):\n"
        "    if str(file).endswith('.png') and plain(file, 'rb').read().endswith(b'deadly'):\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return plain(file, *a, **k)\n"
        "builtins.open = trapped\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(trap))
    done = command(f"predict --model {model} --images new -o t.csv")
    assert done.code == 0, done.err
    rows = table((tmp_path / "t.csv").read_text())
    assert [(row["id"], row["reason"]) for row in rows if not row["label"]] == [
        ("c/00.png", "the process that decoded it died")
    ]
    assert len(rows) == 24
