"""A device by its name, tried once."""

from __future__ import annotations

import torch

from objectives.errors import DeviceError


def opened(device: str) -> torch.device:
    """The device of that name, in working order; `auto` is a GPU where there is one.

    Raises:
        DeviceError: it cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        if found.type not in ("cpu", "cuda"):
            raise DeviceError(f"device {device!r} is not supported: choose cpu or cuda")
        found = torch.zeros(1, device=found).device  # with its index
        if found.type == "cuda":
            torch.cuda.set_device(found)  # graphs are captured and spans are timed on the current device
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0]
        raise DeviceError(f"device {device!r} cannot be used ({cause}): choose another with --device") from error
    return found
