"""Image files as arrays: every kind of pixel has one conversion to squares of 8 bits, grey or RGB."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from objectives.data.cache.stored import Pixels
from objectives.data.layout.listing import HEAD, kind, named_as_image
from objectives.data.sources import Bytes

if TYPE_CHECKING:
    from PIL import Image

DECODE_VERSION = 2  # raised by hand when `decode` changes what it returns; part of the key of every cached array
MAX_PIXELS = 50_000_000  # of one image file
OVERSIZED = f"over {MAX_PIXELS // 1_000_000} megapixels"
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")  # Pillow's other readers stay shut
ORIENTATION = 0x0112  # EXIF 2.3
NO_IMAGE = ""  # the fault of a file that is none and is not called one
NOT_AN_IMAGE = "not an image"  # likewise, where a user named it


class _NoImage(Exception):
    """The file is none, and is not called one."""


# What a file says of itself: its format and mode in Pillow's words, its sides in pixels as it is stored.
HEADER = np.dtype([("format", "S8"), ("mode", "S8"), ("width", "<u4"), ("height", "<u4")])
Headers = npt.NDArray[np.void]  # [n] of HEADER


class Picture(NamedTuple):
    """A decoded file."""

    pixels: Bytes  # [size, size, 3]
    is_grey: bool
    header: tuple[bytes, bytes, int, int]  # as in HEADER


@dataclass(frozen=True)
class Decoded:
    """What a list of files holds."""

    pixels: Pixels  # [n, size, size, channels] of those that are images; one channel if every one is grey, else three
    kept: npt.NDArray[np.int64]  # [n] their positions in the list
    headers: Headers  # [n]
    is_grey: npt.NDArray[np.bool_]  # [n] which have no colour
    faults: Mapping[int, str]  # position of every other one: why, or NO_IMAGE


def decode_all(paths: Sequence[str], size: int) -> Decoded:
    """All images among the files that can be decoded, in the order of the list."""
    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    kept: list[int] = []
    headers: list[tuple[bytes, bytes, int, int]] = []
    grey: list[bool] = []
    faults: dict[int, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on metadata that nobody reads; the size is checked in `_opened`
        for position, path in enumerate(paths):
            try:
                picture = decode(path, size)
            except Exception as error:
                faults[position] = fault(error)
                continue
            pixels[len(kept)] = picture.pixels
            kept.append(position)
            headers.append(picture.header)
            grey.append(picture.is_grey)
    used = np.ascontiguousarray(pixels[: len(kept), ..., : 1 if all(grey) else 3])
    return Decoded(used, np.array(kept, np.int64), np.array(headers, HEADER), np.array(grey, np.bool_), faults)


def fault(error: Exception) -> str:
    """Why a file is no image, in a line."""
    if isinstance(error, _NoImage):
        return NO_IMAGE
    return " ".join(str(error).split()) or type(error).__name__


def decode(path: str, size: int) -> Picture:
    """One image file, as `squared` has it. Its content says what it is, whatever its name.

    Raises:
        Exception: of nearly any type: Pillow's readers raise what their parsers run into.
    """
    with _opened(path) as image:
        header = _header(image)
        image.draft(None, (2 * size, 2 * size))  # JPEG only: decodes at 1/2, 1/4, 1/8 if that leaves twice the size
        return Picture(*squared(image, size), header)


def squared(image: Image.Image, size: int) -> tuple[Bytes, bool]:
    """(pixels [size, size, 3], whether they have no colour) of an image, whose metadata are cleared.

    EXIF orientation is applied; of an animation the first frame counts; colour profiles are ignored. 16-bit grey is
    scaled by 255 / 65535 and rounded, 16-bit colour keeps its high bytes; transparency is composited on white; palettes
    and CMYK become RGB as Pillow does it. The shorter side is scaled to `size` (bilinear, antialiased) and the centre
    kept.

    Raises:
        Exception: as `decode`.
    """
    from PIL import Image

    turn = _turn(image)
    image.load()
    grey = is_grey(image.mode.encode())  # here: a reader may change the mode as it loads
    whole = _to_rgb(image)
    whole = whole if turn is None else whole.transpose(turn)
    side = min(whole.size)
    left, top = (whole.width - side) / 2, (whole.height - side) / 2
    box = (left, top, left + side, top + side)
    small = whole.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.asarray(small), grey


def read_header(path: str) -> tuple[bytes, bytes, int, int]:
    """What a file says of itself, as in HEADER; no pixel is decoded.

    Raises:
        Exception: as `decode`.
    """
    with _opened(path) as image:
        return _header(image)


def is_grey(mode: bytes) -> bool:
    """Whether images of a mode have no colour."""
    return mode in (b"1", b"L", b"LA", b"La") or mode.startswith(b"I")


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """An image of an allowed format and size, of which the header is read."""
    with open(path, "rb") as stream:
        head = stream.read(HEAD)
        found = kind(head) or ("SVG" if path.lower().endswith(".svg") else None)
        if found is None and not named_as_image(path):
            raise _NoImage
        if not head:
            raise ValueError("an empty file")
        stream.seek(0)
        with _open(stream, found) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(OVERSIZED)
            yield image


def _open(stream: BinaryIO, found: str | None) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(stream, formats=_formats())
    except Image.DecompressionBombError as error:
        raise ValueError(OVERSIZED) from error
    except UnidentifiedImageError as error:
        raise ValueError(_unidentified(found)) from error


def _header(image: Image.Image) -> tuple[bytes, bytes, int, int]:
    return (image.format or "").encode(), image.mode.encode(), image.width, image.height


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
    return image if image.mode == "RGB" else image.convert("RGB")


def as_jpeg(pixels: Bytes) -> bytes:
    """A small image [height, width, 1 or 3] as a JPEG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
