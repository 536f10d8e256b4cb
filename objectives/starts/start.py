"""`Start`: a trained network that trainings begin from, with what its pixels are normalised by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from objectives.networks.network import Network
from objectives.starts.exported import exported
from objectives.starts.likeness import family_of
from objectives.starts.origin import (
    TORCHVISION,
    Origin,
    Stamp,
    digest_of,
    is_export,
    of_export,
    resolved,
    stamp,
)

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of its pixels, as torchvision has them
IMAGENET_SIZE = 224  # pixels


@dataclass(frozen=True)
class Pixels:
    """What pixels are normalised by."""

    mean: tuple[float, ...]  # per channel, of values scaled to [0, 1]; of series raw
    std: tuple[float, ...]  # likewise


@dataclass(frozen=True)
class Start:
    """A trained network, on the CPU and in evaluation mode, that takes pixels normalised by `mean` and `std`."""

    network: Network
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]; of series raw
    std: tuple[float, ...]  # likewise
    origin: Origin

    @property
    def size(self) -> int | None:
        """Pixels, or length of series, that it was trained at; None: not known."""
        return self.origin.size

    @property
    def classes(self) -> tuple[str, ...]:
        """That it tells; empty: not known."""
        return self.origin.classes

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        return self.origin.digest

    @property
    def words(self) -> str:
        """What people are told that it is."""
        return self.origin.words

    @property
    def train_seconds(self) -> float | None:
        """What it took to train: told, and charged to nobody."""
        return self.origin.train_seconds

    def pixels(self, channels: int) -> Pixels:
        """What images of so many channels are normalised by, so that `fitting.adapted` filters see them alike.

        Of grey images the means over the channels, of a grey start the same numbers for every channel.
        """
        if channels == len(self.mean):
            return Pixels(self.mean, self.std)
        if channels == 1:
            return Pixels((sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),))
        return Pixels(self.mean[:1] * channels, self.std[:1] * channels)


def read(word: str) -> Start:
    """The start that `word` names: a folder of an export, a file of weights, or torchvision:NAME.

    What was read stays in memory, until something else lies there.

    Raises:
        ValueError: there is none, or it is damaged, in one line.
    """
    source = resolved(word)
    return _read(source, stamp(source))


@lru_cache(maxsize=2)
def _read(source: str, _: Stamp) -> Start:
    if not is_export(source):
        return _foreign(source)
    folder = Path(source)
    network, about = exported(folder)
    images = about["input"]
    known = of_export(folder, about, digest_of(folder))
    return Start(network, tuple(images["mean"]), tuple(images["std"]), known)


def _foreign(source: str) -> Start:
    """Weights that others trained, on ImageNet."""
    if source.startswith(TORCHVISION):
        from objectives.starts.torchvision import downloaded

        network, words = downloaded(source.removeprefix(TORCHVISION)), source
    else:
        from objectives.starts.weights import read_weights

        network, words = read_weights(Path(source)), Path(source).name
    family = family_of(network.architecture)
    known = Origin(source, digest(network), words, family, network.architecture, IMAGENET_SIZE)
    return Start(network.eval(), *IMAGENET, known)


def digest(network: Network) -> str:
    """SHA-256 of all tensors of a network, in the order of their names: the same for every file that holds them."""
    whole = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()
