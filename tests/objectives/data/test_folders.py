"""Laws of folders of images: what is read and skipped, and how every kind of image is converted."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from objectives.data.dataset import load
from objectives.errors import DataError
from objectives.task import DataSpec
from tests.objectives.data.images import CPU, everything, grey, load_folder, make_folder

pytestmark = pytest.mark.usefixtures("cache")


# --- folders: what is read --------------------------------------------------------------------------------------------


def test_classes_are_the_folders_in_train_and_the_test_folder_is_ignored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data" / "train", [4, 4], ["b", "a"]).parent
    alone = load_folder(folder)
    make_folder(folder / "test", [5, 5], ["a", "c"])
    assert alone.classes == ("a", "b")
    assert load_folder(folder).content_hash == alone.content_hash


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_folder(make_folder(tmp_path / "data", [3, 3], ["bus", "train"])).classes == ("bus", "train")


def test_a_relative_folder_is_looked_for_under_the_data_root_first(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", [3, 3])
    assert load(DataSpec("folder:mine", root=str(tmp_path), size=4), CPU).n_classes == 2
    with pytest.raises(DataError, match=r"no folder .*yours or yours: check the path"):
        load(DataSpec("folder:yours", root=str(tmp_path)), CPU)


def test_odd_names_hidden_files_other_files_and_deeper_folders_are_no_trouble(tmp_path: Path) -> None:
    names = ["Cat & Kitten", "frösche", "a\nb", "=cmd,x", os.fsdecode(b"fr\xf6sche")]
    folder = make_folder(tmp_path / "data", [3] * 5, names)
    first = folder / "Cat & Kitten"
    for hidden in (folder / ".git" / "x.pgm", folder / ".x.pgm", first / ".x.pgm", first / ".thumbs" / "x.pgm"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"no image")
    (folder / "labels.csv").write_text("a,b")
    (first / "notes.txt").write_text("a cat")
    (first / "more").mkdir()
    (first / "more" / "UPPER.PGM").write_bytes(grey(99))
    data = load_folder(folder)
    assert data.classes == ("=cmd,x", "Cat & Kitten", "a\\nb", "frösche", "fr\\xf6sche")
    assert [len(images) for images in everything(data).values()] == [3, 4, 3, 3, 3]
    assert data.skipped == ()


def test_links_are_followed_inside_the_folder_and_skipped_and_listed_where_they_lead_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5], ["a", "b"])
    secret = make_folder(tmp_path / "secret", [2], ["c"]) / "c"
    (folder / "a" / "within.pgm").symlink_to(folder / "b" / "0000.pgm")
    (folder / "a" / "out.pgm").symlink_to(secret / "0000.pgm")
    (folder / "a" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "c").symlink_to(secret, target_is_directory=True)
    data = load_folder(folder)
    assert data.classes == ("a", "b")
    assert [len(images) for images in everything(data).values()] == [6, 5]
    assert data.skipped == (
        "a/out.pgm: a link that leads out of the folder (follow_links = true allows it)",
        "a/round: a link to a folder, not followed",
        "c: a link that leads out of the folder (follow_links = true allows it)",
    )


def test_what_was_never_meant_as_an_image_is_told_waited_for_by_nobody_and_counts_towards_no_limit(
    tmp_path: Path,
) -> None:
    folder = make_folder(tmp_path / "data", [5, 5], ["a", "b"])
    for pipe in ("a/pipe.jpg", "pipe.jpg"):
        os.mkfifo(folder / pipe)
    for n in range(4):
        (folder / "b" / f"round{n}").symlink_to(folder / "a", target_is_directory=True)
    data = load_folder(folder)
    links = [f"b/round{n}: a link to a folder, not followed" for n in range(4)]
    assert data.skipped == ("a/pipe.jpg: no regular file", *links, "pipe.jpg: no regular file")
    assert [len(images) for images in everything(data).values()] == [5, 5]


def test_a_train_folder_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    elsewhere = make_folder(tmp_path / "elsewhere", [3, 3])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(DataError, match=f"is a link out of .* pass folder:{elsewhere}"):
        load_folder(tmp_path / "data")
    assert load_folder(elsewhere).n_classes == 2


def test_an_empty_class_and_a_folder_without_classes_are_refused_by_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    (folder / "newt").mkdir()
    (folder / "newt" / "readme.txt").write_text("soon")
    with pytest.raises(DataError, match=r"class 'newt' in .* has no images"):
        load_folder(folder)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "x.pgm").write_bytes(grey(0))
    with pytest.raises(DataError, match="flat has no class folders: put the images of class X into"):
        load_folder(tmp_path / "flat")


def test_damaged_images_are_skipped_and_listed_with_their_reason(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5], ["a", "b"])
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    (folder / "a" / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-40])
    (folder / "a" / "empty.jpg").touch()
    (folder / "b" / "text.png").write_text("no image")
    data = load_folder(folder)
    assert sum(map(len, everything(data).values())) == 10
    cut, empty, text = data.skipped
    assert cut.startswith("a/cut.png: ")
    assert empty == "a/empty.jpg: an empty file"
    assert text == "b/text.png: not an image of a known format"
    assert data.skipped == load_folder(folder).skipped


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        *(("x.jfif", "JPEG"), ("x.jpe", "JPEG"), ("x", "JPEG"), ("x.txt", "PNG"), ("x.jpg", "PNG"), ("x.PNG", "GIF")),
        *(("x.jp2", "JPEG2000"), ("x.avif", "AVIF"), ("x.mpo", "MPO"), ("x.tif", "TIFF"), ("x.1", "WEBP")),
    ],
)
def test_an_image_is_known_by_its_content_whatever_its_name(tmp_path: Path, name: str, format_name: str) -> None:
    if (codec := {"JPEG2000": "jpg_2000", "AVIF": "avif", "WEBP": "webp"}.get(format_name)) and not features.check(
        codec
    ):
        pytest.skip(f"this Pillow was built without {format_name}")
    folder = make_folder(tmp_path / "data", [3, 3])
    Image.new("RGB", (9, 9), "red").save(folder / "class000" / name, format=format_name)
    data = load_folder(folder)
    assert [len(images) for images in everything(data).values()] == [4, 3]
    assert data.skipped == ()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.heic", b"\0\0\0\x18ftypheic" + bytes(99), "HEIC: convert it to PNG or JPEG"),
        ("x", b"\0\0\0\x18ftypmif1" + bytes(99), "HEIF: convert it to PNG or JPEG"),
        ("x.cr2", b"II*\0\x10\0\0\0CR" + bytes(99), "CR2: convert it to PNG or JPEG"),
        ("x.dcm", bytes(128) + b"DICM" + bytes(99), "DICOM: convert it to PNG or JPEG"),
        ("x.jxl", b"\xff\x0a" + bytes(99), "JPEG XL: convert it to PNG or JPEG"),
        ("x.svg", b"<svg/>", "SVG: convert it to PNG or JPEG"),
        ("x.svg", b"<?xml version='1.0'?><!-- " + bytes(200) + b"<svg/>", "SVG: convert it to PNG or JPEG"),
        ("x", b"<?xml version='1.0'?>\n<svg/>", "SVG: convert it to PNG or JPEG"),
        ("x.gif", b"GIF89a", "a damaged GIF"),
        ("x.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(17), "a damaged PNG"),
        ("x.tif", b"II*\0" + bytes(99), "a damaged or unusual TIFF: convert it to PNG or JPEG"),
        ("x.tga", bytes(99), "not an image of a known format"),
        ("x", b"\xff\xd8\xff" + bytes(99), "a damaged JPEG"),
    ],
)
def test_what_was_meant_as_an_image_and_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    (folder / "class000" / name).write_bytes(content)
    (line,) = load_folder(folder).skipped
    assert line.startswith(f"class000/{name}: {said}")


def test_what_cannot_be_read_is_counted_by_class_and_other_files_apart(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [10, 10], ["cats", "dogs"])
    for number in range(9):
        (folder / "cats" / f"x{number}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"9 of 29 images in .* cannot be used \(cats 9 of 19\), and the limit is 1 %"):
        load_folder(folder)
    for number in range(3, 9):
        (folder / "cats" / f"x{number}.heic").unlink()
    assert load_folder(folder).about.endswith("; cannot be read: cats 3 of 13")
    for image in (folder / "cats").glob("*.heic"):
        image.write_text("BM is an abbreviation, P5 too")
        image.rename(image.with_suffix(".txt"))
    (folder / "dogs" / "Thumbs.db").write_bytes(bytes(99))
    assert load_folder(folder).about.endswith("validates once); 3 files of other kinds left out")


def odd_exif(tag: int, kind: int, n: int, value: bytes) -> bytes:
    """EXIF with orientation 6 and a tag of a type that it does not have, as some phones write it."""
    entries = sorted([(0x0112, 3, 1, b"\6\0\0\0"), (tag, kind, n, value)])
    return b"Exif\0\0II*\0\x08\0\0\0\2\0" + b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + bytes(4)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp"])
@pytest.mark.parametrize(
    "odd",
    [(0x011A, 2, 4, b"72a\0"), (0x0100, 9, 1, b"\xfb\xff\xff\xff"), (0x0128, 4, 1, b"\0\0\1\0")],
    ids=["text for a fraction", "a negative width", "70000 in 16 bits"],
)
def test_odd_tags_beside_an_orientation_are_no_damage(
    tmp_path: Path, name: str, odd: tuple[int, int, int, bytes]
) -> None:
    image = Image.new("L", (32, 32))
    image.paste(255, (0, 0, 16, 16))
    exif = odd_exif(*odd) if name == "x.jpg" else odd_exif(*odd)[6:]
    x = converted(tmp_path / "data", image, name, options={"exif": exif})
    assert (x[0] > 128).nonzero().tolist() == [[row, column] for row in range(4) for column in range(4, 8)]


def test_a_file_of_a_format_that_is_not_allowed_is_skipped_whatever_its_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    Image.new("RGB", (9, 9)).save(folder / "class000" / "icon.png", format="ICO")
    assert load_folder(folder).skipped == ("class000/icon.png: ICO: convert it to PNG or JPEG",)


def test_file_names_are_told_on_one_line_as_valid_text(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [3, 3], ["a", "b"])
    for name in ("a\nb,c.png", "=cmd|' x'!A1.png", os.fsdecode(b"\xff.png")):
        (folder / "a" / name).touch()
    assert load_folder(folder).skipped == (
        "a/=cmd|' x'!A1.png: an empty file",
        "a/a\\nb,c.png: an empty file",
        "a/\\xff.png: an empty file",
    )


def test_a_small_file_that_unpacks_to_400_megapixels_is_skipped(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    bomb = png(20_000, 20_000, bits=1, colour=0, rows=bytes(2501) * 20_000)
    assert len(bomb) < 50_000
    (folder / "class000" / "bomb.png").write_bytes(bomb)
    assert load_folder(folder).skipped == ("class000/bomb.png: over 50 megapixels",)


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG file, written by hand: Pillow writes neither 16-bit colour nor bombs."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    packed = zlib.compress(rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "side", [7500, 10000, 20000]
)  # 400 megapixels are an error to Pillow, 100 a warning, 56 nothing
def test_images_of_more_than_fifty_megapixels_are_skipped(tmp_path: Path, side: int) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    (folder / "class000" / "huge.pgm").write_bytes(b"P5 %d %d 255\n" % (side, side) + bytes(64))
    assert load_folder(folder).skipped == ("class000/huge.pgm: over 50 megapixels",)


@pytest.mark.parametrize(("good", "tolerated"), [(10, 3), (595, 6)])
def test_more_damage_than_one_percent_and_three_images_is_refused(tmp_path: Path, good: int, tolerated: int) -> None:
    folder = make_folder(tmp_path / "data", [good, 5], ["a", "b"])
    for i in range(tolerated):
        (folder / "a" / f"bad{i}.png").touch()
    assert len(load_folder(folder).skipped) == tolerated
    (folder / "a" / "bad.png").touch()
    with pytest.raises(DataError, match=rf"{tolerated + 1} of {good + 5 + tolerated + 1} images .* 1 %.*a/bad.png: "):
        load_folder(folder)


def test_a_class_that_is_damaged_as_a_whole_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5, 1], ["a", "b", "newt"])
    (folder / "newt" / "0000.pgm").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of class 'newt' .* newt/0000.pgm: an empty file"):
        load_folder(folder)


# --- folders: conversions ---------------------------------------------------------------------------------------------


def converted(
    folder: Path, image: Image.Image, name: str = "x.png", size: int = 8, options: Mapping[str, object] = {}
) -> torch.Tensor:
    """The image [channels, size, size] that `load` makes of a file, saved with `options`."""
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for i in range(2):
            image.save(folder / label / f"{i}{name}", **options)  # type: ignore[arg-type]
    return load_folder(folder, size=size).train.x[0]


def solid(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (8, 8), colour)  # type: ignore[arg-type]


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, *colour])
    return image


@pytest.mark.parametrize(
    ("image", "name", "options", "expected"),
    [
        pytest.param(solid("L", 77), "x.png", {}, (77,), id="grey"),
        pytest.param(solid("1", 1), "x.png", {}, (255,), id="black and white"),
        pytest.param(solid("LA", (0, 128)), "x.png", {}, (127,), id="grey with alpha, on white"),
        pytest.param(solid("I;16", 65535), "x.png", {}, (255,), id="16 bits, white"),
        pytest.param(solid("I;16", 25700 + 128), "x.png", {}, (100,), id="16 bits, rounded down"),
        pytest.param(solid("I;16", 25700 + 129), "x.tif", {}, (101,), id="16 bits, rounded up"),
        pytest.param(solid("RGB", (1, 2, 3)), "x.bmp", {}, (1, 2, 3), id="colour"),
        pytest.param(solid("RGBA", (255, 0, 0, 128)), "x.png", {}, (255, 127, 127), id="alpha, on white"),
        pytest.param(solid("RGB", (9, 8, 7)), "x.png", {"transparency": (9, 8, 7)}, (255, 255, 255), id="colour key"),
        pytest.param(palette((5, 6, 7)), "x.png", {}, (5, 6, 7), id="palette"),
        pytest.param(palette((5, 6, 7)), "x.gif", {}, (5, 6, 7), id="gif"),
        pytest.param(palette((5, 6, 7)), "x.png", {"transparency": 1}, (255, 255, 255), id="transparent palette"),
        pytest.param(solid("CMYK", (0, 255, 255, 0)), "x.tif", {}, (255, 0, 0), id="cmyk"),
        pytest.param(solid("CMYK", (0, 0, 0, 155)), "x.jpg", {}, (100, 100, 100), id="cmyk of a camera, inverted"),
    ],
)
def test_every_kind_of_pixel_has_one_conversion(
    tmp_path: Path, image: Image.Image, name: str, options: dict[str, object], expected: tuple[int, ...]
) -> None:
    x = converted(tmp_path / "data", image, name, options=options)
    assert x[:, 3, 3].tolist() == list(expected)
    assert torch.equal(x, x[:, :1, :1].expand_as(x))


def test_16_bit_pgm_is_scaled_by_its_own_maximum(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            (tmp_path / label / f"{i}.pgm").write_bytes(b"P5 4 4 1000\n" + np.full(16, 500, ">u2").tobytes())
    assert set(load_folder(tmp_path).train.x.flatten().tolist()) == {128}


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_fixed_range_are_refused_rather_than_guessed(tmp_path: Path, mode: str) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    solid(mode, 7).save(folder / "class000" / "x.tif")
    assert "convert the file to 8 or 16 bits" in load_folder(folder).skipped[0]


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (0, 7)), (3, (7, 7)), (4, (7, 0)), (5, (0, 0)), (6, (0, 7)), (7, (7, 7)), (8, (7, 0))],
)
@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_the_orientation_in_exif_is_applied(
    tmp_path: Path, name: str, orientation: int, corner: tuple[int, int]
) -> None:
    """`corner`: where the first pixel of the file belongs, by row and column (EXIF 2.3, tag 0x0112)."""
    image = solid("L", 0)
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    x = converted(tmp_path / "data", image, name, options={"exif": exif})
    assert x[0].nonzero().tolist() == [list(corner)]
    assert x[0][corner] == 255


def test_16_bit_colour_keeps_its_high_bytes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    row = b"\0" + struct.pack(">3H", 0x0102, 0x80FF, 0xFFFF) * 4
    (folder / "class000" / "x.png").write_bytes(png(4, 4, bits=16, colour=2, rows=row * 4))
    (x,) = [x for x in everything(load_folder(folder))[0] if x[0] != x[16]]
    assert (x[0], x[16], x[32]) == (0x01, 0x80, 0xFF)


def test_the_centre_is_kept_and_the_shorter_side_fills_the_square(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16), "red")
    image.paste((0, 255, 0), (8, 0, 24, 16))
    assert converted(tmp_path / "wide", image, size=16)[:, 8].T.tolist() == [[0, 255, 0]] * 16
    assert converted(tmp_path / "tall", image.rotate(90, expand=True), size=4)[:, 1, 1].tolist() == [0, 255, 0]


def test_shrinking_averages_instead_of_picking_pixels(tmp_path: Path) -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (32, 16)))
    x = converted(tmp_path / "data", stripes)
    assert (x[:, :, 1:-1].float() - 127.5).abs().max() < 2


def test_large_files_are_decoded_by_several_threads_in_their_order(tmp_path: Path) -> None:
    for label, blue in (("a", 0), ("b", 255)):
        (tmp_path / label).mkdir()
        for i in range(3):
            Image.new("RGB", (300, 300), (80 * i, 0, blue)).save(tmp_path / label / f"{i}.bmp")
    images = everything(load_folder(tmp_path))
    assert {label: {(x[0], x[-1]) for x in found} for label, found in images.items()} == {
        0: {(0, 0), (80, 0), (160, 0)},
        1: {(0, 255), (80, 255), (160, 255)},
    }


def test_large_jpegs_keep_their_colours(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").resize((900, 600)).convert("RGB")
    small = np.asarray(image.crop((150, 0, 750, 600)).resize((8, 8), Image.Resampling.BOX)).astype(float)
    x = converted(tmp_path / "data", image, "x.jpeg", options={"quality": 95})
    assert np.abs(x.permute(1, 2, 0).numpy() - small).max() < 6


def test_one_coloured_image_makes_the_data_set_coloured_and_the_spec_can_overrule(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [4, 4], ["a", "b"])
    assert load_folder(folder).channels == 1
    for i, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        Image.new("RGB", (4, 4), colour).save(folder / "b" / f"{i}.png")
    assert load_folder(folder).channels == 3
    luminance = {x[0] for x in everything(load_folder(folder, channels=1))[1] if len(set(x)) == 1}
    assert luminance == {76, 150, 29}  # ITU-R 601, as Pillow rounds it
