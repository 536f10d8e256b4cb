"""`StudySpec`: a study file, validated. Data only: no import paths, no expressions, every number bounded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from objectives.networks import families
from objectives.pipeline import NumberFormatName, Pipeline
from objectives.starts.likeness import mismatch
from objectives.starts.naming import origin
from objectives.starts.origin import Origin, resolved
from objectives.task import DATA_SETS, SERIES, DataSpec, Task
from objectives.words import expanded, printable
from search.errors import UsageError
from search.host.places import STUDIES, study_files
from search.pareto.kinds import KINDS, Kind, KindName
from search.pareto.rules import STOPPING
from search.study.files import sections
from search.study.files.contents import contents
from search.study.files.mistakes import in_words
from search.study.files.sections import MachineSection, ReduceSection, Section
from spaces import SPACES
from spaces.base import Given, Reducing, Value
from spaces.restricted import Restrictions, check, suggestion

MAX_BATCH = 65536  # samples
KNOWN = (*DATA_SETS, "folder:PATH", "series:FILE.npz")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Executor = Literal["auto", "eager", "cuda_graph", "compile"]
Seconds = Annotated[float, Field(gt=0, le=3e7)]
Text = Annotated[str, Field(min_length=1)]


class DataSection(Section):
    """`[data]`: which images are learned; the fields of `DataSpec` but the seed, which is the study's."""

    name: str
    root: Text | None = None
    n_train: int | None = None
    size: int | None = None
    channels: int | None = None
    flip: bool | None = None
    drop_small_classes: bool = False
    labels: Text | None = None
    follow_links: bool = False

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name == "folder:":
            raise ValueError("'folder:' names no folder: say folder:PATH")
        if name == f"{SERIES}:":
            raise ValueError(f"'{SERIES}:' names no file: say {SERIES}:FILE.npz")
        if name not in DATA_SETS and not name.startswith(("folder:", f"{SERIES}:")):
            path = expanded(name)
            if os.sep in name or path in (".", "..") or os.path.isdir(path):
                raise ValueError(f"unknown data set {name!r}: did you mean 'folder:{printable(name)}'?")
            raise ValueError(f"unknown data set {name!r}{suggestion(name, KNOWN)}")
        return name

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        DataSpec(**self.model_dump())
        return self


class NetworkSection(Section):
    """`[network]`: which networks are trained."""

    family: Literal["small", "thin", "wide", "fast", "imagenet18", "imagenet34", "lenet300", "lenet5", "vgg", "cnn1d"]
    stem_stride: Annotated[int, Field(ge=1, le=2)] = 1  # 2 quarters the work: for small studies on a CPU
    start: Text | None = (
        None  # that pipelines may begin from: a folder of an export, a file of weights, torchvision:NAME
    )


class SpaceSection(Section):
    """`[space]`: what may be chosen. Ranges are [least, most]."""

    name: str = "acceleration"
    epochs: tuple[Annotated[int, Field(ge=1, le=10_000)], Annotated[int, Field(ge=1, le=10_000)]]
    batch_size: tuple[Annotated[int, Field(ge=1, le=MAX_BATCH)], Annotated[int, Field(ge=1, le=MAX_BATCH)]] = (64, 512)
    depth: tuple[Annotated[int, Field(ge=1, le=9)], Annotated[int, Field(ge=1, le=9)]] = (1, 3)
    width: tuple[Annotated[float, Field(ge=0.25, le=8)], Annotated[float, Field(ge=0.25, le=8)]] = (0.5, 2.0)
    executors: Annotated[tuple[Executor, ...], Field(min_length=1)] | None = None  # of steps; absent: as the space says
    fix: dict[str, bool | int | float | str] = Field(default_factory=dict)  # parameter = its only value
    exclude: dict[str, bool | int | float | str | list[bool | int | float | str]] = Field(
        default_factory=dict
    )  # parameter = values left out

    @field_validator("epochs", "batch_size", "depth", "width", "executors", mode="before")
    @classmethod
    def _pair(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value  # TOML has no tuples

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.name not in SPACES:
            raise ValueError(f"unknown space {self.name!r}{suggestion(self.name, SPACES)}")
        for name in ("epochs", "batch_size", "depth", "width"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = [{low}, {high}]: the least comes first")
        if len(set(self.executors or ())) < len(self.executors or ()):
            raise ValueError(f"executors = {json.dumps(self.executors)}: one of them comes twice")
        if any(size & (size - 1) for size in self.batch_size):
            raise ValueError(f"batch_size = {list(self.batch_size)}: both must be powers of two")
        return self


class SearchSection(Section):
    """`[search]`: how long and how. None of it is part of a study's identity, but the seed."""

    n_trials: Annotated[int, Field(ge=1, le=10**6)]  # the study's total, anchors included
    timeout: Seconds | None = None  # per invocation
    sampler: Literal["pareto", "tpe", "nsga2", "gp", "random"] = "pareto"
    stopping: str = "front"
    floor: Annotated[float, Field(ge=0, lt=1)] | None = None  # accuracy; absent: see opening.default_floor
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    fastest: Seconds | None = None  # the box of the hypervolume; absent: see proposals.interest
    slowest: Seconds | None = None
    useful: Annotated[float, Field(ge=0, lt=1)] | None = None  # accuracy
    repeats: Annotated[int, Field(ge=0, le=5)] = 2  # how often a candidate for the front that was disturbed is re-timed
    confirm: Annotated[int, Field(ge=0, le=10)] = 2  # fresh seeds for each point of the front once the search is over
    refit_test_time_flip: bool = True  # the network of all images tells an image by both sides, where that pays

    @model_validator(mode="after")
    def _has_extent(self) -> Self:
        if self.fastest is not None and self.slowest is not None and self.fastest >= self.slowest:
            raise ValueError(f"fastest = {self.fastest:g}, slowest = {self.slowest:g}: fastest must be below slowest")
        return self

    @field_validator("stopping")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in STOPPING:
            raise ValueError(f"unknown stopping {name!r}{suggestion(name, STOPPING)}")
        return name


class StudySpec(Section):
    """A study: data, networks, space, budget."""

    kind: KindName = "pareto"
    description: Annotated[str, Field(max_length=500)] = ""
    metric: Literal["plain", "balanced"] = "plain"  # which accuracy is maximised; the other one is recorded beside it
    test_time_flip: bool = False  # accuracies are those of an image and its mirror image taken together
    storage: Text | None = None  # SQLAlchemy URL; absent: the command line, OPTUNA_STORAGE, sqlite:///studies/optuna.db
    data: DataSection
    network: NetworkSection
    space: SpaceSection
    search: SearchSection
    reduce: ReduceSection | None = None
    machine: MachineSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, plain: object) -> object:
        return sections.completed(plain) if isinstance(plain, dict) else plain

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        seconds, stopping = self.search.fastest or self.search.slowest, self.search.stopping
        sections.check_kind(self.kind, self.space.name, self.reduce, self.metric, stopping, seconds, self.machine)
        return self

    @property
    def what(self) -> Kind:
        """What it minimises beside its accuracy."""
        return KINDS[self.kind]

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        family, data = self.network.family, DataSpec(**self.data.model_dump())
        if self.network.start is not None:
            sections.check_start(self.kind, self.space.name)
        if data.is_series != families.takes_series(family):
            takes, holds = ("images", "series") if data.is_series else ("series", "images")
            raise ValueError(f"the networks of family {family} take {takes}, and {data.name} holds {holds}")
        if not families.is_plain(family):
            return self
        if self.space.depth != sections.ONE_DEPTH:
            raise ValueError(f"space.depth = {list(self.space.depth)}: family {family} has one depth: leave it out")
        if self.network.stem_stride != 1:
            raise ValueError(f"network.stem_stride = 2: the networks of family {family} have no stem: leave it out")
        if not data.is_series:
            families.build(family, depth=1, width=1.0, in_channels=1, n_classes=2, size=data.side)
        return self

    @property
    def task(self) -> Task:
        """What every trial of this study has in common."""
        data = DataSpec(**self.data.model_dump(), seed=self.search.seed)
        machine = self.machine.machine if self.machine else None
        start = None if self.network.start is None else resolved(self.network.start)
        return Task(
            data, self.network.family, self.network.stem_stride, self.test_time_flip, machine=machine, start=start
        )

    @property
    def restrictions(self) -> Restrictions:
        """What `[space.fix]` and `[space.exclude]` forbid."""
        listed: dict[str, list[Value]] = {
            name: values if isinstance(values, list) else [values] for name, values in self.space.exclude.items()
        }
        return Restrictions(self.space.fix, listed)

    def given(
        self,
        number_formats: tuple[str, ...],
        flip: bool,
        *,
        size: int | None = None,
        n_train: int | None = None,
        unevenness: float = 1.0,
        base: Pipeline | None = None,
        start: Origin | None = None,
    ) -> Given:
        """What a space is given: this file, and what is known once device and data are open.

        No batch is larger than the training set: all those would be one. `base`: how the network was trained that a
        study makes smaller. `start`: what is known of the network that its file names.
        """
        space, number_formats = self.space, sections.having_rates(number_formats, self.machine)
        most = 2 ** ((n_train or MAX_BATCH).bit_length() - 1)
        return Given(
            self.network.family,
            number_formats,
            space.epochs,
            (min(space.batch_size[0], most), min(space.batch_size[1], most)),
            space.depth,
            space.width,
            flip,
            self.data.name,
            space.executors or (),
            self.network.stem_stride,
            size or self.task.data.side,
            n_train or self.data.n_train or (1_000 if self.data.name == "digits" else 10_000),
            unevenness,
            None if self.reduce is None else Reducing(base or Pipeline(), *self.reduce.ranges),
            None if start is None or self.task.start is None else replace(start, source=self.task.start),
        )


def read(name_or_file: str, start: str | None = None) -> tuple[str, StudySpec]:
    """(name, spec) of the study file that the argument names: `./studies/NAME.toml`, a built-in one, or a path.

    `start`: in the place of the network to start from that the file names, which need not be there any more.

    Raises:
        UsageError: no such file, or it does not describe a study; one line, with every mistake.
    """
    path = _find(name_or_file)
    name, where = check_name(path.stem), str(path)
    plain: Mapping[str, Any] = contents(path)
    if start is not None:
        plain, where = _beginning(plain, resolved(start)), f"{path} with --start {start}"
    try:
        spec = StudySpec.model_validate(plain)
    except ValidationError as error:
        raise UsageError(printable(f"{where}: {in_words(error, StudySpec)}")) from error
    try:
        # of data as yet unknown
        at_best = spec.given(get_args(NumberFormatName), flip=True, unevenness=inf, start=begun_from(spec))
        check(SPACES[spec.space.name], at_best, spec.restrictions)
    except ValueError as error:
        raise UsageError(printable(f"{where}: {error}")) from error
    return name, spec


def _beginning(plain: Mapping[str, Any], start: str) -> Mapping[str, Any]:
    """A study file whose pipelines may begin from another network; what is no table is told later."""
    network = plain.get("network", {})
    return {**plain, "network": {**network, "start": start}} if isinstance(network, dict) else plain


def begun_from(spec: StudySpec) -> Origin | None:
    """What is known of the network that a study may start from; None where its file names none.

    Raises:
        ValueError: there is none, it is damaged, or no network of the family can begin from it.
    """
    if spec.network.start is None:
        return None
    try:
        return check_begins(spec.task)
    except ValueError as error:
        raise ValueError(f"network.start: {error}") from error


def check_begins(task: Task) -> Origin | None:
    """What is known of the network that trainings of a task may start from; None where it names none.

    Raises:
        ValueError: there is none, it is damaged, or no network of the family can begin from it.
    """
    if task.start is None:
        return None
    known = origin(task.start)
    shape = {"in_channels": 1, "n_classes": 2, "size": task.data.side, "stem_stride": task.stem_stride}
    plain = families.build(task.family, depth=1, width=1.0, **shape)
    if why := mismatch(known.architecture, plain):
        raise ValueError(f"{known.words}: {why}: leave family out, or name another start")
    return known


def check_name(name: str) -> str:
    """The name of a study, if it may be one.

    Raises:
        UsageError: it may not.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"study name {name!r}: use 1 to 64 letters, digits, '.', '_', '-', beginning with a letter or digit"
        )
    return name


def _find(name_or_file: str) -> Path:
    as_path, known = Path(name_or_file), study_files()
    if as_path.suffix == ".toml" or len(as_path.parts) != 1 or name_or_file.endswith(os.sep):
        if as_path.is_file():
            return as_path
        what = f"{name_or_file!r} is a folder" if as_path.is_dir() else f"there is no study file {name_or_file!r}"
        raise UsageError(f"{what}: name a file that is there, or a study{suggestion(as_path.stem, known)}")
    if check_name(name_or_file) not in known:
        path = STUDIES / f"{name_or_file}.toml"
        raise UsageError(f"no study {name_or_file!r}: {path} does not exist{suggestion(name_or_file, known)}")
    return known[name_or_file]
