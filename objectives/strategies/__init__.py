"""One file per strategy. A new file is found by itself: `STRATEGIES` has every strategy by its class name."""

from importlib import import_module
from pkgutil import iter_modules

from objectives.strategies.base import Strategy


def _discover() -> dict[str, type[Strategy]]:
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return {strategy.__name__: strategy for strategy in Strategy.__subclasses__()}


STRATEGIES = _discover()
