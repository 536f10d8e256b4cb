"""A network in Python: files, arrays and Pillow images are told as the command tells them, one after the other."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from frontrunner import Model
from frontrunner.models import PICTURES
from tests.objectives.inference import odd
from tests.search.commands.networks.conftest import picture
from tests.search.place import Done


@pytest.fixture
def network(model: Path) -> Model:
    return Model.load(model, "cpu")


def test_a_folder_of_odd_files_is_told_as_the_command_tells_it(
    model: Path, network: Model, tmp_path: Path, command: Callable[[str], Done]
) -> None:
    odd.folder(tmp_path / "odd")
    assert command(f"predict --model {model} --images odd -o table.csv").code == 0
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = network.predict(tmp_path / "odd")
    assert [each.label or "" for each in found] == [row["label"].removeprefix("'") for row in rows]
    for each, row in zip(found, rows, strict=True):
        assert bool(each.reason) == (each.label is None) == bool(row["reason"])
        if each.label is None:
            assert (math.isnan(each.probability), each.probabilities) == (True, {})
            continue
        assert each.probability == pytest.approx(float(row["probability"]), abs=1e-6)
        assert each.margin == pytest.approx(float(row["margin"]), abs=1e-6)
        assert sum(each.probabilities.values()) == pytest.approx(1)
        assert list(each.probabilities.values()) == sorted(each.probabilities.values(), reverse=True)
        assert set(each.probabilities) == set(network.classes)
        assert next(iter(each.probabilities)) == each.label


def test_files_arrays_and_images_tell_the_same_in_their_order(network: Model, tmp_path: Path) -> None:
    pictures = [picture(n % 3, n, side=9 + n) for n in range(6)]
    for n, each in enumerate(pictures):
        each.save(tmp_path / f"{n}.png")
    arrays = [np.asarray(each) for each in pictures]
    files = network.predict([tmp_path / f"{n}.png" for n in range(6)])
    assert [each.probabilities for each in network.predict(pictures)] == [each.probabilities for each in files]
    mixed = network.predict([str(tmp_path / "0.png"), arrays[1], pictures[2], *arrays[3:5], tmp_path / "5.png"])
    assert mixed.labels == files.labels
    assert [each.source for each in mixed] == [str(tmp_path / "0.png"), "1", "2", "3", "4", str(tmp_path / "5.png")]
    several = np.stack([arrays[0]] * 3)
    assert network.predict(several).labels == files.labels[:1] * 3
    grey = np.asarray(pictures[0].convert("L"))
    alike = [grey, grey[..., None], np.stack([grey] * 3, axis=-1), np.stack([grey] * 5)]
    assert len({round(network.predict(each)[0].probability, 5) for each in alike}) == 1
    assert len(network.predict(alike[-1])) == 5


def test_an_image_is_turned_as_its_file_is_and_keeps_what_it_says_of_itself(network: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, 3, side=40).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        told = [network.predict(image)[0].probabilities for _ in range(2)]
        assert image.getexif()[0x0112] == 6
    assert told == [network.predict(tmp_path / "turned.png")[0].probabilities] * 2


def test_a_stream_takes_no_more_than_it_tells_soon(network: Model) -> None:
    taken = 0

    def endless() -> Iterator[npt.NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield np.full((16, 16, 3), taken % 200, np.uint8)

    stream = network.stream(endless())
    assert next(stream).source == "0"
    assert taken <= PICTURES + 1
    for _ in range(PICTURES):
        last = next(stream)
    assert last.source == str(PICTURES)
    assert taken <= 2 * PICTURES + 1


def test_predictions_show_themselves_and_nothing_of_strangers_is_markup(network: Model, tmp_path: Path) -> None:
    name = tmp_path / "<b>x<b>.png"
    picture(0, 1).save(name)
    found = network.predict([name] * 30)
    shown = found._repr_html_()
    assert "<b>" not in shown
    assert "and 10 more" in shown
    assert repr(network).endswith("images of side 16, 3 channels, 3 classes>")
    assert network.about["study"] == "birds"


def test_what_is_no_image_or_no_network_is_a_value_error_of_one_line(
    network: Model, model: Path, birds: Path, tmp_path: Path
) -> None:
    for given, said in (
        (np.zeros((16, 16)), r"image 0 is \[16, 16\] float64: arrays are .* uint8"),
        (np.zeros((1, 16, 16, 2), np.uint8), r"image 0 is \[16, 16, 2\] uint8: arrays are .* uint8"),
        ([picture(0, 0), 3], "image 1 is a int: give paths, arrays of NumPy or images of Pillow"),
        (tmp_path / "none.png", "there is no file or folder .*none.png: check the path"),
    ):
        with pytest.raises(ValueError, match=f"^{said}$"):
            network.predict(given)  # type: ignore[arg-type]
    for folder, device, said in (
        (tmp_path / "none", "cpu", "there is no folder"),
        (model.parent, "cpu", "holds 1 network, but is none: name one of them"),
        (birds, "cpu", "is not an exported model"),
        (model, "tpu", "device 'tpu' "),
    ):
        with pytest.raises(ValueError, match=said):
            Model.load(folder, device)
