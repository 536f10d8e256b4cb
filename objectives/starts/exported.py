"""The network of an export, read back: what predicts, is made smaller, or is started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from objectives.inference.folder import DESCRIPTION, WEIGHTS, described, verified
from objectives.networks.network import Network, architecture_of, build


def exported(folder: Path) -> tuple[Network, Mapping[str, Any]]:
    """(network, what its description says) of an export, on the CPU, in evaluation mode.

    Raises:
        ValueError: a file is missing, damaged or of a newer format.
    """
    content = verified(folder)
    about = described(folder, content[DESCRIPTION])
    network = build(architecture_of(about["architecture"]))
    try:
        network.load_state_dict(safetensors.torch.load(content[WEIGHTS]))
    except (safetensors.SafetensorError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise ValueError(f"{folder / WEIGHTS} holds no weights of this network ({cause})") from error
    return network.eval(), about
