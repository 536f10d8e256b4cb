"""An exported network that a command line names, ready on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from objectives.errors import DataError
from objectives.words import counted, expanded, printable
from search.errors import UsageError
from search.host.called import command

if TYPE_CHECKING:
    from objectives.export import ExportedModel


def loaded(folder: str, device: str) -> ExportedModel:
    """The network in a folder, on a device.

    Raises:
        UsageError: there is no such folder, or it holds several.
        DataError: it holds no network, a damaged one, or one of a newer version.
        DeviceError: the device cannot be used.
    """
    place = Path(expanded(folder))
    _check(place)
    from objectives.device.opening import opened
    from objectives.export import load_model

    try:
        model = load_model(place)
    except ValueError as error:
        raise DataError(printable(str(error))) from error
    return model.on(opened(device))


def _check(place: Path) -> None:
    """Says where networks are, if not there."""
    way_out = f"{command('best')} --study NAME says where those of a study lie"
    if not place.is_dir():
        raise UsageError(printable(f"there is no folder {place} with a network: {way_out}"))
    if (place / "model.json").is_file():
        return
    inner = sorted(path.parent for path in place.glob("*/model.json"))
    if inner:
        others = f"holds {counted(len(inner), 'network')}, but is none: name one of them"
        raise UsageError(printable(f"{place} {others}: {inner[0]}"))
    raise DataError(printable(f"{place} is not an exported model: it has no model.json: {way_out}"))
