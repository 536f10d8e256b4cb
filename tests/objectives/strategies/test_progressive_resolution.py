"""The laws of ProgressiveResolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from objectives.data.dataset import Dataset, load
from objectives.networks import flops
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.task import DataSpec
from objectives.train import bound, starting_state
from tests.objectives.strategies.cases import SEEDS, TASK, finish, using

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def resized() -> Callable[[int], Dataset]:
    """Digits at a given size."""
    known: dict[int, Dataset] = {}

    def at(size: int) -> Dataset:
        if size not in known:
            known[size] = load(DataSpec("digits", n_train=100, size=size), CPU)
        return known[size]

    return at


@pytest.mark.parametrize(
    ("strategy", "full", "expected"),
    [
        (ProgressiveResolution(0.5, 0.6, 2), 32, [16, 16, 16, 24, 24, 24, 32, 32, 32, 32]),
        (ProgressiveResolution(0.5, 0.6, 1), 32, [16] * 6 + [32] * 4),
        (ProgressiveResolution(0.5, 0.9, 3), 32, [16, 16, 16, 20, 20, 20, 28, 28, 28, 32]),  # 16, 21.3, 26.7
        (ProgressiveResolution(0.4, 0.5, 1), 28, [12] * 5 + [28] * 5),  # 11.2
        (ProgressiveResolution(0.1, 0.2, 1), 8, [4, 4] + [8] * 8),  # never below four pixels
        (ProgressiveResolution(0.9, 0.8, 4), 8, [8] * 10),  # nothing between a share of 0.9 and the whole
        (ProgressiveResolution(1.0, 0.8, 2), 32, [32] * 10),
        (ProgressiveResolution(0.5, 0.0, 2), 32, [32] * 10),
    ],
    ids=repr,
)
def test_sizes_grow_in_steps_of_four_pixels_until_they_are_full(
    strategy: ProgressiveResolution, full: int, expected: list[int], resized: Callable[[int], Dataset]
) -> None:
    state = starting_state(using(strategy, epochs=10), TASK, resized(full), SEEDS)
    sizes, events = [], []
    for epoch in range(10):
        now = replace(state, epoch=epoch)
        (ready,) = bound(now).pipeline.strategies
        x, _ = ready.batch(resized(full).train.x[:2].float(), resized(full).train.y[:2])
        sizes.append(x.shape[-1])
        assert x.shape == (2, 1, sizes[-1], sizes[-1])
        if epoch:
            events += [(epoch, event) for event in strategy.between_epochs(now).events]
    assert sizes == expected
    changes = [epoch for epoch in range(1, 10) if expected[epoch] != expected[epoch - 1]]
    assert events == [(epoch, f"images {expected[epoch - 1]} -> {expected[epoch]} pixels") for epoch in changes]


def test_small_images_are_those_of_the_whole_not_a_part(resized: Callable[[int], Dataset]) -> None:
    dataset = resized(32)
    (ready,) = bound(starting_state(using(ProgressiveResolution()), TASK, dataset, SEEDS)).pipeline.strategies
    x = dataset.train.x[:20].float()
    shrunk, _ = ready.batch(x, dataset.train.y[:20])
    averaged = torch.nn.functional.avg_pool2d(x, 2)
    assert torch.corrcoef(torch.stack([shrunk.flatten(), averaged.flatten()]))[0, 1] > 0.98
    assert ready.batch(x, dataset.train.y[:20])[1] is not None


def test_flops_fall_with_the_size_and_evaluation_sees_full_images(resized: Callable[[int], Dataset]) -> None:
    dataset = resized(16)
    pipeline = using(ProgressiveResolution(start=0.5, until=0.5, steps=1))
    reports, trained = finish(pipeline, dataset)
    (_, small), (forward, full) = (flops.count(trained.model.architecture, size) for size in (8, 16))
    assert [report.train_flops for report in reports] == [
        100 * work for work in (small, 2 * small, 2 * small + full, 2 * small + 2 * full)
    ]
    assert {report.inference_flops for report in reports} == {forward}
    assert [bool(report.events) for report in reports] == [False, True, False, False]
    assert [report.settled for report in reports] == [False, False, True, True]


@pytest.mark.parametrize(
    "parameters", [{"start": 0.0}, {"start": 1.1}, {"until": -0.1}, {"until": 1.0}, {"steps": 0}, {"steps": 17}]
)
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"start must lie in \(0, 1\], until in \[0, 1\), steps in 1 to 16"):
        ProgressiveResolution(**parameters)  # type: ignore[arg-type]
