"""Plain architectures of all shapes, for the laws of networks and of surgery."""

from __future__ import annotations

from typing import Literal

from hypothesis import strategies as st

from objectives.networks.plain import PlainArchitecture, PlainConvolution, least_size


@st.composite
def convolutions(draw: st.DrawFn) -> PlainConvolution:
    kernel = draw(st.integers(1, 4))
    return PlainConvolution(
        channels=draw(st.integers(1, 6)),
        kernel=kernel,
        padding=draw(st.integers(0, kernel - 1)),
        stride=draw(st.integers(1, 2)),
        has_norm=draw(st.booleans()),
        pool=draw(st.integers(1, 2)),
        pooling=draw(st.sampled_from(["max", "average"])),
    )


@st.composite
def plain_architectures(draw: st.DrawFn) -> PlainArchitecture:
    """Up to two convolutions of images or series and up to two dense layers, on the smallest size or a little more."""
    dims: Literal[1, 2] = draw(st.sampled_from([1, 2]))
    first = tuple(draw(st.lists(convolutions(), max_size=2)))
    size = least_size(first) + draw(st.integers(0, 3))
    in_channels = draw(st.sampled_from([1, 3]))
    return PlainArchitecture(
        in_channels=in_channels,
        n_classes=draw(st.integers(2, 4)),
        size=size,
        dims=dims,
        convolutions=first,
        dense=tuple(draw(st.lists(st.integers(1, 7), max_size=2))),
        inputs=None if first else in_channels * size**dims,
    )
