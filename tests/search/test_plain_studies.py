"""Laws of studies of plain networks: they are searched as others are, and what they cannot be is told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.search.place import Done

STUDY = """
[data]
name = "{data}"
{more}
[network]
family = "{family}"
{stride}
[space]
epochs = [1, 2]
batch_size = [32, 64]
width = [0.5, 0.5]
{depth}
[search]
n_trials = 3
repeats = 0
confirm = 1
"""
DIGITS = {"data": "digits", "more": "size = 12\nn_train = 200", "family": "lenet5", "stride": "", "depth": ""}
SERIES = {**DIGITS, "data": "series:waves.npz", "more": "", "family": "cnn1d"}


@pytest.mark.long
@pytest.mark.parametrize("parts", [DIGITS, SERIES], ids=["lenet5", "cnn1d"])
def test_a_study_of_a_plain_family_runs_to_its_end(
    parts: dict[str, str], command: Callable[[str], Done], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(120, 2, 16)), np.arange(120) % 2
    np.savez(tmp_path / "waves.npz", x=x, y=y, x_test=x[:20] + 1, y_test=y[:20])
    (tmp_path / "plain.toml").write_text(STUDY.format(**parts))
    done = command("run --study plain.toml --device cpu --json")
    assert done.code == 0
    assert '"failed": 0' in done.out


REFUSED = {
    "depth": ({"depth": "depth = [1, 3]"}, "space.depth = [1, 3]: family lenet5 has one depth: leave it out"),
    "stem": ({"stride": "stem_stride = 2"}, "the networks of family lenet5 have no stem: leave it out"),
    "size": ({"more": "size = 8"}, "images of 8 pixels are too small for the family lenet5: it needs 12 at least"),
    "images": ({"family": "cnn1d"}, "the networks of family cnn1d take series, and digits holds images"),
    "series": ({"data": "series:x.npz", "more": ""}, "take images, and series:x.npz holds series"),
    "no file": ({"data": "series:", "more": ""}, "'series:' names no file: say series:FILE.npz"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_plain_family_cannot_be_is_told_in_one_line(
    case: str, command: Callable[[str], Done], tmp_path: Path
) -> None:
    changes, message = REFUSED[case]
    (tmp_path / "plain.toml").write_text(STUDY.format(**{**DIGITS, **changes}))
    done = command("run --study plain.toml --device cpu")
    assert (done.code, message in done.err) == (2, True), done.err
    assert done.err.count("\n") == 1
