"""Laws of the data card: it counts what a run would use, says what is wrong, and opens no test image."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from objectives.data.card import FINE, LARGEST, STEP, Card, examine, samples, suggested
from objectives.data.dataset import load
from objectives.errors import DataError
from objectives.task import DataSpec
from search.views.card import about
from tests.objectives.data.images import CPU, grey, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")

BOTH = pytest.mark.parametrize("decode", [False, True], ids=["quick", "full"])


def card_of(path: Path, *, decode: bool = True, **settings: object) -> Card:
    return examine(DataSpec(f"folder:{path}", **settings), decode=decode)  # type: ignore[arg-type]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A folder that comes in splits."""
    for name, counts in {"train": [8, 4], "val": [2, 3], "test": [5, 6]}.items():
        make_folder(tmp_path / "data" / name, counts, ["ant", "bee"])
    return tmp_path / "data"


@BOTH
def test_images_are_counted_by_class_and_split(split: Path, decode: bool) -> None:
    card = card_of(split, decode=decode)
    assert [(c.name, c.n_train, c.n_val, c.n_test) for c in card.classes] == [("ant", 8, 2, 5), ("bee", 4, 3, 6)]
    assert (card.n_train, card.n_val, card.n_test) == (12, 5, 11)
    assert (card.majority, card.uneven) == (10 / 17, 10 / 7)
    assert (card.refusal, card.size) == (None, 4 if decode else None)


@BOTH
def test_without_splits_all_images_are_there_to_train_on(tmp_path: Path, decode: bool) -> None:
    card = card_of(make_folder(tmp_path / "data", [5, 6]), decode=decode)
    assert [(c.n_train, c.n_val, c.n_test) for c in card.classes] == [(5, None, None), (6, None, None)]
    assert (card.n_train, card.n_val, card.n_test) == (11, None, None)


@BOTH
def test_a_table_counts_as_folders_do(tmp_path: Path, decode: bool) -> None:
    folder = make_folder(tmp_path / "data", [9], ["flat"])
    splits = ["train"] * 5 + ["val"] * 2 + ["test"] * 2
    rows = [f"flat/{n:04}.pgm,{'ab'[n % 2]},{split}" for n, split in enumerate(splits)]
    (folder / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    card = card_of(folder, decode=decode, labels="labels.csv")
    assert [(c.name, c.n_train, c.n_val, c.n_test) for c in card.classes] == [("a", 3, 1, 1), ("b", 2, 1, 1)]


def test_no_test_image_is_read_beyond_how_it_begins(split: Path) -> None:
    for image in (split / "test").rglob("*.pgm"):
        image.write_bytes(grey(0)[:5])  # no reader could decode it
    assert card_of(split).n_test == 11


@BOTH
def test_sizes_kinds_and_formats_are_those_of_the_files(tmp_path: Path, decode: bool) -> None:
    folder = make_folder(tmp_path / "data", [1, 1], ["a", "b"])
    Image.new("RGB", (90, 40), "red").save(folder / "a" / "x.jpg")
    Image.new("RGBA", (50, 50), "blue").save(folder / "a" / "x.png")
    Image.new("CMYK", (30, 60), 9).save(folder / "a" / "x.tif")
    card = card_of(folder, decode=decode)
    assert card.sides == (4, 30, 50)
    assert (card.suggested_size, card.channels, card.not_square) == (28, 3, 2 / 5)
    assert card.modes == {"grey": 2, "colour": 1, "alpha": 1, "CMYK": 1}
    assert card.formats == {"PPM": 2, "JPEG": 1, "PNG": 1, "TIFF": 1}
    assert "2 images of 5 smaller than 28 pixels, enlarged" in card.remarks


@BOTH
def test_a_folder_of_grey_images_has_one_channel(tmp_path: Path, decode: bool) -> None:
    assert card_of(make_folder(tmp_path / "data", [3, 3]), decode=decode).channels == 1


@given(st.integers(4, 10_000))
def test_the_suggested_size_enlarges_no_image_of_the_median_size(median: int) -> None:
    size = suggested(median)
    assert 0.66 * median < size <= median or size == LARGEST < median or median < 8
    assert size % (STEP if median >= FINE else 4) == 0


@BOTH
def test_files_that_are_no_images_are_named_by_what_they_are(tmp_path: Path, decode: bool) -> None:
    folder = make_folder(tmp_path / "data", [300, 100], ["a", "b"])
    Image.new("RGB", (9, 9), "red").save(folder / "a" / "x.jpg", "PNG")
    (folder / "a" / "empty.png").touch()
    (folder / "a" / "notes\n.txt").write_text("no image")
    (folder / "a" / "Thumbs.db").write_text("known to be none")
    card = card_of(folder, decode=decode)
    assert card.unreadable == ("a/empty.png: an empty file",)
    assert card.unrecognised == ("a/notes\\n.txt",)
    assert "a/x.jpg: in truth a PNG" in card.suspicious
    assert "a/0000.pgm: only 4x4 pixels" in card.suspicious
    assert ("a/x.jpg: of one colour" in card.suspicious) == decode
    assert any(line.startswith("suspicious images: ") for line in card.warnings)


def test_warnings_are_in_the_words_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    make_folder(folder / "train", [60, 5], ["Ant", "ant"])
    make_folder(folder / "val", [3], ["Ant"])
    (folder / "val" / "Ant" / "again.pgm").write_bytes((folder / "train" / "Ant" / "0000.pgm").read_bytes())
    (folder / "train" / "ant" / "other.pgm").write_bytes((folder / "train" / "Ant" / "0001.pgm").read_bytes())
    (folder / "train" / "Ant" / "twice.pgm").write_bytes((folder / "train" / "Ant" / "0002.pgm").read_bytes())
    said = card_of(folder).warnings
    assert set(load_folder(folder).warnings) < set(said)
    (more,) = (line for line in said if line.startswith("training images that are copies"))
    assert more.startswith("training images that are copies of another one of their class: 1 (train/Ant/0002.pgm = ")
    assert more.endswith("they count double, remove the copies")


@pytest.mark.parametrize(
    ("counts", "said"), [([5], "only 1 class"), ([5, 1], "fewer than two images"), ([5, 0], "'class001' .* no images")]
)
@BOTH
def test_what_a_run_would_refuse_is_shown_with_the_reason(
    counts: list[int], said: str, decode: bool, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "data", counts)
    with pytest.raises(DataError, match=said) as refused:
        load_folder(folder)
    card = card_of(folder, decode=decode)
    assert card.refusal == str(refused.value)
    assert [each.n_train for each in card.classes] == counts


@pytest.mark.parametrize(("n", "said"), [(5, "the validation split has no image"), (0, "'ant' .* no images")])
@BOTH
def test_a_split_without_an_image_is_refused_in_the_words_of_a_run(
    n: int, said: str, decode: bool, tmp_path: Path
) -> None:
    for split, counts in {"train": [n, n], "val": [0, 0], "test": [0, 0]}.items():
        make_folder(tmp_path / "data" / split, counts, ["ant", "bee"])
        (tmp_path / "data" / split / "bee" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=said) as refused:
        load_folder(tmp_path / "data")
    card = card_of(tmp_path / "data", decode=decode)
    assert card.refusal == str(refused.value)
    assert (card.n_train, card.n_val, card.n_test) == (2 * n, 0, 0)
    assert about(card)


def test_data_with_a_name_have_a_card_and_their_own_size() -> None:
    card = examine(DataSpec("digits"))
    assert (card.n_train, card.n_val, card.n_test) == (1500, None, 297)
    assert (card.suggested_size, card.channels, card.sides) == (8, 1, (8, 8, 8))
    assert sum(each.n_train for each in card.classes) == 1500


def test_a_card_is_plain_data(split: Path) -> None:
    card = card_of(split)
    assert json.loads(json.dumps(card.to_json()))["classes"][1] == {
        **{"name": "bee", "n_train": 4, "n_val": 3, "n_test": 6}
    }


def test_every_class_has_pictures(split: Path) -> None:
    (split / "train" / "ant" / "0000.pgm").write_text("no image")
    for spec in (DataSpec(f"folder:{split}"), DataSpec("digits")):
        found = samples(spec, 2)
        assert {len(pictures) for pictures in found.values()} == {2}
        assert all(picture.startswith(b"\xff\xd8") for pictures in found.values() for picture in pictures)


def test_pictures_of_files_with_damaged_metadata_are_shown_without_a_word(split: Path) -> None:
    cut = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\1\3\0\1\0\0\0\6\0"
    Image.new("RGB", (9, 9), "red").save(split / "train" / "ant" / "x.jpg", exif=cut)
    assert len(samples(DataSpec(f"folder:{split}"), 20)["ant"]) == 8 + 1 + 2


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Paths of all files that are opened during the test."""
    paths: list[str] = []
    listening = [True]

    def note(event: str, values: tuple[object, ...]) -> None:
        if listening and event == "open":
            paths.append(str(values[0]))

    sys.addaudithook(note)
    yield paths
    listening.clear()


def test_what_the_cache_knows_is_not_read_again(tmp_path: Path, opened: list[str]) -> None:
    folder = make_folder(tmp_path / "data", [5, 6])
    (folder / "class000" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    fresh = card_of(folder, decode=False)
    load_folder(folder)
    opened.clear()
    assert card_of(folder, decode=False) == fresh
    assert not [path for path in opened if path.startswith(str(folder))]


def test_a_run_says_classes_sizes_and_splits_in_three_lines(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [8, 12], ["ant", "bee"])
    Image.new("RGB", (90, 40), "red").save(folder / "ant" / "x.jpg")
    assert load_folder(folder, 16).about.splitlines() == [
        "21 images in 2 classes: bee is the largest with 12 (57.1%), ant the smallest with 9",
        "shorter sides of 4 to 40 (median 4) pixels, used as 16x16 in colour",
        "14 to train, 7 to validate (split off, 3 times: each image validates once)",
    ]
    assert load(DataSpec("digits", n_train=500), CPU).about.splitlines()[1:] == [
        "shorter sides of 8 pixels, used as 8x8 in grey",
        "500 of 1172 to train, 328 to validate (split off)",
    ]


@pytest.mark.parametrize("decode", [True, False])
def test_a_card_says_what_a_run_would_stream(tmp_path: Path, decode: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSpec(f"folder:{make_folder(tmp_path / 'data', [10, 10])}", size=64)
    assert examine(spec, decode=decode).streamed is None
    monkeypatch.setattr("objectives.data.card.free_on_host", lambda: 50_000)
    card = examine(spec, decode=decode)
    assert card.refusal is None
    assert card.streamed is not None
    assert "20 images of 64x64 with 1 channel take 0.1 MB, twice that now and then" in card.streamed
    assert ("memory", card.streamed) in about(card)
