"""Spaces by name: every module of this package that has `anchors` is one."""

from importlib import import_module
from pkgutil import iter_modules
from typing import cast

from spaces.base import Space


def _discover() -> dict[str, Space]:
    modules = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}
    return {name: cast("Space", module) for name, module in modules.items() if hasattr(module, "anchors")}


SPACES = _discover()
