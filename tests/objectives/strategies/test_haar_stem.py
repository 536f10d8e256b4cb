"""The laws of HaarStem."""

from __future__ import annotations

from dataclasses import replace

import pytest

from objectives.data.dataset import Dataset
from objectives.networks import flops
from objectives.networks.architecture import FAMILIES, Architecture, build
from objectives.strategies.haar_stem import HaarStem
from tests.objectives.strategies.cases import finish, using


def plain(family: str, stem_stride: int) -> Architecture:
    return build(family, depth=1, width=0.5, in_channels=3, n_classes=10, stem_stride=stem_stride)


def behind_the_stem(architecture: Architecture, size: int) -> int:
    """FLOPs of an inference without the first convolution."""
    halved = 2 if architecture.stem == "haar" else 1
    side = size // halved // architecture.stem_stride
    taps = architecture.stem_kernel**2
    stem = 2 * taps * architecture.in_channels * halved**2 * architecture.stages[0].width * side**2
    return flops.count(architecture, size)[0] - stem


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_takes_the_place_of_a_stride_of_2_at_the_same_work_behind_it(family: str) -> None:
    before = plain(family, 2)
    after = HaarStem().architecture(before)
    assert (after.stem, after.stem_stride, after.stages) == ("haar", before.stem_stride // 2, before.stages)
    assert behind_the_stem(after, 32) == behind_the_stem(before, 32)


@pytest.mark.parametrize("family", [name for name, known in FAMILIES.items() if known.stem_stride == 1])
def test_it_quarters_the_work_where_the_stride_is_1(family: str) -> None:
    before = plain(family, 1)
    after = HaarStem().architecture(before)
    assert (after.stem, after.stem_stride, after.stages) == ("haar", 1, before.stages)
    head = 2 * before.stages[-1].width * before.n_classes  # does not depend on the size
    assert 4 * (behind_the_stem(after, 32) - head) == behind_the_stem(before, 32) - head


@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 3), (5, 3), (7, 3), (9, 5)])
def test_large_kernels_become_half_as_large_with_the_images(before: int, after: int) -> None:
    network = replace(plain("imagenet18", 1), stem_kernel=before)
    assert HaarStem().architecture(network) == replace(network, stem="haar", stem_stride=1, stem_kernel=after)


def test_the_network_that_is_left_has_the_stem_and_its_flops_are_counted(digits: Dataset) -> None:
    reports, trained = finish(using(HaarStem()), digits)
    assert trained.model.architecture.stem == "haar"
    assert trained.model.stem[0].weight.shape[1] == 4
    assert reports[-1].inference_flops == flops.count(trained.model.architecture, 8)[0]
    assert reports[-1].train_flops == 4 * 500 * flops.count(trained.model.architecture, 8)[1]


@pytest.mark.parametrize("levels", [-1, 2, 0.5])
def test_other_levels_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match=f"a Haar stem of {levels} levels: it has 0 or 1"):
        HaarStem(levels)
