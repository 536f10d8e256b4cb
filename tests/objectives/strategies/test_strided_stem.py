"""The laws of StridedStem."""

from __future__ import annotations

import pytest

from objectives.networks.architecture import FAMILIES
from objectives.pipeline import Pipeline
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.strided_stem import StridedStem
from tests.objectives.strategies.test_haar_stem import behind_the_stem, plain


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_leaves_the_network_of_a_task_with_that_stride(family: str) -> None:
    assert StridedStem().architecture(plain(family, 1)) == plain(family, 2)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_quarters_the_work_behind_the_stem(family: str) -> None:
    before, after = plain(family, 1), StridedStem().architecture(plain(family, 1))
    head = 2 * before.stages[-1].width * before.n_classes  # does not depend on the size
    assert 4 * (behind_the_stem(after, 64) - head) == behind_the_stem(before, 64) - head


def test_it_does_not_run_with_what_halves_the_images_itself() -> None:
    with pytest.raises(ValueError, match="StridedStem cannot run with HaarStem"):
        Pipeline(strategies=(HaarStem(), StridedStem()))


@pytest.mark.parametrize("stride", [0, 3, 4])
def test_other_strides_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"a stem of stride {stride}: choose 1 or 2"):
        StridedStem(stride)
