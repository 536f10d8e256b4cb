"""`Journal`: all that a reduction needs to go on, in a folder. Written after every attempt, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from objectives.host.durable import write_file
from objectives.networks.network import Network, architecture_of, build
from objectives.reduction.settings import Iteration

FORMAT = 1
LOG = "journal.json"


@dataclass(frozen=True)
class Progress:
    """What was tried so far, and what it came to."""

    iterations: tuple[Iteration, ...] = ()
    accepted: Network | None = None  # on the CPU; None: nothing was accepted yet
    wall_seconds: float = 0.0  # that the attempts took


class Journal:
    """The journal of one reduction.

    The log names the file of the accepted network, which is there before the log says so.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        """`identity`: what the course of the reduction follows from, as plain JSON data.

        Raises:
            OSError: the folder cannot be made.
        """
        self._folder, self._identity = folder, json.loads(json.dumps(identity))
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> Progress:
        """How far the reduction has come; nothing was tried where the folder is new.

        Raises:
            ValueError: the journal is damaged, or one of another reduction.
        """
        try:
            log = json.loads((self._folder / LOG).read_bytes())
            if log["format"] == FORMAT:
                iterations = tuple(Iteration.from_json(each) for each in log["iterations"])
                identity, network, wall_seconds = log["identity"], log["network"], log["wall_seconds"]
        except FileNotFoundError:
            return Progress()
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self._folder / LOG} is damaged ({error}): start anew in another folder") from error
        if log["format"] != FORMAT:
            raise ValueError(f"{self._folder / LOG}: format {log['format']!r}, this version reads {FORMAT}")
        self._check(identity)
        return Progress(iterations, self._network(network), wall_seconds)

    def write(self, progress: Progress) -> None:
        """Makes what was done durable.

        Raises:
            OSError: the disk is full or cannot be written; the journal is what it was before.
        """
        network = None
        if progress.accepted is not None:
            number = max(each.number for each in progress.iterations if each.accepted)
            network = self._written(progress.accepted, f"network-{number}.safetensors")
        log = {
            "format": FORMAT,
            "identity": self._identity,
            "iterations": [each.to_json() for each in progress.iterations],
            "network": network,
            "wall_seconds": progress.wall_seconds,
        }
        write_file(self._folder / LOG, json.dumps(log, indent=1).encode())
        for old in self._folder.glob("network-*.safetensors"):
            if network is None or old.name != network["file"]:
                old.unlink()

    def _written(self, model: Network, name: str) -> dict[str, object]:
        weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
        content = safetensors.torch.save(weights)
        digest = hashlib.sha256(content).hexdigest()
        write_file(self._folder / name, content)  # always: one of that name may have been left by what was killed
        return {"file": name, "sha256": digest, "architecture": model.architecture.to_json()}

    def _network(self, about: Mapping[str, object] | None) -> Network | None:
        if about is None:
            return None
        path = self._folder / str(about["file"])
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError(f"{path} is missing or damaged: start anew in another folder")
        model = build(architecture_of(about["architecture"]))  # type: ignore[arg-type]
        model.load_state_dict(safetensors.torch.load(content))
        return model

    def _check(self, identity: Mapping[str, object]) -> None:
        differs = [key for key in {**identity, **self._identity} if identity.get(key) != self._identity.get(key)]
        if differs:
            was, now = identity.get(differs[0]), self._identity.get(differs[0])
            raise ValueError(
                f"{self._folder} is the journal of another reduction: {_difference(differs[0], was, now)}; "
                "go on with what it was begun with, or start in another folder"
            )


def _difference(name: str, was: object, now: object) -> str:
    """What differs, in words: one entry where both are tables."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        key = next(key for key in {**was, **now} if was.get(key) != now.get(key))
        return f"{key} was {_word(was.get(key))}, now it is {_word(now.get(key))}"
    return f"its {name} was {_word(was)}, now it is {_word(now)}"


def _word(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value)
