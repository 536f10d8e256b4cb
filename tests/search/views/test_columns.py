"""Columns fit any width, lose nothing and end in no blanks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from search.views.columns import columns

WORD = st.text("abcdefgh", min_size=1, max_size=9)
ROWS = st.lists(st.tuples(WORD, WORD, st.lists(WORD, max_size=30).map(" ".join)), max_size=5)


@given(ROWS, st.integers(40, 220))
def test_no_line_is_wider_than_asked_and_no_word_is_lost(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = columns(("trial", "seconds", "pipeline"), rows, width)
    assert all(len(line) <= width for line in lines)
    assert all(line == line.rstrip() for line in lines)
    said = " ".join(lines).split()
    assert sorted(said) == sorted(
        ["trial", "seconds", "pipeline", *(word for row in rows for word in " ".join(row).split())]
    )


def test_what_does_not_fit_beside_its_row_stands_below_it() -> None:
    row = ("26", "0.22", "fp32, 3 epochs cosine, batch 32, lr 0.109, width x0.5, whitening stem")
    assert columns(("trial", "seconds", "pipeline"), [row], 60) == [
        "trial  seconds  pipeline",
        "   26     0.22  fp32, 3 epochs cosine, batch 32, lr 0.109,",
        "                width x0.5, whitening stem",
    ]
    assert columns(("trial", "seconds", "pipeline"), [row], 50) == [
        "trial  seconds",
        "    pipeline",
        "   26     0.22",
        "    fp32, 3 epochs cosine, batch 32, lr 0.109,",
        "    width x0.5, whitening stem",
    ]
