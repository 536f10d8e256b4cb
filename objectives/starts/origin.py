"""`Origin`: what is known of a trained network before its weights are read. Of an exported one that needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from objectives.host.durable import sums
from objectives.inference.folder import DESCRIPTION, WEIGHTS, described, verified
from objectives.networks import families
from objectives.networks.plain import AnyArchitecture, PlainArchitecture
from objectives.starts.likeness import family_of
from objectives.words import expanded, printable

TORCHVISION = "torchvision:"  # begins the word for weights that torchvision offers
FILES = (".safetensors", ".pth", ".pt")  # of weights that others trained

Stamp = tuple[int, int, int]  # of a file: its number, its bytes, when it was written


@dataclass(frozen=True)
class Origin:
    """A trained network that trainings may start from, but for its weights."""

    source: str  # where it is, as `resolved` puts it
    digest: str  # SHA-256 of its weights
    words: str  # what people are told that it is
    family: str | None  # one of families.ALL; None: none of them has such networks
    architecture: AnyArchitecture
    size: int | None  # pixels, or length of series, that it was trained at; None: not known
    classes: tuple[str, ...] = ()  # that it tells; empty: not known
    train_seconds: float | None = None  # that it took, with what it started from; None: not known

    @property
    def is_series(self) -> bool:
        """Whether it takes series instead of images."""
        return isinstance(self.architecture, PlainArchitecture) and self.architecture.dims == 1

    def takes(self, channels: int) -> bool:
        """Whether its first layer can be made one for images, or series, of so many channels."""
        had, of = self.architecture.in_channels, self.architecture
        is_dense = isinstance(of, PlainArchitecture) and of.inputs is not None
        return had == channels or ({had, channels} == {1, 3} and not self.is_series and not is_dense)

    @property
    def cost(self) -> str:
        """What it took to train, in words."""
        if self.train_seconds is None:
            return "nobody knows how long it trained"
        return f"it took {self.train_seconds:.3g} s to train, which are not charged"

    def to_json(self) -> dict[str, object]:
        """This as plain JSON data; `from_json` is the inverse."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "architecture": self.architecture.to_json(), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Origin:
        """The origin that `to_json` wrote."""
        architecture = families.architecture_of(plain["architecture"])
        return cls(**{**plain, "architecture": architecture, "classes": tuple(plain["classes"])})


def resolved(word: str) -> str:
    """A word for a start as it means the same in every folder; a file of an export stands for its folder."""
    if word.startswith(TORCHVISION):
        return word
    path = os.path.realpath(expanded(word))
    folder, name = os.path.split(path)
    is_of_export = name in (WEIGHTS, DESCRIPTION) and os.path.isfile(os.path.join(folder, DESCRIPTION))
    return folder if is_of_export else path


def is_export(source: str) -> bool:
    """Whether a resolved word is that of an exported network, or of nothing that could be."""
    return not source.startswith(TORCHVISION) and (not source.endswith(FILES) or os.path.isdir(source))


def stamp(source: str) -> Stamp:
    """By which it is told whether something was written anew at a resolved place, without reading the whole."""
    try:
        path = os.path.join(source, WEIGHTS) if is_export(source) else source
        at = os.stat(path)
    except OSError:
        return 0, 0, 0
    return at.st_ino, at.st_size, at.st_mtime_ns


@lru_cache(maxsize=8)  # a space asks thousands of times
def exported_origin(source: str, _: Stamp) -> Origin:
    """What is known of the network that was exported to a folder.

    Raises:
        ValueError: none was, or it is damaged.
    """
    folder = Path(source)
    about = described(folder, verified(folder)[DESCRIPTION])
    return of_export(folder, about, digest_of(folder))


def of_export(folder: Path, about: Mapping[str, Any], digest: str) -> Origin:
    """The origin that the description of an exported network tells of."""
    try:
        architecture = families.architecture_of(about["architecture"])
        known = about.get("family")
        return Origin(
            str(folder),
            digest,
            _words(folder, about),
            known if known in families.ALL else family_of(architecture),
            architecture,
            int(about["input"]["size"]),
            tuple(about["classes"]),
            _seconds(about),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / DESCRIPTION} describes no network: it lacks {error}") from error


def digest_of(folder: Path) -> str:
    """SHA-256 of the weights of an export, as it was written beside them.

    Raises:
        ValueError: nothing was.
    """
    try:
        return sums(folder)[WEIGHTS]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} is not an exported model: it has no checksum of {WEIGHTS}") from error


def _words(folder: Path, about: Mapping[str, Any]) -> str:
    if about.get("trial") is None:
        return f"the network in {printable(folder.name)}"
    of_all = ", trained on all images" if about.get("refit") else ""
    return f"trial {about['trial']} of study {about.get('study')}{of_all}"


def _seconds(about: Mapping[str, Any]) -> float | None:
    """What a network took to train, and what that started from before it; None where one of them is not known."""
    own, before = about.get("train_seconds"), about.get("start")
    if before is None or own is None:
        return own
    return None if before.get("train_seconds") is None else own + before["train_seconds"]
