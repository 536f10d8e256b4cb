"""What strategies share that halve the images between the stages of a residual network otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from objectives.networks.architecture import Architecture, Downsampling
from objectives.networks.plain import residual

if TYPE_CHECKING:
    from objectives.networks.plain import AnyArchitecture
    from objectives.strategies.base import Outline


def check(side: int) -> None:
    """Refuses sides of the squares that become a pixel other than 1 and 2.

    Raises:
        ValueError: another one.
    """
    if side not in (1, 2):
        raise ValueError(f"a pooling of squares of {side!r} pixels a side: choose 1 or 2")


def named(name: str, side: int, behind: bool) -> str:
    """A pooling in words."""
    return f"{name}{' of single pixels' if side == 1 else ''}{' behind a convolution' if behind else ''}"


def idle(side: int, outline: Outline) -> str | None:
    """Why a pooling can have no effect in a run; None where it can."""
    if side == 1:
        return "it pools single pixels, as the strides do"
    if isinstance(outline.full, Architecture) and len(outline.full.stages) == 1:
        return "the network has one stage, which halves nothing"
    return None


def pooled(architecture: AnyArchitecture, side: int, downsampling: Downsampling) -> AnyArchitecture:
    """The architecture whose transitions halve images so; squares of a pixel are the strides that it has."""
    return architecture if side == 1 else replace(residual(architecture), downsampling=downsampling)
