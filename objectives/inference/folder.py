"""The folder of an exported network: names of its files, and whether they are what was written. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from objectives.host.durable import SUMS

WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"
# Of the folder; raised when a reader of the old one could not read the new one. 5: how transitions halve
# images, what stands behind convolutions. 6: a pooling behind the stem.
FORMAT = 6


def verified(folder: Path) -> dict[str, bytes]:
    """The files of an export, each with the checksum that was written beside it.

    Raises:
        ValueError: one is missing or damaged.
    """
    try:
        missing = _missing(folder)
        content = {} if missing else {name: (folder / name).read_bytes() for name in (WEIGHTS, DESCRIPTION, SUMS)}
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
    if missing:
        holds = f"an export holds {DESCRIPTION}, {WEIGHTS} and {SUMS}"
        raise ValueError(f"{folder} is not an exported model: {missing}; {holds}")
    try:
        lines = [line.split("  ", 1) for line in content.pop(SUMS).decode().splitlines()]
        sums = {name: digest for digest, name in lines}
    except ValueError as error:
        raise ValueError(f"{folder / SUMS} is damaged: it lists no checksums; export the trial again") from error
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise ValueError(
                f"{folder / name} is damaged: its SHA-256 is not the one in {SUMS}; export the trial again"
            )
    return content


def described(folder: Path, description: bytes) -> dict[str, Any]:
    """What the description of the export in `folder` says.

    Raises:
        ValueError: it is of a newer format.
    """
    about: dict[str, Any] = json.loads(description)
    if about.get("format") not in range(1, FORMAT + 1):
        raise ValueError(
            f"{folder}: export format {about.get('format')!r}, this version reads {FORMAT}: update frontrunner"
        )
    return about


def _missing(folder: Path) -> str | None:
    """What a folder lacks to be an export, in words; None where every file is there."""
    if not folder.is_dir():
        return "it is a file" if folder.exists() else "there is no such folder"
    lacking = [name for name in (DESCRIPTION, WEIGHTS, SUMS) if not (folder / name).is_file()]
    return f"it has no {' and no '.join(lacking)}" if lacking else None


def description(folder: Path) -> dict[str, Any] | None:
    """What an export says of itself; None where there is none, or it is damaged."""
    try:
        about: dict[str, Any] = json.loads(verified(folder)[DESCRIPTION])
    except ValueError:
        return None
    return about
