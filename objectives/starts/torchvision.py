"""torchvision's networks with the weights that it offers: from a cache, or from the network."""

from __future__ import annotations

import hashlib
import http.client
import re
from pathlib import Path
from urllib.request import urlopen

import torch

from objectives.data.sources import DATASETS, NETWORK_SECONDS, NO_CACHE, cache_home
from objectives.data.vision import import_torchvision
from objectives.host.durable import write_file
from objectives.networks.network import Network
from objectives.starts.origin import TORCHVISION
from objectives.starts.weights import brief, read_weights
from objectives.words import printable

NAMES = ("resnet18", "resnet34")  # its ResNets of basic blocks


def downloaded(name: str) -> Network:
    """torchvision's network of a name, with its newest weights, on the CPU, in evaluation mode.

    They are looked for in torch's own cache, then in ours, and downloaded to ours where there is a network.

    Raises:
        ValueError: its blocks are others, or its weights are not to be had.
    """
    word = name.removeprefix(TORCHVISION)
    if word not in NAMES:
        choices = " and ".join(TORCHVISION + each for each in NAMES)
        raise ValueError(
            printable(f"{TORCHVISION}{word} is not taken: of torchvision only {choices} have basic blocks")
        )
    url = str(import_torchvision("models").get_model_weights(word).DEFAULT.url)
    file = url.rpartition("/")[2]
    found = re.search(r"-([0-9a-f]{8,64})\.", file)
    assert found is not None, file  # how torchvision names all of its weights
    digest, home = found[1], cache_home()
    theirs = Path(torch.hub.get_dir()) / "checkpoints" / file
    if _has_digest(theirs, digest):
        return read_weights(theirs)
    if home is None:
        raise ValueError(f"{TORCHVISION}{word} cannot be kept: {NO_CACHE}")
    ours = home / DATASETS / file
    if not _has_digest(ours, digest) and (failure := _download(url, ours, digest)):
        raise ValueError(printable(f"{TORCHVISION}{word} is neither {theirs} nor {ours}, and {url} {failure}"))
    return read_weights(ours)


def _has_digest(path: Path, begins: str) -> bool:
    """Whether a file is there whose SHA-256 begins so."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(begins)
    except OSError:
        return False


def _download(url: str, path: Path, begins: str) -> str:
    """Why a file could not be had whose SHA-256 begins so, or ''. It is there whole or not at all."""
    try:
        with urlopen(url, timeout=NETWORK_SECONDS) as answer:
            content: bytes = answer.read()
        if not hashlib.sha256(content).hexdigest().startswith(begins):
            return "gave another file: its SHA-256 is not that of its name"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except (OSError, http.client.HTTPException) as error:
        return f"cannot be had ({brief(error)}): get the file elsewhere and name it"
    return ""
