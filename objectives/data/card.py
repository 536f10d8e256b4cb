"""The data card: what a data set holds, as plain data, before anything is trained. Needs no torch.

`examine` decodes no test image: the files of a test split are counted by name and by how they begin.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TypedDict
from warnings import catch_warnings, simplefilter

import numpy as np
import numpy.typing as npt

from objectives.data import cautions
from objectives.data.cache import kept
from objectives.data.cache.headers import headers
from objectives.data.cache.progress import Progress, silent
from objectives.data.cache.stored import piecewise
from objectives.data.content import digests
from objectives.data.decoding import Decoded, Headers, as_jpeg
from objectives.data.decoding import decode as decode_file
from objectives.data.duplicates import Positions, copies, repetitions
from objectives.data.folders import (
    check_layout,
    check_losses,
    faults_of,
    labelled,
    laid_out,
    laid_out_test,
    n_used,
)
from objectives.data.layout.listing import Layout, is_image
from objectives.data.reading import check_validation, is_folder, read, readable, without_small_classes
from objectives.data.room import free_on_host, told
from objectives.data.sources import N_TEST, Labelled
from objectives.errors import DataError
from objectives.task import DataSpec
from objectives.words import counted, printable

LARGEST = 224  # pixels: the largest size that is suggested
STEP = 16  # pixels: suggested sizes are multiples of it
FINE = 48  # pixels, below which a step would be a loss: multiples of 4
TINY = 8  # pixels: an image whose shorter side is less is suspicious
SAMPLE = 96  # pixels; side of the pictures that are shown
# What the ends of names promise, where it is one format; Pillow calls a JPEG of several pictures MPO.
_PROMISED = {
    **dict.fromkeys(("jpg", "jpeg", "jfif", "jpe"), (b"JPEG", b"MPO")),
    **dict.fromkeys(("bmp", "dib"), (b"BMP",)),
    **dict.fromkeys(("tif", "tiff"), (b"TIFF",)),
    **{"png": (b"PNG",), "gif": (b"GIF",), "webp": (b"WEBP",), "avif": (b"AVIF",)},
}
_MODES = {  # Pillow's words for kinds of pixels, in ours
    **{"1": "black and white", "L": "grey", "RGB": "colour", "P": "palette", "CMYK": "CMYK", "YCbCr": "colour"},
    **dict.fromkeys(("LA", "La", "PA", "RGBA", "RGBa"), "alpha"),
}


class _Balance(TypedDict):
    majority: float
    uneven: float


@dataclass(frozen=True)
class ClassCard:
    """One class."""

    name: str
    n_train: int  # images to train on before any validation is split off
    n_val: int | None  # None: the data have no validation split
    n_test: int | None  # None: the data have no test split, or one that is not known by class


@dataclass(frozen=True)
class Card:
    """What is known of a data set."""

    name: str  # as it was asked for
    classes: tuple[ClassCard, ...]
    n_train: int  # images to train on before any validation is split off
    n_val: int | None  # None: the data have no validation split
    n_test: int | None  # images of the test split, not opened; None: there is none
    channels: int  # 1 where every image is grey, else 3
    sides: tuple[int, int, int]  # least, median and most of the shorter side, pixels; 0 where no image can be read
    suggested_size: int  # pixels; side of the squares to train on
    size: int | None  # pixels; side of the squares that were decoded; None: nothing was
    majority: float  # share of the largest class, of the images to train on and to validate with
    uneven: float  # images of the largest class over those of the smallest, which count as one if there are none
    not_square: float = 0.0  # share of the images
    modes: Mapping[str, int] = field(default_factory=dict)  # kind of pixel: images
    formats: Mapping[str, int] = field(default_factory=dict)  # of the files: images; empty where they are no files
    unreadable: tuple[str, ...] = ()  # 'path: reason'
    suspicious: tuple[str, ...] = ()  # 'path: reason', of images that are used
    unrecognised: tuple[str, ...] = ()  # paths of files that are neither images nor known to be none
    remarks: tuple[str, ...] = ()  # what was recognised
    warnings: tuple[str, ...] = ()  # what should be known, each with the way out
    refusal: str | None = None  # why a run would refuse the data
    streamed: str | None = None  # what a run would say of images that the memory that is free now does not hold

    def to_json(self) -> dict[str, object]:
        """This card as plain JSON data."""
        return asdict(self)


def examine(spec: DataSpec, *, decode: bool = True, progress: Progress = silent) -> Card:
    """The card of the data that `spec` names; images of a folder are decoded at the spec's or else the suggested size.

    Without `decode` none is: sizes, formats and modes are those that the heads of the files say; what is wrong with
    pixels and which images are copies stays unknown.

    Raises:
        DataError: the data are not to be found, or have two readings.
    """
    if spec.is_series:
        raise DataError(f"{printable(spec.name)} holds series: a card, and a plan, are made of images only")
    with readable(spec):
        return _of_folder(spec, decode, progress) if is_folder(spec) else _of_name(spec, decode)


def samples(spec: DataSpec, per_class: int) -> dict[str, list[bytes]]:
    """JPEG files of the first images of each class, as squares of at most SAMPLE pixels.

    Raises:
        DataError: as `examine`.
    """
    found: dict[str, list[bytes]] = {}
    with readable(spec), catch_warnings():
        simplefilter("ignore")  # on metadata that nobody reads
        if not is_folder(spec):
            source = read(spec)
            assert source is not None
            for label, name in enumerate(source.classes):
                chosen = source.pixels[np.flatnonzero(source.labels == label)[:per_class]]
                found[name] = [as_jpeg(image) for image in chosen]
            return found
        layout = laid_out(spec)
        for file in layout.files:
            of_class = found.setdefault(layout.classes[file.label], [])
            if len(of_class) < per_class:
                with suppress(Exception):  # Pillow's readers raise what their parsers run into
                    of_class.append(as_jpeg(decode_file(file.path, SAMPLE).pixels))
    return found


def suggested(median: int) -> int:
    """The size to train on where the median shorter side has so many pixels: not more than those, so that few images
    are enlarged; a multiple of 16, of small images of 4: of 28 pixels each counts."""
    step = STEP if median >= FINE else 4
    return min(LARGEST, max(4, median // step * step))


def essentials(found: Labelled, sides: tuple[int, int, int], n_train: int, n_val: int, n_splits: int = 1) -> str:
    """What a run says of its data, in three lines: classes, sizes, splits. `found`: with the pixels that it uses."""
    counts = np.bincount(found.labels, minlength=len(found.classes))
    n, large, small = len(found.labels), int(counts.argmax()), int(counts.argmin())
    first = f"{n} images in {len(found.classes)} classes"
    if counts[small] < counts[large]:
        largest = f"{found.classes[large]} is the largest with {counts[large]} ({counts[large] / n:.1%})"
        first += f": {largest}, {found.classes[small]} the smallest with {counts[small]}"
    else:
        first += f" of {counts[large]} each ({counts[large] / n:.1%})"
    (least, median, most), (_, size, length, channels) = sides, found.pixels.shape
    was = f"{least}" if least == most else f"{least} to {most} (median {median})"
    second = f"shorter sides of {was} pixels, used as {size}x{size} in {'colour' if channels == 3 else 'grey'}"
    if found.pixels.dtype != np.uint8:
        first = first.replace("images", "series", 1)
        second = f"{counted(channels, 'channel')} of length {length}"
    unused = n - n_train - n_val
    origin = f"split off, {n_splits} times: each image validates once" if n_splits > 1 else "split off"
    train = f"{n_train} of {n_train + unused} to train" if unused else f"{n_train} to train"
    split = f"{train}, {n_val} to validate ({found.validation or origin})"
    return "\n".join((first, second, "; ".join((split, *found.remarks))))


def _of_name(spec: DataSpec, decode: bool) -> Card:
    found = read(spec)
    assert found is not None
    counts = np.bincount(found.labels, minlength=len(found.classes)).tolist()
    channels, sides = found.pixels.shape[-1], sides_of(found)
    return Card(
        spec.name,
        tuple(ClassCard(name, n, None, None) for name, n in zip(found.classes, counts, strict=True)),
        n_train=len(found.labels),
        n_val=None,
        n_test=N_TEST[spec.name],
        channels=spec.channels or channels,
        sides=sides,
        suggested_size=sides[1],
        size=spec.size or sides[1],
        **_balance(counts),
        modes={"grey" if channels == 1 else "colour": len(found.labels)},
        warnings=(*cautions.of_classes(found.classes, found.labels, None), *(_repeated(found) if decode else ())),
        streamed=told(len(found.labels), spec.size or sides[1], spec.channels or channels, free_on_host()),
    )


def _few(found: Labelled) -> tuple[str, ...]:
    """A line where the folder has few validation images."""
    return () if found.validates is None else cautions.of_few(int(found.validates.sum()), found.validation)


def _of_folder(spec: DataSpec, decode: bool, progress: Progress) -> Card:
    layout = laid_out(spec, progress)
    decoded = headers(layout.top, layout.files, progress)
    sides = _sides(decoded.headers)
    size = spec.size or suggested(sides[1])
    refusal = _refused(lambda: check_layout(layout, replace(spec, size=size)))
    warnings: tuple[str, ...] = ()
    if is_decoded := decode and refusal is None:
        decoded, warnings = kept.decoded(layout.top, layout.files, size, progress)
    found = labelled(layout, decoded, warnings)
    suspicious = (*_suspicious(found), *(_of_one_colour(found) if is_decoded else ()))
    classes, n_test, test_warnings = _classes(found, spec)
    modes = _tally(_MODES.get(mode, "16 bit" if mode.startswith("I") else mode) for mode in _column(decoded, "mode"))
    n, channels = n_used(len(found.labels), layout, spec), spec.channels or decoded.pixels.shape[-1]
    return Card(
        spec.name,
        classes,
        n_train=sum(each.n_train for each in classes),
        n_val=sum(each.n_val or 0 for each in classes) if layout.validation else None,
        n_test=n_test,
        channels=channels,
        sides=sides,
        suggested_size=suggested(sides[1]),
        size=size if is_decoded else None,
        **_balance([each.n_train + (each.n_val or 0) for each in classes]),
        not_square=float((decoded.headers["width"] != decoded.headers["height"]).mean()) if len(found.labels) else 0.0,
        modes=modes,
        formats=_tally(_column(decoded, "format")),
        unreadable=found.skipped,
        suspicious=suspicious,
        unrecognised=_unrecognised(layout, decoded),
        remarks=(*layout.remarks, *_enlarged(decoded.headers, size)),
        warnings=(
            *found.warnings,
            *cautions.of_classes(found.classes, found.labels, _validating(found)),
            *_few(found),
            *test_warnings,
            *cautions.of_suspects(suspicious),
            *(_repeated(found) if is_decoded else ()),
        ),
        refusal=refusal or _refused(lambda: _check(layout, decoded, found, spec)),
        streamed=told(n, size, channels, free_on_host()) if n else None,
    )


def _check(layout: Layout, decoded: Decoded, found: Labelled, spec: DataSpec) -> None:
    """Raises DataError where a run would, once it has read the images."""
    check_losses(layout, decoded, drop_empty=spec.drop_small_classes)
    check_validation(without_small_classes(found, spec))


def _refused(check: Callable[[], object]) -> str | None:
    """What a check has against the data."""
    try:
        check()
    except DataError as error:
        return str(error)
    return None


def _classes(found: Labelled, spec: DataSpec) -> tuple[tuple[ClassCard, ...], int | None, tuple[str, ...]]:
    """(every class, images of the test split, what should be known of that)."""
    has_test, tested = False, Counter[str]()
    with suppress(DataError):  # a table that names test images which are not there: `confirm` says so
        if (test := laid_out_test(spec)) is not None:
            has_test, tested = True, Counter(test.classes[file.label] for file in test.files if is_image(file.path))
    others = sorted(set(tested) - set(found.classes))
    validates = np.zeros(len(found.labels), np.bool_) if found.validates is None else found.validates
    n_train, n_val = (np.bincount(found.labels[part], minlength=len(found.classes)) for part in (~validates, validates))
    cards = tuple(
        ClassCard(
            name,
            n_train=int(n_train[label]),
            n_val=None if found.validates is None else int(n_val[label]),
            n_test=tested[name] if has_test else None,
        )
        for label, name in enumerate(found.classes)
    )
    warnings = (cautions.of_test(sum(tested[name] for name in others), others),) if others else ()
    return cards, tested.total() if has_test else None, warnings


def _balance(counts: Sequence[int]) -> _Balance:
    """Of the images of every class."""
    return {"majority": max(counts) / max(1, sum(counts)), "uneven": max(counts) / max(1, min(counts))}


def _validating(found: Labelled) -> Positions | None:
    """Positions of the images that validate; None before a split."""
    return None if found.validates is None else np.flatnonzero(found.validates)


def _repeated(found: Labelled) -> tuple[str, ...]:
    """What should be known of copies in a part, across both, and under two labels."""
    known = digests(found.pixels)
    val = _validating(found)
    train = np.arange(len(found.labels)) if val is None else np.setdiff1d(np.arange(len(found.labels)), val)
    val = np.empty(0, np.int64) if val is None else val
    return (
        *repetitions(found, train, val, known),
        *copies(found, train, "training", known),
        *copies(found, val, "validation", known),
    )


def _suspicious(found: Labelled) -> tuple[str, ...]:
    """Images that are called what they are not, or are tiny."""
    assert found.headers is not None
    lines = []
    for name, (kind, _, width, height) in zip(found.names, found.headers.tolist(), strict=True):
        end = os.path.splitext(name)[1].lower()[1:]
        if kind not in _PROMISED.get(end, (kind,)):
            lines.append(f"{name}: in truth a {kind.decode()}")
        elif min(width, height) < TINY:
            lines.append(f"{name}: only {width}x{height} pixels")
    return tuple(lines)


def _of_one_colour(found: Labelled) -> tuple[str, ...]:
    """Images that show nothing."""
    lines: list[str] = []
    start = 0
    for part in piecewise(found.pixels):
        empty = (part == part[:, :1, :1]).all(axis=(1, 2, 3))
        lines += [f"{found.names[start + at]}: of one colour" for at in np.flatnonzero(empty).tolist()]
        start += len(part)
    return tuple(sorted(lines))


def _unrecognised(layout: Layout, decoded: Decoded) -> tuple[str, ...]:
    """Files that are no images and were not meant as some."""
    others = sorted(decoded.faults.keys() - faults_of(layout, decoded).keys())
    return tuple(printable(layout.files[at].relative) for at in others)


def _enlarged(headers: Headers, size: int) -> tuple[str, ...]:
    """How many images are smaller than they are trained on."""
    n = int((_shorter(headers) < size).sum())
    return (f"{counted(n, 'image')} of {len(headers)} smaller than {size} pixels, enlarged",) if n else ()


def sides_of(found: Labelled) -> tuple[int, int, int]:
    """`Card.sides` of images that are files, or all alike."""
    return (min(found.pixels.shape[1:3]),) * 3 if found.headers is None else _sides(found.headers)


def _sides(headers: Headers) -> tuple[int, int, int]:
    shorter = np.sort(_shorter(headers))
    return (int(shorter[0]), int(shorter[len(shorter) // 2]), int(shorter[-1])) if len(shorter) else (0, 0, 0)


def _shorter(headers: Headers) -> npt.NDArray[np.uint32]:
    shorter: npt.NDArray[np.uint32] = np.minimum(headers["width"], headers["height"])
    return shorter


def _column(decoded: Decoded, name: str) -> list[str]:
    return [word.decode() for word in decoded.headers[name].tolist()]


def _tally(words: Iterable[str]) -> dict[str, int]:
    """How often each comes, the most frequent first."""
    return dict(Counter(words).most_common())
