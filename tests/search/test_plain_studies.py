"""Laws of studies of plain networks: they are searched as others are, and what they cannot be is told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search.study import spec
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


REDUCED = """
kind = "reduce"
[reduce]
epsilon = [0.05, 0.1]
epochs = [1, 1]
iterations = [1, 2]
[reduce.base]
epochs = 12
[search]
n_trials = 2
confirm = 0
"""


@pytest.mark.parametrize(
    ("data", "family"),
    [  # five seconds: a program that owns a study, and a worker that trains
        ('name = "digits"\nsize = 12\nn_train = 200', "lenet5"),
        pytest.param('name = "fashion_mnist"\nn_train = 400', "lenet5", marks=pytest.mark.long),
        pytest.param('name = "series:waves.npz"', "cnn1d", marks=pytest.mark.long),
    ],
)
def test_a_study_makes_a_plain_network_smaller_that_it_trained_first(
    data: str, family: str, command: Callable[[str], Done], tmp_path: Path
) -> None:
    x, y = np.sin(np.outer(np.arange(120) % 2 + 1, np.arange(20)))[:, None], np.arange(120) % 2
    np.savez(tmp_path / "waves.npz", x=x, y=y)
    (tmp_path / "plain.toml").write_text(f'{REDUCED}[data]\n{data}\n[network]\nfamily = "{family}"\n')
    done = command("run --study plain.toml --device cpu --json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["trials"]["complete"], told["trials"]["failed"]) == (2, 0)
    assert told["base"]["accuracy"] > 0.3  # it has learned: an eighth of the rate of networks with norms
    assert told["front"][0]["inference_flops"] < told["base"]["inference_flops"]


def test_a_plain_network_to_make_smaller_has_one_depth_and_its_own_rate_unless_one_is_said(tmp_path: Path) -> None:
    path, text = tmp_path / "plain.toml", f'{REDUCED}[data]\nname = "fashion_mnist"\n[network]\nfamily = "%s"\n'
    for family, said, depth, lr in (("lenet5", "", (1, 1), 0.2), ("small", "", (1, 3), 1.6), ("vgg", "", (1, 1), 1.6),
                                    ("lenet5", "lr = 0.7\n", (1, 1), 0.7)):  # fmt: skip
        path.write_text(text.replace("epochs = 12\n", f"epochs = 12\n{said}") % family)
        read = spec.read(str(path))[1]
        assert read.reduce is not None
        assert read.reduce.base is not None
        assert read.space.depth == depth
        assert read.reduce.base.lr == pytest.approx(lr)
        assert spec.StudySpec.model_validate(read.model_dump(mode="json")) == read  # as a database keeps it


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
