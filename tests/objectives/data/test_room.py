"""Data that do not fit are refused before they are decoded, with the largest size that does fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.data import folders
from objectives.data.room import LEAST, SHARE, STEP, check_fits, free_on_host
from objectives.errors import DataError
from tests.objectives.data.images import files_under, load_folder, make_folder


@given(st.integers(1, 10**7), st.integers(4, 1024), st.sampled_from([1, 3]), st.integers(0, 10**12))
def test_the_size_that_is_named_fits_and_the_next_one_does_not(n: int, size: int, channels: int, free: int) -> None:
    if n * size * size * channels <= SHARE * free:
        check_fits(n, size, channels, free)
        return
    with pytest.raises(DataError) as refused:
        check_fits(n, size, channels, free)
    said = str(refused.value)
    assert "\n" not in said
    if "size = " in said:
        side = int(said.partition("size = ")[2].split()[0])
        check_fits(n, side, channels, free)
    else:
        side = LEAST - STEP
    with pytest.raises(DataError):
        check_fits(n, side + STEP, channels, free)


def test_where_nobody_knows_what_is_free_nothing_is_refused() -> None:
    check_fits(10**9, 1024, 3, None)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (
            {"memory.max": "9000000", "memory.current": "5000000", "memory.stat": "anon 1\ninactive_file 1000"},
            4_001_000,
        ),
        ({"memory.max": "max", "memory.current": "5000000", "memory.stat": "anon 1\ninactive_file 1000"}, None),
        (
            {
                "memory/memory.limit_in_bytes": "7000000",
                "memory/memory.usage_in_bytes": "5000000",
                "memory/memory.stat": "cache 1\ntotal_inactive_file 500",
            },
            2_000_500,
        ),
    ],
)
def test_a_control_group_limits_what_is_free(files: dict[str, str], free: int | None, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    machine = free_on_host(tmp_path / "none")
    assert machine is not None
    found = free_on_host(tmp_path)
    assert found == free if free is not None else (found or 0) > 9_000_000


def test_a_folder_that_does_not_fit_is_refused_before_an_image_is_decoded(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "free_on_host", lambda: 50_000)
    folder = make_folder(tmp_path / "data", [10, 10])
    said = (
        "20 images of 64x64 with 3 channels take 0.2 MB, and of memory 0.1 MB are free: the largest size that fits is "
        r"24 \(size = 24 under \[data\]\), or part of the images with --n-train"
    )
    with pytest.raises(DataError, match=said):
        load_folder(folder, 64)
    assert not files_under(cache)
    assert load_folder(folder, 24).size == 24
    assert load_folder(folder, 40, n_train=2).size == 40
