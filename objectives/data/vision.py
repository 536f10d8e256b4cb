"""The one door to torchvision.

The registry's torchvision wheel is linked against CUDA. Beside a CPU build of torch its compiled operators do not load,
and the import fails with "operator torchvision::nms does not exist": it describes operators that nobody defined.
Declaring the two it stumbles over is enough for datasets, transforms and models (torchvision 0.28, torch 2.13).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_declared: list[torch.library.Library] = []  # torch forgets a declaration when its Library is collected


def import_torchvision(submodule: str) -> ModuleType:
    """The module `torchvision.<submodule>`, with or without torchvision's compiled operators.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    name = f"torchvision.{submodule}"
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declared:
            raise
    import torch

    for half_imported in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[half_imported]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _declared.append(library)
    return importlib.import_module(name)
