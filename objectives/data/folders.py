"""Folders of images, `folder:PATH`: what `splits` or `labels` found in one, decoded. Nothing is written into it.

Nothing outside of the folder is read either, unless `follow_links` allows it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from objectives.data.cache import kept
from objectives.data.content import digests
from objectives.data.decoding import NO_IMAGE, Decoded
from objectives.data.layout.labels import tabled
from objectives.data.layout.listing import Layout
from objectives.data.sources import Labelled
from objectives.data.layout.splits import arranged, held_out
from objectives.errors import DataError
from objectives.words import counted, printable, some


def read_folder(
    path: Path, size: int, labels: Path | None = None, follow_links: bool = False, drop_empty: bool = False
) -> Labelled:
    """The images in a folder, centre-cropped to squares of `size` pixels, in an order that their pixels alone decide.

    What is an image is decided by content. What cannot be decoded and links that lead out of `path` are skipped and
    listed; other files are counted. `labels`: the table that names the classes. `drop_empty`: classes without a file
    that is an image are allowed, and have none.

    Raises:
        DataError: no classes, an empty class, or too much that cannot be decoded.
    """
    layout = arranged(path, follow_links) if labels is None else tabled(path, labels, follow_links)
    if len(layout.classes) == 1:
        raise DataError(printable(_one_class(layout, labels)))
    return _read(layout, size, drop_empty)


def read_test(path: Path, size: int, labels: Path | None = None, follow_links: bool = False) -> Labelled | None:
    """The test split of a folder, likewise; None where it has none. A class without a test image is none of it.

    Raises:
        DataError: too much cannot be decoded.
    """
    layout = held_out(path, follow_links) if labels is None else tabled(path, labels, follow_links, test=True)
    return _read(layout, size, drop_empty=True) if layout is not None and layout.files else None


def _read(layout: Layout, size: int, drop_empty: bool) -> Labelled:
    decoded, warnings = kept.decoded(layout.top, layout.files, size)
    faults = {position: fault for position, fault in decoded.faults.items() if fault != NO_IMAGE}
    _check_losses(layout, decoded, faults, drop_empty)
    files = [layout.files[position] for position in decoded.kept]
    label = np.array([file.label for file in files], np.int64)
    high, low = digests(decoded.pixels).T
    order = np.lexsort((low, high, label))
    n_others = len(decoded.faults) - len(faults)
    others = (f"{counted(n_others, 'file')} of other kinds left out",) if n_others else ()
    return Labelled(
        decoded.pixels[order],
        label[order],
        layout.classes,
        flip=True,
        skipped=(*layout.skipped, *map(printable, _faults(layout, faults))),
        names=tuple(printable(files[position].relative) for position in order),
        validates=np.array([files[position].validates for position in order]) if layout.validation else None,
        validation=layout.validation,
        remarks=(*layout.remarks, *([f"cannot be read: {_by_class(layout, faults)}"] if faults else []), *others),
        warnings=(*layout.warnings, *warnings),
    )


def _one_class(layout: Layout, labels: Path | None) -> str:
    what = f"only 1 class, {layout.classes[0]}, in {labels or layout.top}: a classifier needs at least two"
    return f"{what}: " + (
        "write a second one into its column label" if labels else f"put the images of class X into {layout.top / 'X'}"
    )


def _check_losses(layout: Layout, decoded: Decoded, faults: dict[int, str], drop_empty: bool) -> None:
    """Raises DataError if a whole class is lost, or more than 1 % of all images and more than three."""
    present = Counter(layout.files[position].label for position in decoded.kept)
    lost = Counter(layout.files[position].label for position in faults)
    for label, name in enumerate(layout.classes):
        if present[label]:
            continue
        if lost[label]:
            of_class = {at: why for at, why in faults.items() if layout.files[at].label == label}
            way_out = f"repair or remove: {some(_faults(layout, of_class))}"
            raise DataError(printable(f"no image of class {name!r} in {layout.top} can be read: {way_out}"))
        if not drop_empty:
            within = [line for line in layout.skipped if line.startswith(f"{name}/")] or layout.skipped
            hint = f" ({some(within)})" if within else ""
            way_out = "add some, remove it or set drop_small_classes = true"
            raise DataError(printable(f"class {name!r} in {layout.top} has no images{hint}: {way_out}"))
    skipped = len(faults) + len(layout.skipped)
    total = len(decoded.kept) + skipped
    if skipped > max(3, total // 100):
        classes = f" ({_by_class(layout, faults)})" if faults else ""
        what = f"{skipped} of {counted(total, 'image')} in {layout.top} cannot be used{classes}, and the limit is 1 %"
        raise DataError(printable(f"{what}: repair or remove: {some([*layout.skipped, *_faults(layout, faults)])}"))


def _by_class(layout: Layout, faults: dict[int, str]) -> str:
    """How many files of which class are at fault, most first."""
    lost, whole = (Counter(layout.files[at].label for at in ats) for ats in (faults, range(len(layout.files))))
    return some([f"{layout.classes[label]} {n} of {whole[label]}" for label, n in lost.most_common()], 5)


def _faults(layout: Layout, faults: dict[int, str]) -> list[str]:
    return [f"{layout.files[position].relative}: {fault}" for position, fault in sorted(faults.items())]
