"""Weights of others from a file, as networks of ours. What is no tensor in it could run, and is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from objectives.networks.network import Network
from objectives.starts.origin import FILES
from objectives.starts.state_dicts import resnet
from objectives.words import printable

SAFE = ".safetensors"  # ends the name of a file that cannot hold anything else
LONGEST = 300  # characters of what is told: names of tensors are whatever a file says
_NESTED = ("state_dict", "model")  # under which a checkpoint has the tensors of its network
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile and Lightning put this before all names


def read_weights(path: Path) -> Network:
    """The network of a file of torchvision's tensors, on the CPU, in evaluation mode; see `state_dicts.resnet`.

    They may lie under `state_dict` or `model`, as they do in checkpoints, and their names begin as wrappers let them.

    Raises:
        ValueError: it cannot be read, or holds another network; one line, with the first tensor that does not fit.
    """
    try:
        return resnet(_unwrapped(_content(path)))
    except ValueError as error:
        raise ValueError(printable(f"{path}: {str(error)[:LONGEST]}")) from error


def brief(error: Exception) -> str:
    """The beginning of what an error says, on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _content(path: Path) -> object:
    """What a file holds, its tensors on the CPU."""
    if path.suffix not in FILES:
        raise ValueError(f"weights lie in files that end in {', '.join(FILES)}")
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        if path.suffix == SAFE:
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"it cannot be read ({brief(error)})") from error
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is damaged, or no file of safetensors ({brief(error)})") from error
    except Exception as error:  # of archives, pickles, encodings, indices: torch has none that stands for all
        what = "it is damaged, or holds more than tensors, which could run: save the state_dict() of the network alone"
        raise ValueError(f"{what} ({brief(error)})") from error


def _unwrapped(content: object) -> dict[str, Tensor]:
    """The tensors in what was read, by the names that they have in the network itself."""
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"it holds no tensors with names, but {type(content).__name__}")
    tensors: dict[str, Any] = {str(name): value for name, value in content.items()}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is no tensor, but {type(value).__name__}")
    while prefix := next((each for each in _WRAPPERS if all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
