"""Laws of tables that name the classes of a folder's images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from objectives.data.card import examine
from objectives.errors import DataError
from objectives.task import DataSpec
from tests.objectives.data.images import as_set, everything, grey, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")


def flat(place: Path, n: int = 12) -> Path:
    """A folder with n images."""
    place.mkdir(parents=True)
    for number in range(n):
        (place / f"{number}.pgm").write_bytes(grey(number))
    return place


def lines(head: str, n: int = 12, more: str = "") -> str:
    return head + "".join(f"\n{number}.pgm,{'ab'[number % 2]}{more}" for number in range(n))


@pytest.mark.parametrize(
    "table",
    [
        lines("file,label"),
        "\ufeff" + lines("File , LABEL\r").replace("\n", "\r\n"),
        lines("file,label").replace(",", ";"),
        lines("file,label").replace(",", "\t") + "\n\n",
        lines("file,label,remark", more=',"wet, cold"'),
        lines("file,label").replace("\n", '\n"./').replace(".pgm", '.pgm"'),
        lines('"file", "label", "remark"', more=', "wet, cold"').replace(",a", ', "a"'),
        lines("file,label").replace("\n", "\r"),
    ],
    ids=["plain", "spreadsheet", "semicolons", "tabs", "other columns", "quoted, relative", "spaced", "old Mac"],
)
def test_a_table_names_the_classes_of_a_flat_folder(table: str, tmp_path: Path) -> None:
    folder = flat(tmp_path / "data")
    (folder / "labels.csv").write_bytes(table.encode())
    data = load_folder(folder, labels="labels.csv")
    assert (data.classes, data.warnings) == (("a", "b"), ())
    whole = torch.cat([data.train.y, data.val.y]).tolist()
    assert (whole.count(0), whole.count(1)) == (6, 6)


def test_a_table_may_lie_anywhere_and_its_images_one_folder_deeper(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data" / "images").parent
    for table in (folder / "labels.csv", tmp_path / "labels.csv"):
        table.write_text(lines("file,label"))
        assert load_folder(folder, labels=str(table)).classes == ("a", "b")


def test_the_split_column_says_what_validates_and_test_images_stay_unopened(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data")
    splits = ["Train"] * 6 + ["val"] * 2 + ["test"] * 4
    rows = [f"{number}.pgm,{'ab'[number % 2]},{split}" for number, split in enumerate(splits)]
    (folder / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    for number in range(8, 12):
        (folder / f"{number}.pgm").unlink()
    data = load_folder(folder, labels="labels.csv")
    assert as_set(data.val) == {grey(6)[-16:], grey(7)[-16:]}
    assert data.about.endswith(
        "6 to train, 2 to validate (as labels.csv says); 4 test images of labels.csv left unopened"
    )


def test_images_that_the_table_leaves_out_are_told(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data", 14)
    (folder / "readme.txt").write_text("of 2019")
    (folder / "labels.csv").write_text(lines("file,label"))
    assert load_folder(folder, labels="labels.csv").warnings == (
        "left out, because not in labels.csv: 2 images (12.pgm, 13.pgm)",
    )


def test_images_in_hidden_folders_are_told_unless_the_table_names_them(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data", 12)
    flat(folder / ".more", 13)
    (folder / "labels.csv").write_text(lines("file,label") + "".join(f"\n.more/{n}.pgm,a" for n in range(12)))
    found = load_folder(folder, labels="labels.csv")
    assert "left out, because not in labels.csv: 1 image (.more/12.pgm)" in found.warnings


@pytest.mark.parametrize(("n", "said"), [(1, ""), (4, "4 of 12 images .* cannot be used .* 1.data: not an image")])
def test_files_of_a_table_that_are_no_images_are_losses_whatever_they_are_called(
    n: int, said: str, tmp_path: Path
) -> None:
    folder = flat(tmp_path / "data")
    for number in range(12):
        (folder / f"{number}.pgm").rename(folder / f"{number}.data")
    (folder / "labels.csv").write_text(lines("file,label").replace(".pgm", ".data"))
    for number in range(1, n + 1):
        (folder / f"{number}.data").write_bytes(b"\x93NUMPY")
    if said:
        with pytest.raises(DataError, match=said):
            load_folder(folder, labels="labels.csv")
    else:
        assert load_folder(folder, labels="labels.csv").skipped == ("1.data: not an image",)
    card = examine(DataSpec(f"folder:{folder}", labels="labels.csv"))
    assert (len(card.unreadable), card.unrecognised, card.refusal is None) == (n, (), not said)


def test_paths_may_be_absolute_and_lines_may_end_in_empty_cells(tmp_path: Path) -> None:
    folder = flat(tmp_path / "data", 12)
    (folder / "labels.csv").write_text(
        "file,label\n" + "".join(f"{folder.resolve()}/{n}.pgm,{'ab'[n % 2]},,\n" for n in range(12))
    )
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for place in (folder, tmp_path / "link"):
        found = load_folder(place, labels="labels.csv")
        assert (found.warnings, [len(images) for images in everything(found).values()]) == ((), [6, 6])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("id,breed\n1,2", "has columns id, breed: it needs file and label, and may have split"),
        ("", "has columns none"),
        ("file,label", "names no files"),
        ("file,label\n0.pgm", "line 2: 1 column, the first line has 2"),
        ("file,label\n0.pgm,a\n1.pgm,b, c", "line 3: 3 columns, the first line has 2: a cell that holds a separator"),
        ("file,label\n0.pgm,", "line 2: the label is empty"),
        ("file,label\n0.pgm,a\n0.pgm,b", "line 3: 0.pgm is named in line 2 already"),
        ("file,label\n0.pgm,a\n./0.pgm,b", "line 3: ./0.pgm is named in line 2 already"),
        ("file,label,split\n0.pgm,a,train\n1.pgm,b,", "line 3: split is '': write train, val or test"),
        ("file,label\n0.pgm,a\n99,b\n98,b", r"what is not in .*data: 2 files \(line 4: 98\): .* with the extension"),
        (
            "file,label\n../secret.pgm,a\n1.pgm,b\n2.pgm,b",
            r"class 'a' in .* has no images \(\.\./secret.pgm: leads out",
        ),
        (
            "file,label\n0.pgm,a\n1.pgm,b\n2.pgm,b",
            r"fewer than two images in labels\.csv \(a\): add images$",
        ),
        ("file,label\n0.pgm,\xff".encode("utf-16"), "is not in UTF-8: save it as UTF-8"),
        ("file,label\n0.pgm,Käfer".encode("latin-1"), "is not in UTF-8: save it as UTF-8"),
        ("file,label\n" + "x" * 200_000 + ",a", "is no table: field larger"),
        ("file,label,Label\n0.pgm,a,b", "column label comes twice in the first line: rename one of them"),
        ("split,file,label,split\ntrain,0.pgm,a,b", "column split comes twice"),
        ("file,label,split\n0.pgm,a,valve", "line 2: split is 'valve': write train, val or test"),
        ("file,label,split\n0.pgm,a,trainee", "line 2: split is 'trainee'"),
        ("file,label,split\n0.pgm,a,test\n1.pgm,b,Test", "names no image to train on: split is test in every line"),
        ("file,label,split\n0.pgm,a,val\n1.pgm,b,test", "split is test and val in every line: write train"),
        (
            "file,label,split\n0.pgm,a,train\n1.pgm,a,val",
            r"only 1 class, a, in .*labels\.csv: .* two: write a second one into its column label",
        ),
        (
            "file,label,split\n0.pgm,a,train\n1.pgm,b,val",
            r"1 class with no image to train on in labels\.csv \(b\): add images$",
        ),
        (None, r"there is no table of labels labels\.csv \(here, .*data\): check the path after --labels"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_in_one_line(
    table: str | bytes | None, said: str, tmp_path: Path
) -> None:
    folder = flat(tmp_path / "data")
    (tmp_path / "secret.pgm").write_bytes(grey(77))
    if table is not None:
        (folder / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(DataError, match=said) as refused:
        load_folder(folder, labels="labels.csv")
    assert "\n" not in str(refused.value)


def test_a_folder_that_needs_a_table_is_told_of_the_one_beside_it(tmp_path: Path) -> None:
    folder = flat(tmp_path / "flat")
    with pytest.raises(DataError, match=r"columns file, label: --labels FILE\.csv"):
        load_folder(folder)
    for place in (folder, flat(tmp_path / "deep" / "images").parent):
        (place / "labels.csv").write_text(lines("file,label"))
        (place / "about.csv").write_text("id,breed\n1,2")
        with pytest.raises(DataError, match=f"--labels {place}/labels.csv"):
            load_folder(place)
        (place / "labels-2.csv").write_text(lines("file,label"))  # which of them is meant nobody knows
        with pytest.raises(DataError, match=r"--labels FILE\.csv"):
            load_folder(place)


def test_labels_make_the_same_data_as_class_folders(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [6, 6], ["a", "b"])
    before = load_folder(folder)
    rows = [f"{name}/{number:04}.pgm,{name}" for name in "ab" for number in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    after = load_folder(folder, labels=str(tmp_path / "labels.csv"))
    assert (after.content_hash, after.split_hash) == (before.content_hash, before.split_hash)
