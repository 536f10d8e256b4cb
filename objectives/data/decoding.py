"""Image files as arrays: every kind of pixel has one conversion to squares of 8 bits, grey or RGB."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from objectives.data.layout.listing import HEAD, File, kind, named_as_image
from objectives.data.sources import Bytes

if TYPE_CHECKING:
    from PIL import Image

DECODE_VERSION = 2  # raised by hand when `decode` changes what it returns; part of the key of every cached array
MAX_PIXELS = 50_000_000  # of one image file
LARGE_FILE = 200_000  # bytes; folders whose files are as large on average are decoded by several threads
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")  # Pillow's other readers stay shut
ORIENTATION = 0x0112  # EXIF 2.3
NO_IMAGE = ""  # the fault of a file that is none and is not called one


class _NoImage(Exception):
    """The file is none, and is not called one."""


@dataclass(frozen=True)
class Decoded:
    """What a list of files holds."""

    pixels: Bytes  # [n, size, size, channels] of those that are images; one channel if every one is grey, else three
    kept: npt.NDArray[np.int64]  # [n] their positions in the list, ascending
    faults: Mapping[int, str]  # position of every other one: why, or NO_IMAGE


def decode_all(files: Sequence[File], size: int) -> Decoded:
    """All images among the files that can be decoded."""

    def attempt(file: File) -> tuple[Bytes, bool] | str:
        try:
            return decode(file.path, size)
        except _NoImage:
            return NO_IMAGE
        except Exception as error:
            return " ".join(str(error).split()) or type(error).__name__

    pixels = np.empty((len(files), size, size, 3), np.uint8)
    kept: list[int] = []
    faults: dict[int, str] = {}
    all_grey = True
    # Pillow decodes outside the interpreter lock, but a pool has its price. Images a second on two cores, plain loop
    # against two threads: 32 x 32 JPEGs 11,000 and 9,000, 512 x 512 (105 kB) 1,180 and 1,120, 1600 x 1200 400 and 750.
    large = sum(file.stamp[0] for file in files) >= LARGE_FILE * len(files)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        warnings.simplefilter("ignore")  # on metadata that nobody reads; the size is checked in `decode`
        _formats()  # here, because threads would race to register the readers
        for position, result in enumerate((pool.map if large else map)(attempt, files)):
            if isinstance(result, str):
                faults[position] = result
                continue
            pixels[len(kept)], grey = result
            all_grey &= grey
            kept.append(position)
    used = pixels[: len(kept), ..., : 1 if all_grey else 3]
    return Decoded(np.ascontiguousarray(used), np.array(kept, np.int64), faults)


def decode(path: str, size: int) -> tuple[Bytes, bool]:
    """One image file as [size, size, 3], and whether it is grey.

    Its content says what it is, whatever its name. EXIF orientation is applied; of an animation the first frame counts;
    colour profiles are ignored. 16-bit grey is scaled by 255 / 65535 and rounded, 16-bit colour keeps its high bytes;
    transparency is composited on white; palettes and CMYK become RGB as Pillow does it. The shorter side is scaled to
    `size` (bilinear, antialiased) and the centre kept.

    Raises:
        Exception: of nearly any type: Pillow's readers raise what their parsers run into.
    """
    with open(path, "rb") as stream:
        head = stream.read(HEAD)
        found = kind(head) or ("SVG" if path.lower().endswith(".svg") else None)
        if found is None and not named_as_image(path):
            raise _NoImage
        if not head:
            raise ValueError("an empty file")
        stream.seek(0)
        return _decode(stream, found, size)


def _decode(stream: BinaryIO, found: str | None, size: int) -> tuple[Bytes, bool]:
    from PIL import Image, UnidentifiedImageError

    oversized = f"over {MAX_PIXELS // 1_000_000} megapixels"
    try:
        opened = Image.open(stream, formats=_formats())
    except Image.DecompressionBombError as error:
        raise ValueError(oversized) from error
    except UnidentifiedImageError as error:
        raise ValueError(_unidentified(found)) from error
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(oversized)
        image.draft(None, (2 * size, 2 * size))  # JPEG only: decodes at 1/2, 1/4, 1/8 if that leaves twice the size
        turn = _turn(image)
        image.load()
        grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        whole = _to_rgb(image)
    whole = whole if turn is None else whole.transpose(turn)
    side = min(whole.size)
    left, top = (whole.width - side) / 2, (whole.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)), grey


def _unidentified(found: str | None) -> str:
    """Why Pillow does not open what begins as an image."""
    if found is None:
        return "not an image of a known format"
    if found.upper().replace(" ", "") not in _formats():
        return f"{found}: convert it to PNG or JPEG"
    if found in ("PNG", "JPEG", "GIF"):
        return f"a damaged {found}"
    return f"a damaged or unusual {found}: convert it to PNG or JPEG"


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the image must be transposed to stand upright.

    Not `ImageOps.exif_transpose`: it writes the metadata back, and fails on tags of types that EXIF does not have and
    phones write. They are cleared, because Pillow's reader of TIFF would do the same.
    """
    from PIL.Image import Transpose

    turns = (
        *(None, Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM),
        *(Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90),
    )
    try:
        exif = image.getexif()
        orientation = exif.get(ORIENTATION)
        exif.clear()
    except Exception:  # metadata of any kind of damage: the pixels are as good as ever
        return None
    return turns[orientation - 1] if isinstance(orientation, int) and 1 <= orientation <= 8 else None


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM to 65535
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range: convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
