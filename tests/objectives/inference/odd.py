"""A folder of all that people have among their images."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

ROTATED = 6  # EXIF 2.3: stored on its side


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def colour(seed: int = 0, width: int = 20, height: int = 14) -> Image.Image:
    return Image.fromarray(pixels(seed, height, width, 3))


def saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    return saved(colour(3), "JPEG", exif=exif)


def images() -> dict[str, bytes]:
    """Files that can be read, by name."""
    jpeg = saved(colour(), "JPEG")
    return {
        "grey.png": saved(Image.fromarray(pixels(1, 9, 9)), "PNG"),
        "alpha.png": saved(Image.fromarray(pixels(2, 12, 12, 4), "RGBA"), "PNG"),
        "wide.png": saved(Image.fromarray(pixels(4, 9, 9).astype(np.uint16) * 257), "PNG"),
        "four.jpg": saved(colour(5).convert("CMYK"), "JPEG"),
        "palette.gif": saved(colour(6).convert("P"), "GIF"),
        "deep/er/turned.jpg": rotated(),
        "point.png": saved(colour(7, 1, 1), "PNG"),
        "no extension": jpeg,
        "=cmd|' /C calc'!A0.jpg": jpeg,
        "+1.jpg": jpeg,
        "-1.jpg": jpeg,
        "@SUM(A1).jpg": jpeg,
        "\ttab.jpg": jpeg,
        'new\nline, "comma".jpg': jpeg,
        "Füchse 狐.jpg": jpeg,
        os.fsdecode(b"latin-\xe9.jpg"): jpeg,
    }


def faults() -> dict[str, bytes]:
    """Files that are called images, and are none that can be read."""
    jpeg = saved(colour(width=64, height=64), "JPEG")
    return {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "text.jpg": b"no image",
        "=giant.png": saved(Image.new("1", (8000, 8000)), "PNG"),
        "real.tiff": saved(Image.fromarray(pixels(8, 4, 4).astype(np.float32)), "TIFF"),
    }


def folder(place: Path) -> Path:
    """Both, beside what is meant as no image."""
    others = {"README.txt": b"mine", ".DS_Store": b"\0", "labels.csv": b"file,label\n"}
    for name, content in {**images(), **faults(), **others}.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place
