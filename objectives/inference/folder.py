"""The folder of an exported network: names of its files, and whether they are what was written. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from objectives.host.durable import SUMS

WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


def verified(folder: Path) -> dict[str, bytes]:
    """The files of an export, each with the checksum that was written beside it.

    Raises:
        ValueError: one is missing or damaged.
    """
    try:
        lines = [line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines()]
        sums = {name: digest for digest, name in lines}
        content = {name: (folder / name).read_bytes() for name in (WEIGHTS, DESCRIPTION)}
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not an exported model: {error}") from error
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise ValueError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {SUMS}; export the trial again"
            )
    return content


def description(folder: Path) -> dict[str, Any] | None:
    """What an export says of itself; None where there is none, or it is damaged."""
    try:
        about: dict[str, Any] = json.loads(verified(folder)[DESCRIPTION])
    except ValueError:
        return None
    return about
