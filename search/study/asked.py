"""What a command line asks of a study: parts that it replaces, data that it names, and names for what has none."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict

from pydantic import ValidationError

from objectives.starts.naming import found, origin
from objectives.starts.origin import Origin, resolved
from objectives.task import SERIES, DataSpec
from objectives.words import expanded, printable
from search.errors import UsageError
from search.study.files.mistakes import in_words
from search.study.spec import DataSection, StudySpec, begun_from, check_name


def override(
    name: str,
    spec: StudySpec,
    data: str | None,
    root: str | None,
    n_train: int | None,
    seed: int | None,
    labels: str | None = None,
    start: str | None = None,
) -> tuple[str, StudySpec]:
    """(name, spec) with parts replaced that a study's identity holds.

    The name says which, so that the plain study stays as it is, and is the same for the same parts. Data, numbers
    and seeds that are as the study file has them, wherever data lie now, are no other parts.

    Raises:
        UsageError: a value that no study file could have.
    """
    known, place = spec.data, spec.data.root if root is None else root
    is_other = data is not None and not _names(known, data, place)
    table = None if labels is None else _resolved(labels, os.path.isfile)
    changes: dict[str, dict[str, object]] = {"data": {"root": place}, "network": {}, "search": {}}
    replaced = []  # what names a study of its own
    if is_other:
        assert data is not None
        changes["data"]["labels"] = None  # the table of a study file is that of its own folder
        if data.startswith(("folder:", f"{SERIES}:")):
            changes["data"]["n_train"] = None  # they have the images that they have
        replaced.append(data.partition(":")[0])
    if table is not None:
        changes["data"]["labels"] = table
        replaced += ["labels"] if table not in _both(known.labels) else []  # another one for the folder of the file
    if n_train is not None:
        changes["data"]["n_train"] = n_train
        replaced += ["n-train"] if n_train != known.n_train else []
    if seed is not None:
        changes["search"]["seed"] = seed
        replaced += ["seed"] if seed != spec.search.seed else []
    if start is not None:
        changes["network"]["start"] = resolved(start)
        replaced.append("start")
    changed = _changed(spec, data, place, changes)
    return _derived_name(name, replaced[0], changed) if replaced else name, changed


def _changed(spec: StudySpec, data: str | None, root: str | None, changes: dict[str, dict[str, object]]) -> StudySpec:
    """The spec with the values of some sections changed, and with data that a command line names.

    Raises:
        UsageError: no study file could have them.
    """
    try:
        plain = spec.model_dump()
        merged = plain | {section: plain[section] | values for section, values in changes.items()}
        if data is not None:
            merged["data"]["name"] = _placed(data, root)
        changed = StudySpec.model_validate(merged)
        if changes["network"]:
            begun_from(changed)
    except ValidationError as error:
        raise UsageError(f"command line: {in_words(error, StudySpec)}") from error
    except ValueError as error:
        raise UsageError(printable(f"command line: {error}")) from error
    return changed


def _names(known: DataSection, data: str, root: str | None) -> bool:
    """Whether a command line names the data of a study file: where they lie, or where they have gone from there."""
    there, here = _placed(known.name, known.root), _placed(data, root)
    is_gone = ":" in there and not os.path.exists(expanded(there.partition(":")[2]))
    return here == there or (is_gone and _is_same_place(known, known.model_copy(update={"name": here})))


def _placed(data: str, root: str | None) -> str:
    """Data by their name, with the real path of the folder or the file that it has."""
    kind, _, path = data.partition(":")
    if path and kind == "folder":
        return f"folder:{_folder(path, root)}"
    return f"{SERIES}:{_resolved(path, os.path.isfile)}" if path and kind == SERIES else data


def _both(labels: str | None) -> tuple[str, ...]:
    """A table as it is written, and as it is found."""
    return () if labels is None else (labels, _resolved(labels, os.path.isfile))


def of_data(path: str, spec: StudySpec, data: DataSpec, seed: int | None) -> StudySpec:
    """The spec of a study file, for a command line that names the data, too: with the place where they lie now.

    `seed`: None where the command line says none. A number of images that it does not say is the file's.

    Raises:
        UsageError: the file is that of another study.
    """
    said, known = _section(data), spec.data
    other = []
    if not _is_same_place(known, said):
        other.append(f"of {known.name}{'' if known.labels is None else f' with {known.labels}'}")
    if said.n_train is not None and said.n_train != known.n_train:
        other.append("of all training images" if known.n_train is None else f"of {known.n_train} training images")
    if seed is not None and seed != spec.search.seed:
        other.append(f"of seed {spec.search.seed}")
    if other:
        raise UsageError(f"{path} is that of a study {', '.join(other)}: --as NAME for another one")
    moved = known.model_copy(update={"name": said.name, "root": said.root, "labels": said.labels})
    return spec.model_copy(update={"data": moved})


def _is_same_place(one: DataSection, other: DataSection) -> bool:
    """Whether two sections name the same data, wherever folders lie now."""
    if (one.name, one.labels) == (other.name, other.labels):
        return True
    there, here = _without_places(one), _without_places(other)
    if "name" not in there:  # that of no folder or file
        return False
    is_gone = not os.path.isdir(expanded(one.name.partition(":")[2]))
    return all(there.get(key) == here.get(key) for key in ("name", "labels", *([] if is_gone else ["folders"])))


def _derived_name(name: str, label: str, changed: StudySpec) -> str:
    """The name of a study that differs from the one of that name in its data or seed."""
    distinguishing = {"data": changed.data.model_dump() | _without_places(changed.data), "seed": changed.search.seed}
    if changed.network.start is not None:
        known = found(changed.network.start)
        distinguishing["start"] = changed.network.start if known is None else known.digest
    digest = hashlib.sha256(json.dumps(distinguishing, sort_keys=True).encode()).hexdigest()[:6]
    return check_name(f"{name[: 64 - len(label) - 8]}-{label}-{digest}")


def named_after(data: DataSpec, start: str | None = None) -> str:
    """The name of the study of a data set, and a start, that was given none: the same wherever folders lie."""
    section = _section(data)
    distinguishing = section.model_dump() | _without_places(section) | ({"seed": data.seed} if data.seed else {})
    if start is not None:
        distinguishing["start"] = asked_start(start).digest
    digest = hashlib.sha256(json.dumps(distinguishing, sort_keys=True).encode()).hexdigest()[:6]
    kind, _, path = data.name.partition(":")
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(os.path.normpath(path)) if path else kind).strip("-._")
    if start is not None:
        return check_name(f"{word[:44] or kind}-start-{digest}")
    return check_name(f"{word[:50] or kind}-{digest}" if path else f"{kind}-minutes")


def _section(data: DataSpec) -> DataSection:
    """The data as a study file names them."""
    return DataSection(**{key: value for key, value in asdict(data).items() if key not in ("seed", "streamed")})


def asked_start(word: str) -> Origin:
    """What is known of the network that a command line names to start from.

    Raises:
        UsageError: there are none.
    """
    try:
        return origin(word)
    except ValueError as error:
        raise UsageError(printable(f"--start {word}: {error}")) from error


def asked_data(name: str, root: str | None, labels: str | None, n_train: int | None, seed: int) -> DataSpec:
    """The data that a command line names.

    Raises:
        UsageError: no study file could name them.
    """
    try:
        section = DataSection(name=name, root=root, labels=labels, n_train=n_train)
        if name.startswith("folder:"):
            table = _resolved(labels, os.path.isfile) if labels is not None else None
            section = section.model_copy(update={"name": _placed(name, root), "labels": table})
    except ValidationError as error:
        raise UsageError(f"command line: {in_words(error, DataSection)}") from error
    for place in (section.name, section.root, section.labels):
        if place is not None and any("\ud800" <= letter <= "\udfff" for letter in place):
            raise UsageError(printable(f"{place!r}: no study file can name what is no text: rename it"))
    return DataSpec(**section.model_dump(), seed=seed)


def _folder(path: str, root: str | None) -> str:
    """Where the folder of a command line lies: under the root if it is there, else as it stands."""
    under = os.path.join(expanded(root), expanded(path)) if root else path
    return _resolved(under if os.path.isdir(under) else path, os.path.isdir)


def _resolved(path: str, exists: Callable[[str], bool]) -> str:
    """The real path of what is there, or `path` as it was written: whoever reads it tells that it is not."""
    place = os.path.realpath(expanded(path))
    return place if exists(place) else path


def _without_places(data: DataSection) -> dict[str, object]:
    """What stands for the data in the name of a study: for a folder, its own name and those of the folders in it.

    So it is the same study wherever the folder lies and however it is written, and also where images were added, which
    the study then tells and refuses.
    """
    kind, _, path = data.name.partition(":")
    if kind == SERIES:
        return {"root": None, "name": f"{SERIES}:{os.path.basename(path)}"}
    if kind != "folder":
        return {"root": None}
    try:
        inner = sorted(entry.name for entry in os.scandir(expanded(path)) if entry.is_dir())
    except (OSError, ValueError):  # on another machine, or mistyped: whoever reads the data tells
        inner = []
    table = os.path.basename(data.labels or "")
    return {"root": None, "name": f"folder:{os.path.basename(path)}", "folders": inner, "labels": table}
