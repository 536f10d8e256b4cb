"""How networks are alike: which can begin from which, of which family one is, at which of its settings. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from objectives.networks import families
from objectives.networks.architecture import Architecture
from objectives.networks.plain import INPUTS, AnyArchitecture, PlainArchitecture

DEPTHS = range(1, 10)  # of the networks of a family
WIDTHS = [number / 4 for number in range(1, 33)]  # likewise: multipliers of their channels


def family_of(architecture: AnyArchitecture) -> str | None:
    """The family whose networks differ from this one in width and depth alone; None where none has such."""
    size = architecture.size if isinstance(architecture, PlainArchitecture) else 32
    shape = {"in_channels": architecture.in_channels, "n_classes": architecture.n_classes, "size": size}
    alike: list[str] = []
    for family in families.ALL:
        try:
            plain = families.build(family, depth=1, width=1.0, **shape)
        except ValueError:  # not of this size
            continue
        if mismatch(architecture, plain) is None and _kind(architecture) == _kind(plain):
            alike.append(family)
    return min(alike, key=lambda family: min(_missing(architecture, family, n) for n in DEPTHS), default=None)


def settings_of(architecture: AnyArchitecture, family: str) -> tuple[int, float]:
    """(depth, multiplier of the widths, in quarters) of the network of a family that is nearest to this one."""
    size = architecture.size if isinstance(architecture, PlainArchitecture) else 32
    shape = {"in_channels": architecture.in_channels, "n_classes": architecture.n_classes, "size": size}
    depth, sizes = 1, architecture.axis_sizes()
    if isinstance(architecture, Architecture):
        depth = min(DEPTHS, key=lambda n: _missing(architecture, family, n))

    def apart(width: float) -> float:
        built = families.build(family, depth=depth, width=width, **shape).axis_sizes()
        return sum(abs(n - sizes[axis]) for axis, n in built.items() if axis in sizes and axis != INPUTS)

    return depth, min(WIDTHS, key=apart)


def _missing(architecture: AnyArchitecture, family: str, depth: int) -> int:
    """Blocks that one network has and the other lacks, the family's being of a depth."""
    if not isinstance(architecture, Architecture):
        return 0
    shape = {"in_channels": architecture.in_channels, "n_classes": architecture.n_classes, "size": 32}
    like = families.build(family, depth=depth, width=1.0, **shape)
    assert isinstance(like, Architecture)
    pairs = zip(architecture.stages, like.stages, strict=True)
    return sum(abs(len(one.interiors) - len(other.interiors)) for one, other in pairs)


def _kind(architecture: AnyArchitecture) -> tuple[object, ...]:
    """What two networks of one family have in common beside the number of their layers."""
    if not isinstance(architecture, Architecture):
        return ()
    return architecture.transition, getattr(architecture, "stem_pool", False)


def mismatch(start: AnyArchitecture, asked: AnyArchitecture) -> str | None:
    """Why no network of the architecture `asked` can begin from `start`, in one line; None where one can.

    Widths may differ, and of residual networks the depth of stages; classes and image channels are another matter.
    """
    names = f"{asked.describe()} from {start.describe()}"
    if isinstance(start, Architecture) != isinstance(asked, Architecture):
        return f"no network can begin {names}: one is residual, one is plain"
    if isinstance(start, Architecture) and isinstance(asked, Architecture):
        n, m = len(start.stages), len(asked.stages)
        return None if n == m else f"no network can begin {names}: it has {m} stages, the start {n}"
    if _layers(cast("PlainArchitecture", start)) != _layers(cast("PlainArchitecture", asked)):
        return f"no network can begin {names}: their layers, or the sizes that they take, differ in more than width"
    return None


def _layers(plain: PlainArchitecture) -> tuple[object, ...]:
    """All of a plain network but its widths, its classes and the channels that it takes."""
    convolutions = tuple(replace(each, channels=1) for each in plain.convolutions)
    whole = plain.inputs is None or plain.inputs == plain.in_channels * plain.size**plain.dims
    size = plain.size if plain.inputs is not None else plain.sides()[-1]
    return plain.dims, convolutions, len(plain.dense), size, whole
