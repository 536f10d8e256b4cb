"""A pipeline to train anew: of an exported network's folder, or of a file in TOML or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from objectives.errors import DataError
from objectives.inference.folder import DESCRIPTION, verified
from objectives.networks import families
from objectives.pipeline import Pipeline
from objectives.strategies import STRATEGIES
from objectives.words import expanded, printable
from search.errors import UsageError
from search.study.files.contents import contents
from spaces.restricted import suggestion

MAX_BYTES = 1_000_000  # of a JSON file
BESIDE = {"family": "str", "stem_stride": "int", "size": "int", "test_time_flip": "bool"}  # the settings of a pipeline
KINDS: Mapping[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
IN_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}


@dataclass(frozen=True)
class Recipe:
    """A pipeline with what else its trainings follow from."""

    pipeline: Pipeline
    family: str | None = None  # one of families.ALL; None: as the size of the images suggests
    stem_stride: int = 1
    size: int | None = None  # pixels: side of the images; None: the data's own
    test_time_flip: bool = False
    metric: str = "plain"  # or balanced: the accuracy that counts
    split: int = 0  # seed of the split that it was found on
    origin: Mapping[str, Any] | None = None  # what is told of a network that it made, as the description of an export


def recipe(place: str) -> Recipe:
    """The recipe of a folder that a network was exported to, or of a file.

    A file holds the settings of `Pipeline`, what it leaves out being as there, and `family`, `stem_stride`, `size` and
    `test_time_flip` beside them; or all settings under `pipeline`, as the description of an export has them.

    Raises:
        UsageError: it is none.
        DataError: an export is damaged.
    """
    path = Path(expanded(place))
    if path.is_dir():
        return _of_export(place, path)
    if not path.is_file():
        raise UsageError(printable(f"--pipeline {place}: there is no such folder or file: name an exported network's"))
    try:
        return _of_plain(contents(path) if path.suffix == ".toml" else _of_json(path))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(printable(f"--pipeline {place} holds no pipeline: {error}")) from error


def _of_export(place: str, folder: Path) -> Recipe:
    if not (folder / DESCRIPTION).is_file():
        inner = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
        hint = f": {inner[0]} does" if inner else ": name one that a network was exported to, or a file"
        raise UsageError(printable(f"--pipeline {place} holds no {DESCRIPTION}{hint}"))
    try:
        found = json.loads(verified(folder)[DESCRIPTION])
    except ValueError as error:
        raise DataError(printable(str(error))) from error
    try:
        return _of_description(found)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(printable(f"--pipeline {place} cannot be trained anew: {error}")) from error


def _of_json(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error}); a file in TOML ends in .toml") from error


def _of_plain(plain: object) -> Recipe:
    """The recipe that plain data describe.

    Raises:
        ValueError, TypeError: they describe none.
    """
    if not isinstance(plain, Mapping):
        raise ValueError("it is no table of settings")
    if "format" in plain:
        return _of_description(plain)
    settings, beside = dict(plain), {}
    for name, kind in BESIDE.items():
        if name in settings:
            beside[name] = _checked(name, settings.pop(name), kind)
    if isinstance(inner := settings.get("pipeline"), Mapping):
        if others := sorted({*settings} - {"pipeline"}):
            raise ValueError(f"unknown {others[0]!r} beside 'pipeline'{suggestion(others[0], BESIDE)}")
        settings = dict(inner)
    return _sensible(Recipe(_pipeline(settings), **beside))


def _of_description(about: Mapping[str, Any]) -> Recipe:
    """The recipe of an export."""
    if about.get("reduction") is not None:
        raise ValueError("its network was made smaller after its training: name the one that it was made of")
    if not isinstance(about.get("pipeline"), Mapping):
        raise ValueError("it does not say how its network was trained")
    images = about.get("input") or {}
    seed = (about.get("split") or {}).get("seed", 0)
    told = {**about, "size": None if images.get("kind") == "series" else images.get("size")}
    kinds = {name: kind for name, kind in (*BESIDE.items(), ("metric", "str")) if told.get(name) is not None}
    beside = {name: _checked(name, told[name], kind) for name, kind in kinds.items()}
    return _sensible(Recipe(_pipeline(about["pipeline"]), **beside, split=_checked("seed", seed, "int"), origin=about))


def _pipeline(settings: Mapping[str, Any]) -> Pipeline:
    """The pipeline of settings whose values are of the kinds that they must be."""
    if settings.get("reduction") is not None:
        raise ValueError("it makes a trained network smaller: frontrunner reduce does that")
    kinds = {f.name: str(f.type) for f in fields(Pipeline)}
    if unknown := sorted({*settings} - {*kinds}):
        raise ValueError(f"unknown setting {unknown[0]!r}{suggestion(unknown[0], [*kinds, *BESIDE])}")
    if not settings:
        raise ValueError("it is empty")
    for name, value in settings.items():
        _checked(name, value, kinds[name])
    listed = settings.get("strategies", ())
    for each in listed if isinstance(listed, (list, tuple)) else ():
        if not isinstance(each, Mapping):
            raise ValueError(f"strategies hold {each!r}: each is a table that says 'strategy' and its parameters")
        strategy = str(each.get("strategy"))
        if strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {strategy!r}{suggestion(strategy, STRATEGIES)}")
        of = {f.name: str(f.type) for f in fields(STRATEGIES[strategy])}
        for parameter, value in each.items():
            _checked(f"{strategy}.{parameter}", value, of.get(parameter, ""))
    return Pipeline.from_json(settings)


def _checked(name: str, value: object, kind: str) -> Any:
    """A value of a kind, as annotations name it; what names no plain kind is left to whoever takes it."""
    wanted = KINDS.get(kind)
    if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool")):
        raise ValueError(f"{name} = {json.dumps(value, default=str)[:60]}: it must be {IN_WORDS[kind]}")
    return value


def _sensible(made: Recipe) -> Recipe:
    if made.family is not None and made.family not in families.ALL:
        raise ValueError(f"unknown family {made.family!r}{suggestion(made.family, families.ALL)}")
    if made.stem_stride not in (1, 2):
        raise ValueError(f"stem_stride = {made.stem_stride}: it must be 1 or 2")
    if made.metric not in ("plain", "balanced"):
        raise ValueError(f"metric = {made.metric!r}: it must be plain or balanced")
    return made
