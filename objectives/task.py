"""What is learned, apart from how: data set and network family of a study, seeds of a trial. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np

from objectives.modelled.machine import Machine

DATA_SETS = ("digits", "fashion_mnist", "cifar10", "cifar100")  # that have a name of their own
SERIES = "series"  # kind of data that are no images


def as_data(word: str) -> str:
    """The data that a word of the command line names: a plain path is that of a folder."""
    return word if word in DATA_SETS or word.startswith(("folder:", f"{SERIES}:")) else f"folder:{word}"


@dataclass(frozen=True)
class DataSpec:
    """Which data a study trains on, as plain data.

    Raises:
        ValueError: a value is out of range.
    """

    name: str  # "digits", "fashion_mnist", "cifar10", "cifar100", "folder:PATH" or "series:FILE.npz"
    root: str | None = None  # where to look for files first
    n_train: int | None = None  # training images to use; None: all that validation leaves
    size: int | None = None  # side of the square images, pixels; None: the data set's own (folder: 32)
    channels: int | None = None  # 1 or 3; None: what the data has
    flip: bool | None = None  # whether a horizontal flip keeps the label; None: the source's default
    drop_small_classes: bool = False  # classes with fewer than two images are dropped instead of refused
    labels: str | None = None  # of a folder: the table that names the classes of its images
    follow_links: bool = False  # of a folder: links that lead out of it are followed
    seed: int = 0  # of the splits
    streamed: bool | None = None  # images are fetched as they are used, or memory holds them; None: by what is free

    def __post_init__(self) -> None:
        if self.n_train is not None and self.n_train < 2:
            raise ValueError(f"n_train is {self.n_train}: at least two images are needed")
        if self.size is not None and not 4 <= self.size <= 1024:
            raise ValueError(f"size is {self.size}: it must lie between 4 and 1024 pixels")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels is {self.channels}: choose 1 (grey) or 3 (colour)")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: it must not be negative")
        if self.labels is not None and self.kind != "folder":
            raise ValueError(f"labels = {self.labels!r} names the images of a folder: say folder:PATH, not {self.name}")
        if self.is_series:
            said = [name for name in ("size", "channels", "flip") if getattr(self, name) is not None]
            if said:
                raise ValueError(f"{said[0]} is a matter of images, and {self.name} holds series: leave it out")

    @property
    def kind(self) -> str:
        """What the data are, apart from where they lie: 'folder', 'series', or a name."""
        return self.name.partition(":")[0]

    @property
    def is_series(self) -> bool:
        """Whether the data are series instead of images."""
        return self.kind == SERIES

    @property
    def side(self) -> int:
        """Side of the square images in pixels; of series, whose length only the file says, the usual length."""
        return self.size or {"digits": 8, "fashion_mnist": 28, SERIES: 128}.get(self.kind, 32)

    def to_json(self) -> dict[str, object]:
        """This spec as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> DataSpec:
        """The spec that `to_json` wrote.

        Raises:
            ValueError: an unknown field, or a value out of range.
        """
        if unknown := sorted(set(plain) - {f.name for f in fields(cls)}):
            raise ValueError(f"unknown data setting {unknown[0]!r}: it was written by another version")
        return cls(**plain)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Task:
    """What every trial of a study has in common."""

    data: DataSpec
    family: str  # one of families.ALL
    stem_stride: int = 1
    test_time_flip: bool = False  # accuracies are those of an image and its mirror image taken together
    base: str | None = None  # folder of the exported network that is made smaller, where that is what is done
    start: str | None = None  # what trainings may start from; see `starts.naming`
    machine: Machine | None = None  # whose seconds are told beside those of the device, by the time model

    def to_json(self) -> dict[str, object]:
        """This task as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Task:
        """The task that `to_json` wrote."""
        values = dict(plain)
        data = DataSpec.from_json(values.pop("data"))  # type: ignore[arg-type]
        machine = values.pop("machine", None)
        there = None if machine is None else Machine.from_json(machine)  # type: ignore[arg-type]
        return cls(data=data, machine=there, **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Seeds:
    """Independent seeds of one training, one for each role."""

    init: int
    order: int
    augmentation: int

    @classmethod
    def of(cls, study_seed: int, trial: int, repeat: int = 0) -> Seeds:
        """The seeds of a trial: children of the study's seed, so that two trials share nothing."""

        def child(role: int) -> int:
            sequence = np.random.SeedSequence(study_seed, spawn_key=(trial, repeat, role))
            return int(sequence.generate_state(1, np.uint64)[0] >> 2)  # room below 2**63 for `seed + epoch`

        return cls(child(0), child(1), child(2))

    def of_split(self, number: int) -> Seeds:
        """The seeds of the same training on another split of the images; the first split has these."""
        if not number:
            return self
        sequences = (np.random.SeedSequence(seed, spawn_key=(number,)) for seed in (self.init, self.order))
        augmentation = np.random.SeedSequence(self.augmentation, spawn_key=(number,))
        return Seeds(*(int(each.generate_state(1, np.uint64)[0] >> 2) for each in (*sequences, augmentation)))
