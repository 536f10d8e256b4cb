"""The laws of BalancedSampling."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.data.dataset import Dataset, Images
from objectives.strategies.balanced_sampling import BalancedSampling, draws_of
from objectives.train import after_boundary
from tests.objectives.strategies.cases import begin, finish, using


@pytest.fixture(scope="module")
def uneven(digits: Dataset) -> Dataset:
    """Digits of which the eights are cut to a tenth."""
    is_eight = digits.train.y == 8
    kept = ~is_eight | (is_eight.cumsum(0) <= int(is_eight.sum()) // 10)
    return replace(digits, train=Images(digits.train.x[kept], digits.train.y[kept]))


def drawn(strategy: BalancedSampling, dataset: Dataset, epochs: int = 6) -> list[Images]:
    """The images of every epoch of a run."""
    state = begin(using(strategy, epochs=epochs), dataset)
    found = [state.data]
    for epoch in range(1, epochs):
        state = after_boundary(replace(state, epoch=epoch))
        found.append(state.data)
    return found


def shown(images: Images, label: int) -> Counter[bytes]:
    """How often each image of a class comes."""
    return Counter(x.numpy().tobytes() for x in images.x[images.y == label])


@given(counts=st.lists(st.integers(1, 900), min_size=2, max_size=30), share=st.floats(0, 1))
def test_draws_lie_between_the_classes_as_they_are_and_equal_ones_and_are_as_many(
    counts: list[int], share: float
) -> None:
    draws = draws_of(torch.tensor(counts), share).tolist()
    assert sum(draws) == sum(counts)
    for n, count in zip(draws, counts, strict=True):
        assert abs(n - ((1 - share) * count + share * sum(counts) / len(counts))) < 1
        assert n >= 1


def test_the_ends_of_the_share_are_classes_as_they_are_and_classes_equally_often(uneven: Dataset) -> None:
    counts = uneven.train.y.bincount()
    assert counts.max() > 9 * counts.min()
    assert draws_of(counts, 0.0).equal(counts)
    for images in drawn(BalancedSampling(), uneven):
        often = images.y.bincount()
        assert len(images.y) == len(images.x) == len(uneven.train.y)
        assert often.max() - often.min() <= 1
        assert images.x.is_contiguous(memory_format=torch.channels_last)


def test_every_image_of_a_class_comes_before_any_comes_once_more(uneven: Dataset) -> None:
    for images in drawn(BalancedSampling(), uneven):
        for label in range(10):
            available, found = shown(uneven.train, label), shown(images, label)
            assert set(found) <= set(available)
            assert len(found) == min(len(available), found.total())
            assert max(found.values()) - min(found.values()) <= 1


def test_large_classes_show_other_images_in_every_epoch(uneven: Dataset) -> None:
    for before, after in pairwise(drawn(BalancedSampling(), uneven)):
        assert shown(before, 3) != shown(after, 3)
        assert set(shown(before, 8)) == set(shown(after, 8))


def test_draws_follow_the_seed(uneven: Dataset) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(drawn(BalancedSampling(), uneven))
    assert all(torch.equal(one.x, other.x) for one, other in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0].x, found[2][0].x)


def test_classes_that_are_even_are_left_alone_and_that_is_told(digits: Dataset) -> None:
    rank = torch.stack([(digits.train.y[:n] == label).sum() for n, label in enumerate(digits.train.y)])
    even = replace(digits, train=Images(digits.train.x[rank < 40], digits.train.y[rank < 40]))
    reports, trained = finish(using(BalancedSampling()), even)
    assert reports[0].events == ("BalancedSampling does nothing in this run: the classes are even",)
    plain, other = finish(using(), even)
    assert [report.loss for report in reports] == [report.loss for report in plain]
    assert all(map(torch.equal, trained.model.parameters(), other.model.parameters()))


def test_a_class_cut_to_a_tenth_is_recognised_more_often(uneven: Dataset) -> None:
    """Of 35 eights, over three runs of eight epochs; those as they are miss most of them."""
    told = [
        sum(finish(using(*strategies, epochs=8, lr=lr), uneven)[0][-1].right[8] for lr in (0.1, 0.2, 0.3))
        for strategies in ((), (BalancedSampling(),))
    ]
    assert told[1] > told[0]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
        BalancedSampling(share=share)
