"""One file per strategy. A new file is found by itself: `STRATEGIES` has every strategy by its class name."""

from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules

from objectives.strategies.base import Strategy


def _discover() -> dict[str, type[Strategy]]:
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    found = list(Strategy.__subclasses__())
    for strategy in found:  # and those that are made of others
        found += strategy.__subclasses__()
    return {strategy.__name__: strategy for strategy in found if not isabstract(strategy)}


STRATEGIES = _discover()
