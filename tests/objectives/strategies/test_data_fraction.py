"""The laws of DataFraction."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from objectives.data.dataset import Dataset, Images
from objectives.networks import flops
from objectives.strategies.data_fraction import DataFraction
from objectives.train import after_boundary
from tests.objectives.strategies.cases import begin, finish, using

GROWING = DataFraction(start=0.1, until=0.8, steps=4)
FIXED = DataFraction(start=0.3, until=1.0)


@pytest.fixture(scope="module")
def unbalanced(digits: Dataset) -> Dataset:
    """Digits of which class c has 5 + 4 c images for training, as far as there are so many."""
    rank = torch.stack([(digits.train.y[:n] == label).sum() for n, label in enumerate(digits.train.y)])
    kept = rank < 5 + 4 * digits.train.y
    return replace(digits, train=Images(digits.train.x[kept], digits.train.y[kept]))


def used(strategy: DataFraction, dataset: Dataset, epochs: int = 10) -> list[Images]:
    """The images in use in every epoch of a run."""
    state = begin(using(strategy, epochs=epochs), dataset)
    found = [state.data]
    for epoch in range(1, epochs):
        state = after_boundary(replace(state, epoch=epoch))
        found.append(state.data)
    return found


def shown(images: Images) -> Counter[tuple[bytes, int]]:
    """The images and their labels, in no order."""
    return Counter((x.numpy().tobytes(), int(y)) for x, y in zip(images.x, images.y, strict=True))


def per_class(images: Images) -> torch.Tensor:
    return images.y.bincount(minlength=10)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (GROWING, [50, 50, 162, 162, 275, 275, 388, 388, 500, 500]),  # of 10, 32.5, 55, 77.5, 100 %
        (DataFraction(start=0.5, until=0.5, steps=1), [250] * 5 + [500] * 5),
        (FIXED, [150] * 10),
        (DataFraction(start=0.001, until=0.1), [10] + [500] * 9),  # never without a class
        (DataFraction(start=1.0, until=0.5), [500] * 10),
    ],
    ids=repr,
)
def test_the_share_grows_in_equal_steps_until_all_images_are_in_use(
    strategy: DataFraction, expected: list[int], digits: Dataset
) -> None:
    found = used(strategy, digits)
    assert [len(images.y) for images in found] == [len(images.x) for images in found] == expected
    for images, n in zip(found, expected, strict=True):
        assert images.x.is_contiguous(memory_format=torch.channels_last)
        assert n < 500 or images is digits.train  # a copy of everything would be made into batches anew


@pytest.mark.parametrize("balanced", [True, False])
def test_every_subset_is_part_of_the_next(balanced: bool, unbalanced: Dataset) -> None:
    found = used(replace(GROWING, balanced=balanced), unbalanced)
    assert len({len(images.y) for images in found}) == 5
    for smaller, larger in pairwise(found):
        assert shown(smaller) <= shown(larger)


@pytest.mark.parametrize("balanced", [True, False])
def test_which_images_are_used_depends_neither_on_their_order_nor_on_seeds(balanced: bool, unbalanced: Dataset) -> None:
    order = torch.randperm(len(unbalanced.train.y), generator=torch.Generator().manual_seed(5))
    shuffled = Images(
        unbalanced.train.x[order].contiguous(memory_format=torch.channels_last), unbalanced.train.y[order]
    )
    strategy = replace(GROWING, balanced=balanced)
    torch.manual_seed(1)
    found = used(strategy, unbalanced)
    torch.manual_seed(2)
    for one, other in zip(found, used(strategy, replace(unbalanced, train=shuffled)), strict=True):
        assert shown(one) == shown(other)


def test_which_images_are_used_does_not_depend_on_the_memory_layout(digits: Dataset) -> None:
    contiguous = replace(digits, train=Images(digits.train.x.repeat(1, 3, 1, 1).contiguous(), digits.train.y))
    x = contiguous.train.x.contiguous(memory_format=torch.channels_last)
    assert contiguous.train.x.stride() != x.stride()
    (one, other) = (used(FIXED, d)[0] for d in (contiguous, replace(digits, train=Images(x, digits.train.y))))
    assert shown(one) == shown(other)


def test_images_come_by_lot_and_not_by_what_they_show(digits: Dataset) -> None:
    """The brightness of the subset is that of the whole, as far as chance leaves it."""
    brightness = digits.train.x.float().mean((1, 2, 3))
    part = used(FIXED, digits)[0].x.float().mean((1, 2, 3))
    assert abs(float(part.mean() - brightness.mean())) < 3 * float(brightness.std()) / len(part) ** 0.5
    assert float(part.std() / brightness.std()) == pytest.approx(1, abs=0.2)


def test_balanced_subsets_have_as_many_images_of_every_class_as_it_has(unbalanced: Dataset) -> None:
    available = per_class(unbalanced.train)
    assert available.max() > 4 * available.min()
    for images in used(GROWING, unbalanced):
        counts = per_class(images)
        for label in range(10):
            missing = counts[label] < counts.max() - 1
            assert not missing or counts[label] == available[label]


def test_other_subsets_have_of_every_class_its_share(unbalanced: Dataset) -> None:
    available = per_class(unbalanced.train)
    for images in used(replace(GROWING, balanced=False), unbalanced):
        counts = per_class(images)
        share = len(images.y) / len(unbalanced.train.y)
        assert counts.min() >= 1
        assert (counts - share * available).abs().max() <= 1


@pytest.mark.parametrize("batch_size", [50, 64, 200])
def test_flops_are_those_of_the_images_seen_from_the_first_epoch_on(batch_size: int, digits: Dataset) -> None:
    strategy = DataFraction(start=0.25, until=0.5, steps=1)
    reports, trained = finish(using(strategy, batch_size=batch_size), digits)
    per_image = flops.count(trained.model.architecture, 8)[1]
    seen = [n // min(batch_size, n) * min(batch_size, n) for n in (125, 125, 500, 500)]
    assert [report.train_flops for report in reports] == [per_image * sum(seen[: n + 1]) for n in range(4)]
    assert [report.events for report in reports] == [
        ("125 of 500 images",),
        ("500 of 500 images",),
        (),
        (),
    ]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (DataFraction(start=0.25, until=0.5, steps=1), [False, False, True, True]),
        (DataFraction(start=0.25, until=0.5, steps=2), [False, False, True, True]),
        (FIXED, [True] * 4),
        (DataFraction(start=1.0), [True] * 4),
    ],
    ids=repr,
)
def test_a_run_is_settled_once_all_images_that_it_will_use_are_in_use(
    strategy: DataFraction, expected: list[bool], digits: Dataset
) -> None:
    assert [report.settled for report in finish(using(strategy), digits)[0]] == expected


@pytest.mark.parametrize(
    "parameters", [{"start": 0.0}, {"start": 1.1}, {"until": 0.0}, {"until": 1.1}, {"steps": 0}, {"steps": 17}]
)
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"start and until must lie in \(0, 1\], steps in 1 to 16"):
        DataFraction(**parameters)  # type: ignore[arg-type]
