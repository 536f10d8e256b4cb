"""The plot of a front keeps to its room, shows every point of the front, and depends on the points alone."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.views.plot import GUTTER, LOWEST, NARROWEST, Kind, Mark, plot

SECONDS = st.floats(1e-3, 1e6)
POINTS = st.lists(st.builds(Mark, SECONDS, st.floats(0.0, 1.0), st.sampled_from(Kind)), max_size=30)
ENDS = (Mark(0.1, 0.5, Kind.DOMINATED), Mark(100.0, 0.99, Kind.DOMINATED))
WIDTHS, HEIGHTS = st.integers(0, 200), st.integers(0, 30)


@given(POINTS, WIDTHS, HEIGHTS, st.booleans())
def test_it_keeps_to_its_room_and_says_only_numbers(
    points: list[Mark], width: int, height: int, ascii_only: bool
) -> None:
    lines = plot(points, width, height, ascii_only=ascii_only)
    assert len(lines) <= height
    assert all(len(line) <= width and line == line.rstrip() for line in lines)
    assert bool(lines) == (bool(points) and width >= NARROWEST and height >= LOWEST)
    assert not {"nan", "inf"} & set(" ".join(lines).split())
    assert not ascii_only or "".join(lines).isascii()


@given(
    st.lists(st.builds(Mark, st.floats(0.1, 100.0), st.floats(0.5, 0.99), st.sampled_from(Kind)), max_size=30),
    st.integers(NARROWEST, 120),
    st.integers(LOWEST, 12),
)
def test_every_point_of_the_front_has_its_column(points: list[Mark], width: int, height: int) -> None:
    drawn = plot([*points, *ENDS], width, height, ascii_only=True)[1:-2]
    for point in points:
        if point.kind is Kind.FRONT:
            column = GUTTER + (math.log10(point.cost) + 1) / 3 * (width - GUTTER - 1)
            either = {round(column - 1e-6), round(column + 1e-6)}  # half of a column may go either way
            assert any(line[i : i + 1] in ("o", "B") for line in drawn for i in either)


@given(st.lists(st.builds(Mark, SECONDS, st.floats(0.0, 1.0), st.sampled_from(Kind)), min_size=1), st.randoms())
def test_the_order_of_the_points_does_not_matter(points: list[Mark], random: Random) -> None:
    mixed = list(points)
    random.shuffle(mixed)
    assert plot(points, 60, 10, ascii_only=False) == plot(mixed, 60, 10, ascii_only=False)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
def test_equal_points_stand_in_the_middle(n: int, accuracy: float) -> None:
    assert plot([Mark(1.5, accuracy, Kind.FRONT)] * n, 60, 8, ascii_only=True) == [
        "accuracy over seconds of training  o front",
        "        |",
        "        |",
        f"{accuracy:>7.2%} +                         o",
        "        |",
        "        |",
        f"        +{'-' * 25}+{'-' * 25}",
        "                                1.5 s",
    ]


def test_fast_is_left_accurate_is_above_and_what_a_point_is_can_be_seen() -> None:
    points = [
        Mark(0.1, 0.9, Kind.FRONT),
        Mark(1.0, 0.99, Kind.FRONT),
        Mark(0.4, 0.84, Kind.DOMINATED),
        Mark(10.0, 0.97, Kind.BASELINE),
    ]
    assert plot(points, 60, 8, ascii_only=False) == [
        "accuracy over seconds  ● front  · dominated  B BASELINE",
        " 99.00% ┤                         ●",
        "        │",
        " 96.00% ┤                                                  B",
        "        │●",
        " 84.00% ┤               ·",
        "        └┬────────────────────────┬────────────────────────┬",
        "       0.1 s                     1 s                    10 s",
    ]
