"""`Result`: how a trial ended, ready to be told; kept in a file while the database does not take it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from objectives.host.durable import write_file
from search.errors import StorageError


@dataclass(frozen=True)
class Result:
    """How a trial ended: all that is written about it."""

    trial: int  # its number
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    values: tuple[float, float] | None = None  # cost, val_accuracy; of a COMPLETE trial
    attributes: Mapping[str, object] = field(default_factory=dict)  # user attributes
    violation: float | None = None  # of the accuracy floor; at most 0: feasible

    def to_json(self) -> dict[str, object]:
        """This result as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Result:
        """The result that `to_json` wrote."""
        values = dict(plain)
        if isinstance(values["values"], list):
            values["values"] = tuple(values["values"])
        return cls(**values)  # type: ignore[arg-type]


def keep(folder: Path, result: Result) -> Path:
    """Writes a result to a file of the folder; its path.

    Raises:
        OSError: there is no space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"trial-{result.trial:05d}.json"
    write_file(path, json.dumps(result.to_json()).encode())
    return path


def kept(folder: Path) -> Iterator[tuple[Path, Result]]:
    """The results in a folder, each with its file.

    Raises:
        StorageError: a file holds none.
    """
    for path in sorted(folder.glob("trial-*.json")):
        try:
            result = Result.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is damaged: move it away, then its trial is tried again") from error
        yield path, result
