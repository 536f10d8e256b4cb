"""Folders of images, `folder:PATH`: what `splits` or `labels` found in one, decoded. Nothing is written into it.

Nothing outside of the folder is read either, unless `follow_links` allows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from objectives.data.cache import kept
from objectives.data.cache.progress import Progress, silent
from objectives.data.decoding import NO_IMAGE, NOT_AN_IMAGE, Decoded
from objectives.data.layout.labels import tabled
from objectives.data.layout.listing import LINK, NO_FILE, ROUND, Layout
from objectives.data.layout.splits import arranged, held_out
from objectives.data.sources import Labelled
from objectives.errors import DataError
from objectives.task import DataSpec
from objectives.words import counted, expanded, printable, some

DEFAULT_SIZE = 32  # pixels; side of the images when the study names none
LISTING = "listing"  # what a Progress is told


def read_folder(spec: DataSpec) -> Labelled:
    """The images in a folder, centre-cropped to squares of the spec's size, in an order that their pixels decide.

    What is an image is decided by content. What cannot be decoded and links that lead out of the folder are skipped
    and listed; other files are counted. With `drop_small_classes` classes without a file that is an image are allowed,
    and have none.

    Raises:
        DataError: no classes, an empty class, or too much that cannot be decoded.
    """
    layout = laid_out(spec)
    check_layout(layout, spec)
    decoded, warnings = kept.decoded(layout.top, layout.files, size_of(spec))
    check_losses(layout, decoded, drop_empty=spec.drop_small_classes)
    return labelled(layout, decoded, warnings)


def read_test(spec: DataSpec) -> Labelled | None:
    """The test split of a folder, likewise; None where it has none. A class without a test image is none of it.

    Raises:
        DataError: too much cannot be decoded.
    """
    layout = laid_out_test(spec)
    if layout is None or not layout.files:
        return None
    decoded, warnings = kept.decoded(layout.top, layout.files, size_of(spec))
    check_losses(layout, decoded, drop_empty=True)
    return labelled(layout, decoded, warnings) if len(decoded.kept) else None


def keep_folder(spec: DataSpec, progress: Progress) -> int | None:
    """Decodes into the cache what it lacks of a folder, with all cores; the bytes of its images, where there is one.

    Raises:
        DataError: as `read_folder`, but for what only the decoded images show.
    """
    layout = laid_out(spec, progress)
    check_layout(layout, spec)
    shape = kept.fill(layout.top, layout.files, size_of(spec), progress)
    if shape is None:
        return None
    return n_used(shape[0], layout, spec) * size_of(spec) ** 2 * (spec.channels or shape[-1])


def laid_out(spec: DataSpec, progress: Progress = silent) -> Layout:
    """What a folder holds but for its test split; no image is opened.

    Raises:
        DataError: there is no such folder, or it can be read in two ways.
    """
    progress(LISTING, 0, 0)
    folder, table = _places(spec)
    return arranged(folder, spec.follow_links) if table is None else tabled(folder, table, spec.follow_links)


def laid_out_test(spec: DataSpec) -> Layout | None:
    """What the test split of a folder holds; None where it has none.

    Raises:
        DataError: as `laid_out`.
    """
    folder, table = _places(spec)
    if table is None:
        return held_out(folder, spec.follow_links)
    found = tabled(folder, table, spec.follow_links, test=True)
    return found if found.files or found.skipped else None


def size_of(spec: DataSpec) -> int:
    """Side of the square images in pixels."""
    return DEFAULT_SIZE if spec.size is None else spec.size


def check_layout(layout: Layout, spec: DataSpec) -> None:
    """Checks what can be known of a folder before anything is decoded.

    Raises:
        DataError: only one class.
    """
    if len(layout.classes) == 1:
        raise DataError(printable(_one_class(layout, spec.labels)))


def n_used(n: int, layout: Layout, spec: DataSpec) -> int:
    """How many of `n` images of a folder a run holds, at most."""
    if spec.n_train is None:
        return n
    n_val = sum(file.validates for file in layout.files) if layout.validation else n // 5
    return min(n, spec.n_train + n_val)


def labelled(layout: Layout, decoded: Decoded, warnings: Sequence[str]) -> Labelled:
    """The images that were decoded, with what is known of them."""
    files = [layout.files[position] for position in decoded.kept]
    faults = faults_of(layout, decoded)
    n_others = len(decoded.faults) - len(faults)
    others = (f"{counted(n_others, 'file')} of other kinds left out",) if n_others else ()
    return Labelled(
        decoded.pixels,
        np.array([file.label for file in files], np.int64),
        layout.classes,
        flip=True,
        skipped=(*layout.skipped, *map(printable, named_faults(layout, faults))),
        names=tuple(printable(file.relative) for file in files),
        headers=decoded.headers,
        validates=np.array([file.validates for file in files], np.bool_) if layout.validation else None,
        validation=layout.validation,
        remarks=(*layout.remarks, *([f"cannot be read: {_by_class(layout, faults)}"] if faults else []), *others),
        warnings=(*layout.warnings, *warnings),
    )


def faults_of(layout: Layout, decoded: Decoded) -> dict[int, str]:
    """Why files that were meant as images cannot be read, by position."""
    told = {position: NOT_AN_IMAGE if fault == NO_IMAGE else fault for position, fault in decoded.faults.items()}
    return {position: why for position, why in told.items() if layout.are_named or decoded.faults[position] != NO_IMAGE}


def _places(spec: DataSpec) -> tuple[Path, Path | None]:
    """The folder, and the table that names its classes."""
    root = Path(expanded(spec.root)) if spec.root is not None else None
    folder = _find_folder(spec.name.removeprefix("folder:"), root)
    if spec.labels is None:
        return folder, None
    return folder, _find_table(spec.labels, [folder, *([root] if root else [])])


def _one_class(layout: Layout, labels: str | None) -> str:
    what = f"only 1 class, {layout.classes[0]}, in {labels or layout.top}: a classifier needs at least two"
    return f"{what}: " + (
        "write a second one into its column label" if labels else f"put the images of class X into {layout.top / 'X'}"
    )


def check_losses(layout: Layout, decoded: Decoded, *, drop_empty: bool) -> None:
    """Checks which of the files are images.

    Raises:
        DataError: a whole class is lost, or more than 1 % of all images and more than three.
    """
    faults = faults_of(layout, decoded)
    present = Counter(layout.files[position].label for position in decoded.kept)
    lost = Counter(layout.files[position].label for position in faults)
    for label, name in enumerate(layout.classes):
        if present[label]:
            continue
        if lost[label]:
            of_class = {at: why for at, why in faults.items() if layout.files[at].label == label}
            way_out = f"repair or remove: {some(named_faults(layout, of_class))}"
            raise DataError(printable(f"no image of class {name!r} in {layout.top} can be read: {way_out}"))
        if not drop_empty:
            within = [line for line in layout.skipped if line.startswith(f"{name}/")] or layout.skipped
            hint = f" ({some(within)})" if within else ""
            way_out = "add some, remove it or set drop_small_classes = true"
            raise DataError(printable(f"class {name!r} in {layout.top} has no images{hint}: {way_out}"))
    no_loss = tuple(f": {why}" for why in (LINK, ROUND, NO_FILE))
    skipped = len(faults) + sum(not line.endswith(no_loss) for line in layout.skipped)
    total = len(decoded.kept) + skipped
    if skipped > max(3, total // 100):
        classes = f" ({_by_class(layout, faults)})" if faults else ""
        what = f"{skipped} of {counted(total, 'image')} in {layout.top} cannot be used{classes}, and the limit is 1 %"
        raise DataError(
            printable(f"{what}: repair or remove: {some([*layout.skipped, *named_faults(layout, faults)])}")
        )


def _by_class(layout: Layout, faults: dict[int, str]) -> str:
    """How many files of which class are at fault, most first."""
    lost, whole = (Counter(layout.files[at].label for at in ats) for ats in (faults, range(len(layout.files))))
    return some([f"{layout.classes[label]} {n} of {whole[label]}" for label, n in lost.most_common()], 5)


def named_faults(layout: Layout, faults: dict[int, str]) -> list[str]:
    """A line for each file: its path and what is wrong with it."""
    return [f"{layout.files[position].relative}: {fault}" for position, fault in sorted(faults.items())]


def _find_folder(path: str, root: Path | None) -> Path:
    """`path` under `root` if it is there, else as it stands."""
    plain = Path(expanded(path))
    places = [root / plain, plain] if root and not plain.is_absolute() else [plain]
    for place in places:
        if place.is_dir():
            return place
    if files := [place for place in places if place.is_file()]:
        raise DataError(printable(f"{files[0]} is a file: unpack it, or pass folder:{files[0].parent}"))
    raise DataError(printable(f"there is no folder {' or '.join(map(str, places))}: check the path after 'folder:'"))


def _find_table(table: str, places: Sequence[Path]) -> Path:
    """The table as it stands, or in one of the places."""
    plain = Path(expanded(table))
    for place in (plain, *(place / plain for place in places)):
        if place.is_file():
            return place
    looked = ", ".join(map(str, ("here", *places)))
    raise DataError(printable(f"there is no table of labels {table} ({looked}): check the path after --labels"))
